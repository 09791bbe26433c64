# The packages, for those without flakes: nix-build -A host-agent
#
# Without arguments nixpkgs and rust-overlay are the newest of their branches. Give them to pin them.
{
  nixpkgs ? builtins.fetchTarball "https://github.com/NixOS/nixpkgs/archive/nixos-26.05.tar.gz",
  rust-overlay ? builtins.fetchTarball "https://github.com/oxalica/rust-overlay/archive/master.tar.gz",
  pkgs ? import nixpkgs {
    system = "x86_64-linux";
    overlays = [ (import ./nix/overlay.nix { inherit rust-overlay; }) ];
  },
}:

{
  host-agent = pkgs.darling-builder;
  darwin-agent = pkgs.darling-builder-darwin-agent;
  xtask = pkgs.darling-builder-xtask;
  options-doc = pkgs.callPackage ./nix/options-doc.nix { };
  # For `imports` of a NixOS configuration.
  module = {
    imports = [ ./nixos/module.nix ];
    services.darling-builder.package = pkgs.lib.mkDefault pkgs.darling-builder;
  };
  shell = pkgs.callPackage ./nix/dev-shell.nix { };
  checks = import ./nix/checks.nix {
    inherit pkgs;
    module = ./nixos/module.nix;
  };
}
