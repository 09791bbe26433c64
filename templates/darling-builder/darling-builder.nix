# Every option of services.darling-builder, at its default but for `enable`. Keep what you change; options.md
# of darling-builder says more about each.
{ pkgs, ... }:

{
  services.darling-builder = {
    # Builds x86_64-darwin derivations on this machine. Nothing else is needed.
    enable = true;

    # host-agent and its parts; the flake's own build of it is the default.
    # package = darling-builder.packages.x86_64-linux.default;

    # The Darling to build in. `programs.darling` is not needed.
    darling.package = pkgs.darling;

    # How many builds at once. null: one per two cores and per 2 GiB of memory.
    maxJobs = null;

    # Booted slots kept ready, and the seconds without a build after which they are dropped (0: never).
    warmSlots = null;
    idleTimeout = 900;

    # Limits of every build: seconds and bytes, 0 is none. tmpfs is the size of /tmp, and of the Darling
    # prefix. processes: null is 64 a core, and 4096 at least.
    limits = {
      wallClock = 0;
      silence = 0;
      log = 0;
      output = 0;
      tmpfs = 2 * 1024 * 1024 * 1024;
      processes = null;
    };

    # The network of fixed-output builds: "pasta" (their own, joined to this machine's by pasta), "host" (this
    # machine's own, with all that listens on it), or "auto" (pasta where it works).
    fixedOutputNetwork = "auto";
    pasta.package = pkgs.passt;

    # Whether builders can be root in a user namespace: only for builds that you trust as far as yourself.
    allowUserNamespaces = false;

    # Uids that are slots', from 2000000000 on.
    uidCount = 65536;

    # System features: those offered, those that a derivation must require.
    supportedFeatures = [ "big-parallel" ];
    mandatoryFeatures = [ ];

    # How Nix hands builds over: "auto", "external-builder" (Nix 2.32 and later) or "build-hook" (every Nix).
    frontEnd = "auto";

    # For other machines that build on this one: its weight among several.
    speedFactor = 1;

    # `ssh darling-builder` opens a shell in a Darling prefix, from this machine only.
    ssh.enable = false;
    port = 2222;
    sshKeyPath = null;

    # Where the daemon keeps what it works on; on the file system of /nix/store.
    prefixPath = "/nix/var/darling-builder";

    # What has no option: keys of the daemon's configuration file.
    settings = { };

    # There is one way for each of these; they are here so that a configuration which asks for another one is
    # told why.
    shareStore = true;
    installNix = false;
    nixVersion = null;
  };
}
