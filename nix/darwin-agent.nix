# The agent that runs inside Darling: a Mach-O program, made on Linux.
#
# nixpkgs has no Rust standard library for x86_64-apple-darwin on Linux (pkgsCross can't cross there, and one
# made elsewhere fits only the compiler that it was made with). Rust's own releases have both, and
# rust-overlay packages them with their hashes. zig links and brings the stubs of libSystem; no Apple SDK is
# needed. `cargo xtask darwin` does the rest and checks the result.
{
  lib,
  makeRustPlatform,
  rust-bin,
  zig,
}:

let
  source = import ./source.nix { inherit lib; };
  toolchain = rust-bin.stable.latest.minimal.override { targets = [ "x86_64-apple-darwin" ]; };
  rustPlatform = makeRustPlatform {
    cargo = toolchain;
    rustc = toolchain;
  };
in
rustPlatform.buildRustPackage {
  pname = "darwin-agent";
  inherit (source) version src;

  cargoLock.lockFile = ../Cargo.lock;

  buildPhase = ''
    runHook preBuild
    cargo run --offline --package xtask -- darwin --std installed --zig ${lib.getExe zig}
    runHook postBuild
  '';
  doCheck = false;
  installPhase = ''
    runHook preInstall
    install -D target/darwin/darwin-agent $out/libexec/darling-builder/darwin-agent-macho
    runHook postInstall
  '';
  # Nothing of Linux's tools may touch it: it has been checked byte for byte.
  dontFixup = true;

  meta = source.meta // {
    description = "Runs one build's process inside Darling";
  };
}
