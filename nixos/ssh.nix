# `ssh darling-builder`, for the clients of this machine. The daemon makes the keys, when it first starts.
{
  config,
  lib,
  ...
}:

let
  cfg = config.services.darling-builder;
  directory = "${cfg.settings.state-directory}/ssh";
  key = if cfg.sshKeyPath != null then cfg.sshKeyPath else "${directory}/client_ed25519";
in
{
  config = lib.mkIf (cfg.enable && cfg.ssh.enable) {
    # Last, because what follows a `Host` belongs to it. Not `programs.ssh.knownHostsFiles`, which copies
    # files into the store: the daemon writes its host key there, and nothing of it is known when this is
    # evaluated.
    programs.ssh.extraConfig = lib.mkAfter ''
      Host darling-builder
        HostName 127.0.0.1
        Port ${toString cfg.port}
        User builder
        IdentityFile ${key}
        IdentitiesOnly yes
      Host darling-builder 127.0.0.1
        GlobalKnownHostsFile /etc/ssh/ssh_known_hosts ${directory}/known_hosts
    '';
  };
}
