# What can't work, said before anything is built, with what would.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.darling-builder;
  settings = config.nix.settings;

  frontEnd = import ./front-end.nix { inherit lib; } {
    wanted = cfg.frontEnd;
    nix = config.nix.package;
    builder = cfg.package;
  };
  inherit (frontEnd)
    hook
    hookLine
    isExternalBuilder
    isHook
    ;

  # Lines of nix.extraOptions that set one of ours; they come after nix.settings and would win.
  extraLines = builtins.filter (
    line: builtins.match "[[:space:]]*(build-hook|external-builders)[[:space:]]*=.*" line != null
  ) (lib.splitString "\n" config.nix.extraOptions);

  hookInConf = settings.build-hook or "";
  nixConfig = config.systemd.services.nix-daemon.environment.NIX_CONFIG or "";
  hookInEnvironment = builtins.elem hookLine (lib.splitString "\n" nixConfig);

  # To be searched in.
  plain = builtins.unsafeDiscardStringContext;
  builderNamed = lib.hasInfix (plain "${cfg.package}") (plain settings.external-builders);

  openssh = config.services.openssh;
  portTaken = cfg.ssh.enable && openssh.enable && builtins.elem cfg.port openssh.ports;

  system = pkgs.stdenv.hostPlatform.system;
  kernel = config.boot.kernelPackages.kernel.version;

  # Each with the option's name in front.
  must = assertion: message: {
    inherit assertion;
    message = "services.darling-builder${message}";
  };
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      (must (system == "x86_64-linux") ''
        : this machine is ${system}. Darling runs x86_64 programs natively and emulates nothing, so
        the machine must be x86_64-linux. (aarch64-darwin can't be built at all.) For another
        machine, let an x86_64-linux one build, see docs/scale-out.md.
      '')
      (must (config.boot.isContainer || lib.versionAtLeast kernel "5.12") ''
        : Linux ${kernel} is too old. Slots need open_tree, move_mount and mount_setattr of Linux
        5.12; choose another `boot.kernelPackages`.
      '')
      (must config.nix.enable ''
        : `nix.enable` is false, so there is no Nix to build for. If Nix is managed by other means,
        use `host-agent install`, which works on any Linux.
      '')
      (must (frontEnd.place != null || frontEnd.name != "external-builder") ''
        .frontEnd: ${frontEnd.nixName} has no external builders: they came with Nix 2.32, and Lix
        has none. Say "build-hook" or "auto", or choose another `nix.package`.
      '')
      (must (frontEnd.place != null || frontEnd.name != "build-hook") ''
        .frontEnd: ${frontEnd.nixName} has no build hook that darling-builder can serve (Nix before
        2.3, and Lix from 2.94 on, speak another protocol). Choose another `nix.package`.
      '')
      (must (!isExternalBuilder || (settings.max-jobs or "auto") != 0) ''
        .frontEnd: with `nix.settings.max-jobs = 0` no external builder is ever started, because
        each takes one of Nix's own jobs. Set it to 1 or more, or say
        `services.darling-builder.frontEnd = "build-hook"`.
      '')
      (must (!isHook || frontEnd.place != "nix.conf" || hookInConf == hook) ''
        .frontEnd: `nix.settings.build-hook` is set to something else (${hookInConf}), and
        Nix has one build hook only. Remove that setting: builds that are not for this builder are
        passed on to `nix.buildMachines` anyway.
      '')
      (must (!isHook || frontEnd.place != "environment" || hookInEnvironment) ''
        .frontEnd: ${frontEnd.nixName} takes a build hook from the environment of nix-daemon only,
        and `systemd.services.nix-daemon.environment.NIX_CONFIG` is set to something else. Move what
        is there to `nix.settings`, or add this line to it: ${hookLine}
      '')
      (must (!isExternalBuilder || !(settings ? build-hook)) ''
        .frontEnd: `nix.settings.build-hook` is set as well, and Nix asks its hook before any
        external builder. Remove that setting.
      '')
      (must (!isExternalBuilder || builderNamed) ''
        .frontEnd: `nix.settings.external-builders` is set to something without this builder. Add
        its entry there, or say `services.darling-builder.frontEnd = "build-hook"`.
      '')
      (must (extraLines == [ ]) ''
        : `nix.extraOptions` sets what this module sets: ${lib.concatStringsSep "; " extraLines}. It
        comes later in nix.conf and would win. Remove it.
      '')
      (must (cfg.settings.guest or "darling" != "darling" || cfg.settings ? darling.launcher) ''
        .darling.package: this nixpkgs has no package `darling`. Set the option, or
        `settings.darling.launcher` to the launcher of a Darling that is installed otherwise.
      '')
      (must (cfg.settings.fixed-output-network != "pasta" || cfg.settings ? pasta) ''
        .pasta.package: this nixpkgs has no package `passt`, and `fixedOutputNetwork = "pasta"` insists
        on it. Set the option, or say "auto" or "host": then fixed-output builds have this machine's
        own network.
      '')
      (must cfg.shareStore ''
        .shareStore: there is no builder without the shared store. A build sees its inputs only,
        read-only, at their own paths, and its outputs are moved into /nix/store when Nix has
        checked them; a store of its own would need a second Nix inside Darling.
      '')
      (must (!cfg.installNix) ''
        .installNix: no Nix is installed inside Darling. It would work on the same /nix/store and
        wait for the locks on the outputs which the Nix that asks for the build already holds, for
        ever. Nothing is missing: Nix's part is done by `nix.package`, outside. Remove the option.
      '')
      (must (cfg.nixVersion == null) ''
        .nixVersion: no Nix is installed inside Darling (see `installNix`), so it has no version.
        The Nix that counts is `nix.package`. Remove the option.
      '')
      (must (!portTaken) ''
        .port: ${toString cfg.port} is a port of `services.openssh` already. Choose another one of
        the two.
      '')
      (must (cfg.sshKeyPath == null || !lib.hasPrefix "${builtins.storeDir}/" cfg.sshKeyPath) ''
        .sshKeyPath: ${toString cfg.sshKeyPath} is in the store, which everybody can read. Name a
        path outside of it; the daemon makes the key.
      '')
    ];

    warnings =
      lib.optional (isExternalBuilder && !frontEnd.rebuilds) ''
        services.darling-builder: Nix 2.33 does not use external builders for --rebuild and --check.
        Every other version does.
      ''
      ++ lib.optional (cfg.settings.guest or "darling" == "linux") ''
        services.darling-builder: `settings.guest = "linux"` is the stand-in for tests. It runs
        Linux programs that merely say x86_64-darwin.
      '';
  };
}
