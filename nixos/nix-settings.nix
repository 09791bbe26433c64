# What Nix is told: the settings of `host-agent nix-conf` for `nix.package`.
#
# They are defaults, so that a setting of the user's in their place is not a conflict of the module system's
# but one that assertions.nix explains.
{
  config,
  lib,
  ...
}:

let
  cfg = config.services.darling-builder;
  frontEnd = import ./front-end.nix { inherit lib; } {
    wanted = cfg.frontEnd;
    nix = config.nix.package;
    builder = cfg.package;
  };
in
{
  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      (lib.mkIf frontEnd.isExternalBuilder {
        nix.settings = {
          extra-experimental-features = [ "external-builders" ];
          external-builders = lib.mkDefault (
            builtins.toJSON [
              {
                systems = cfg.settings.systems or [ "x86_64-darwin" ];
                program = lib.getExe' cfg.package "host-agent";
                args = [ "external-builder" ];
              }
            ]
          );
        };
      })
      (lib.mkIf (frontEnd.isHook && frontEnd.place == "nix.conf") {
        nix.settings.build-hook = lib.mkDefault frontEnd.hook;
      })
      (lib.mkIf (frontEnd.isHook && frontEnd.place == "environment") {
        systemd.services.nix-daemon.environment.NIX_CONFIG = lib.mkDefault frontEnd.hookLine;
      })
    ]
  );
}
