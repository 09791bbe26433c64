# The development tasks, for what runs them outside of a checkout: the NixOS VM test.
{ lib, rustPlatform }:

let
  source = import ./source.nix { inherit lib; };
in
rustPlatform.buildRustPackage {
  pname = "darling-builder-xtask";
  inherit (source) version src;

  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [ "--package=xtask" ];
  doCheck = false;

  meta = source.meta // {
    description = "Development tasks of darling-builder";
    mainProgram = "xtask";
  };
}
