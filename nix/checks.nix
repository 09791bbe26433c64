# What `nix flake check` runs. Tests that need root, Darling or real Nix of several versions are `cargo xtask
# test`, outside of any build.
{ pkgs, module }:

let
  inherit (pkgs) lib;
  inherit (pkgs.darling-builder) src;

  nixFiles = lib.fileset.toSource {
    root = ../.;
    # Fixtures are written as their tests need them.
    fileset = lib.fileset.difference (lib.fileset.fileFilter (
      file: file.hasExt "nix"
    ) ../.) ../fixtures;
  };

  # A package of the workspace built once more, with another command in place of the build.
  cargo =
    name: inputs: command:
    pkgs.darling-builder.overrideAttrs (old: {
      pname = "darling-builder-${name}";
      nativeBuildInputs = old.nativeBuildInputs ++ inputs;
      buildPhase = command;
      installPhase = "touch $out";
      postInstall = "";
    });

  # NixOS as far as an evaluation goes; what is wanted is that it has no failed assertion.
  evaluated =
    name: configuration:
    let
      nixos = pkgs.nixos {
        imports = [
          module
          configuration
        ];
        boot.loader.grub.enable = false;
        fileSystems."/" = {
          device = "none";
          fsType = "tmpfs";
        };
        system.stateVersion = "26.05";
        services.darling-builder.enable = true;
      };
      failed = map (one: one.message) (builtins.filter (one: !one.assertion) nixos.config.assertions);
    in
    assert lib.assertMsg (failed == [ ]) (lib.concatStringsSep "\n" failed);
    pkgs.writeText "darling-builder-evaluation-${name}"
      nixos.config.systemd.units."darling-builder.service".text;
in
{
  build = pkgs.darling-builder;

  clippy = cargo "clippy" [ pkgs.clippy ] ''
    cargo clippy --offline --workspace --all-targets -- -D warnings
  '';
  tests = cargo "tests" [ pkgs.nix ] ''
    export HOME=$TMPDIR
    cargo test --offline --workspace
  '';
  format = cargo "format" [ pkgs.rustfmt ] "cargo fmt --all --check";
  format-nix =
    pkgs.runCommand "darling-builder-format-nix" { nativeBuildInputs = [ pkgs.nixfmt ]; }
      ''
        find ${nixFiles} -name '*.nix' -exec nixfmt --check {} +
        touch $out
      '';

  evaluation = evaluated "default" { };
  evaluation-hook = evaluated "hook" { services.darling-builder.frontEnd = "build-hook"; };
  evaluation-ssh = evaluated "ssh" { services.darling-builder.ssh.enable = true; };

  vm-test = pkgs.testers.runNixOSTest (
    import ../nixos/tests/darling-builder.nix {
      inherit lib module;
      xtask = pkgs.darling-builder-xtask;
      payload = src;
    }
  );
}
