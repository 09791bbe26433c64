# The daemon's units, and what keeps its running builds alive over an activation.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.darling-builder;
  configFile = config.environment.etc."darling-builder/config.toml".source;
  coreutils = "${pkgs.coreutils}/bin";

  # The configuration names the Darling that the daemon runs. A root of its own, because a daemon that is
  # still finishing its builds may be of a generation that is deleted meanwhile.
  root = "/nix/var/nix/gcroots/darling-builder";

  units = import ./units.nix {
    HOST_AGENT = lib.getExe' cfg.package "host-agent";
    # Not the one below /etc: what the daemon was started with then stands in its unit, and another one is a
    # changed unit.
    CONFIG = "${configFile}";
    SOCKET = cfg.settings.socket or "/run/darling-builder/daemon.sock";
    STORE = cfg.settings.store-directory or "/nix/store";
    STATE = cfg.settings.state-directory;
    SHELL = pkgs.runtimeShell;
  };
in
{
  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    systemd.services.darling-builder = {
      unitConfig = units.service.Unit;
      serviceConfig =
        units.service.Service
        // {
          ExecStartPre = "${coreutils}/ln -sfnT ${configFile} ${root}";
          ExecStopPost = "${coreutils}/rm -f ${root}";
        }
        # The daemon makes the key; otherwise /etc and homes are read-only to it.
        // lib.optionalAttrs (cfg.ssh.enable && cfg.sshKeyPath != null) {
          ReadWritePaths = [ "-${builtins.dirOf cfg.sshKeyPath}" ];
        };
      wantedBy = units.service.Install.WantedBy;
      # A change of the unit is a reload, which drains: running builds end by themselves, then systemd starts
      # the new daemon.
      reloadIfChanged = true;
    };

    systemd.sockets.darling-builder = {
      unitConfig = units.socket.Unit;
      socketConfig = units.socket.Socket;
      wantedBy = units.socket.Install.WantedBy;
    };
  };
}
