# The daemon's configuration file, from the options and from `settings`.
#
# An option is written into `settings` with the priority that it was set with: a default gives way to what the
# user says in `settings`, and two different values of the user's are a conflict, which the module system
# reports with both places.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:

let
  cfg = config.services.darling-builder;
  opt = options.services.darling-builder;

  said = option: value: lib.mkIf (value != null) (lib.mkOverride option.highestPrio value);
in
{
  config = lib.mkIf cfg.enable {
    services.darling-builder.settings = lib.mkMerge [
      {
        max-jobs = said opt.maxJobs cfg.maxJobs;
        warm-slots = said opt.warmSlots cfg.warmSlots;
        idle-timeout-seconds = said opt.idleTimeout cfg.idleTimeout;
        speed-factor = said opt.speedFactor cfg.speedFactor;
        supported-features = said opt.supportedFeatures cfg.supportedFeatures;
        mandatory-features = said opt.mandatoryFeatures cfg.mandatoryFeatures;
        fixed-output-network = said opt.fixedOutputNetwork cfg.fixedOutputNetwork;
        allow-user-namespaces = said opt.allowUserNamespaces cfg.allowUserNamespaces;
        uid-count = said opt.uidCount cfg.uidCount;
        state-directory = said opt.prefixPath cfg.prefixPath;
        limits = {
          wall-seconds = said opt.limits.wallClock cfg.limits.wallClock;
          silence-seconds = said opt.limits.silence cfg.limits.silence;
          log-bytes = said opt.limits.log cfg.limits.log;
          output-bytes = said opt.limits.output cfg.limits.output;
          tmpfs-bytes = said opt.limits.tmpfs cfg.limits.tmpfs;
          processes = said opt.limits.processes cfg.limits.processes;
        };
      }
      (lib.mkIf (cfg.darling.package != null) {
        darling.launcher = said opt.darling.package (lib.getExe' cfg.darling.package "darling");
      })
      (lib.mkIf (cfg.pasta.package != null) {
        pasta = said opt.pasta.package (lib.getExe' cfg.pasta.package "pasta");
      })
      (lib.mkIf cfg.ssh.enable {
        ssh = {
          enable = true;
          port = said opt.port cfg.port;
          client-key = said opt.sshKeyPath cfg.sshKeyPath;
        };
      })
    ];

    # Where the daemon's front ends look, which Nix starts, and `host-agent status` and `doctor`.
    environment.etc."darling-builder/config.toml".source =
      (pkgs.formats.toml { }).generate "darling-builder.toml"
        cfg.settings;
  };
}
