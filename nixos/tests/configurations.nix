# Configurations that the module is evaluated in. Each is a NixOS module; `pkgs` replaces packages.
{ lib, package }:

let
  nix = version: { package = package "nix" version; };
  lix = version: { package = package "lix" version; };

  # A configuration that only sets options of ours.
  only = options: {
    services.darling-builder = {
      enable = true;
    }
    // options;
  };
  # The same on a NixOS with something else.
  on = nixos: options: nixos // { imports = [ (only options) ]; };
in
{
  works = {
    disabled = { };
    enabled = only { };
    template = {
      imports = [ ../../templates/darling-builder/darling-builder.nix ];
    };

    every-option = only {
      package = package "darling-builder" "0.2.0";
      darling.package = package "darling" "0.2";
      maxJobs = 4;
      speedFactor = 2;
      supportedFeatures = [
        "big-parallel"
        "benchmark"
      ];
      mandatoryFeatures = [ "darling" ];
      shareStore = true;
      warmSlots = 1;
      idleTimeout = 60;
      limits = {
        wallClock = 7200;
        silence = 1800;
        log = 67108864;
        output = 8589934592;
        tmpfs = 4294967296;
        processes = 16384;
      };
      fixedOutputNetwork = "pasta";
      pasta.package = package "passt" "2026.01.01";
      allowUserNamespaces = true;
      uidCount = 4096;
      frontEnd = "external-builder";
      ssh.enable = true;
      port = 2022;
      sshKeyPath = "/etc/ssh/darling-builder";
      prefixPath = "/nix/var/lib/darling-builder";
      installNix = false;
      nixVersion = null;
    };

    free-settings = only {
      maxJobs = 2;
      settings = {
        max-jobs = 2;
        idle-timeout-seconds = 0;
        queue-limit = 16;
        allowed-uids = [ 1000 ];
        socket = "/run/darling.sock";
        systems = [
          "x86_64-darwin"
          "i686-darwin"
        ];
        darling.tick = true;
        external-builder = {
          when-busy = "fail";
          absent-wait-seconds = 300;
        };
        limits.silence-seconds = 600;
      };
    };

    without-pasta = on { pkgs.passt = null; } { fixedOutputNetwork = "host"; };
    pasta-that-is-not-of-nixpkgs = only {
      pasta.package = null;
      fixedOutputNetwork = "pasta";
      settings.pasta = "/usr/bin/pasta";
    };
    stand-in = on { pkgs.darling = null; } {
      darling.package = null;
      settings.guest = "linux";
    };
    ssh = only { ssh.enable = true; };
    container = on {
      boot.isContainer = true;
      boot.kernelPackages.kernel.version = "5.4";
    } { };

    nix-2-8 = on { nix = nix "2.8.0"; } { };
    nix-2-26 = on { nix = nix "2.26.3"; } { };
    nix-2-31-that-has-an-environment = on {
      nix = nix "2.31.5";
      systemd.services.nix-daemon.environment.NIX_CONFIG =
        ''
          keep-outputs = true
          build-hook = /nix/store/00000000000000000000000000000000-darling-builder-0.1.0/bin/darling-builder-hook'';
    } { };
    nix-2-33 = on { nix = nix "2.33.1"; } { };
    nix-2-34-through-the-hook = on {
      nix = nix "2.34.8" // {
        settings.max-jobs = 0;
      };
    } { frontEnd = "build-hook"; };
    nix-that-has-features = on {
      nix = nix "2.34.8" // {
        settings.experimental-features = [
          "nix-command"
          "flakes"
        ];
        settings.extra-experimental-features = [ "ca-derivations" ];
      };
    } { };
    lix-2-93 = on { nix = lix "2.93.1"; } { };
  };

  # Exactly one assertion fires in each.
  refused = {
    aarch64 = on { pkgs.stdenv.hostPlatform.system = "aarch64-linux"; } { };
    darwin = on { pkgs.stdenv.hostPlatform.system = "x86_64-darwin"; } { };
    old-kernel = on { boot.kernelPackages.kernel.version = "5.10.240"; } { };
    no-nix = on { nix.enable = false; } { };
    no-external-builders-yet = on { nix = nix "2.31.5"; } { frontEnd = "external-builder"; };
    no-external-builders-in-lix = on { nix = lix "2.94.0"; } { frontEnd = "external-builder"; };
    no-way-into-lix = on { nix = lix "2.94.0"; } { };
    no-way-into-nix = on { nix = nix "2.2.2"; } { frontEnd = "build-hook"; };
    no-jobs = on { nix.settings.max-jobs = 0; } { };
    another-hook = on {
      nix = nix "2.34.8" // {
        settings.build-hook = "/run/current-system/sw/bin/hook";
      };
    } { frontEnd = "build-hook"; };
    another-environment = on {
      nix = nix "2.28.3";
      systemd.services.nix-daemon.environment.NIX_CONFIG = "keep-outputs = true";
    } { };
    hook-before-external-builder = on {
      nix.settings.build-hook = "/run/current-system/sw/bin/hook";
    } { };
    another-external-builder = on {
      nix.settings.external-builders = ''[{"systems":["riscv64-linux"],"program":"/bin/false","args":[]}]'';
    } { };
    extra-options = on {
      nix.extraOptions = ''
        keep-outputs = true
        build-hook =
      '';
    } { };
    no-darling = on { pkgs.darling = null; } { };
    no-pasta = on { pkgs.passt = null; } { fixedOutputNetwork = "pasta"; };
    store-of-its-own = only { shareStore = false; };
    nix-inside = only { installNix = true; };
    version-of-nix-inside = only { nixVersion = "2.18.1"; };
    port-of-openssh = on {
      services.openssh.enable = true;
      services.openssh.ports = [
        22
        2222
      ];
    } { ssh.enable = true; };
    key-in-the-store = only {
      ssh.enable = true;
      sshKeyPath = "/nix/store/00000000000000000000000000000000-key";
    };
  };

  # The options' types refuse these.
  mistyped = {
    jobs-of-zero = only { maxJobs = 0; };
    small-tmpfs = only { limits.tmpfs = 1024; };
    few-uids = only { uidCount = 16; };
    unknown-network = only { fixedOutputNetwork = "slirp"; };
    unknown-front-end = only { frontEnd = "ssh"; };
    key-as-a-path-of-nix = only {
      ssh.enable = true;
      sshKeyPath = ./configurations.nix;
    };
    unknown-option = only { warmSlot = 1; };
    conflicting-values = only {
      maxJobs = 2;
      settings.max-jobs = 3;
    };
  };

  # Those around which ../front-end.nix distinguishes.
  nixVersions = [
    "2.2.2"
    "2.3.16"
    "2.8.0"
    "2.24.9"
    "2.25.0"
    "2.26.3"
    "2.31.5"
    "2.32.0"
    "2.33.6"
    "2.34.8"
    "2.36pre20260822_88b09c6"
    "2.90.0"
    "2.93.1"
    "2.94.0"
  ];
}
