# What can be configured. options.md is made from this file by `cargo xtask nixos-options`.
{ lib, pkgs, ... }:

let
  inherit (lib) literalExpression mkOption types;

  toml = pkgs.formats.toml { };

  seconds =
    what:
    mkOption {
      type = types.ints.unsigned;
      default = 0;
      example = 3600;
      description = "Seconds that ${what}. 0 is no limit.";
    };

  bytes =
    what:
    mkOption {
      type = types.ints.unsigned;
      default = 0;
      example = 1073741824;
      description = "Bytes that ${what}. 0 is no limit.";
    };
in
{
  options.services.darling-builder = {
    enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether to build `x86_64-darwin` derivations on this machine, through Darling. Nix is configured
        to hand them over; all other builds stay as they are.
      '';
    };

    package = mkOption {
      type = types.package;
      default =
        pkgs.darling-builder or (throw ''
          services.darling-builder.package: nixpkgs has no darling-builder; import the module as
          nixosModules.darling-builder of its flake, or add its overlay (nix/overlay.nix) to nixpkgs.overlays
        '');
      defaultText = literalExpression "pkgs.darling-builder";
      example = literalExpression "darling-builder.packages.x86_64-linux.default";
      description = "The package with `host-agent`, `darling-builder-hook` and the agent that runs inside Darling.";
    };

    darling.package = mkOption {
      type = types.nullOr types.package;
      default = pkgs.darling or null;
      defaultText = literalExpression "pkgs.darling";
      example = literalExpression "pkgs.darling";
      description = ''
        The Darling to build in. Its launcher is started by path, as root and without the set-uid bit;
        `programs.darling`, which installs a set-uid wrapper for users, is not needed and not touched.
        While the service runs, a garbage collector root keeps this Darling.
      '';
    };

    maxJobs = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 4;
      description = ''
        Builds at once. `null` lets the daemon choose when it starts: one per two cores and per 2 GiB of
        memory, whichever is fewer, at least one.
      '';
    };

    speedFactor = mkOption {
      type = types.ints.positive;
      default = 1;
      example = 2;
      description = ''
        Weight of this machine among several, in the line that `host-agent machine-spec` prints for the
        `nix.buildMachines` of others. Builds on this machine do not depend on it.
      '';
    };

    supportedFeatures = mkOption {
      type = types.listOf types.str;
      default = [ "big-parallel" ];
      example = [
        "big-parallel"
        "benchmark"
      ];
      description = "System features offered. A derivation whose `requiredSystemFeatures` has others is refused.";
    };

    mandatoryFeatures = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "darling" ];
      description = "System features of which a derivation must require all to be built here.";
    };

    shareStore = mkOption {
      type = types.bool;
      default = true;
      example = true;
      description = ''
        Whether builds read their inputs from this machine's `/nix/store` and their outputs are moved into
        it without copying. There is no other way: a build sees its own inputs only, read-only, and a
        store of its own would need a second Nix. `false` is refused.
      '';
    };

    warmSlots = mkOption {
      type = types.nullOr types.ints.unsigned;
      default = null;
      example = 1;
      description = ''
        Booted, idle slots kept ready, about 45 MB of memory each, so that a build does not wait for
        Darling to boot. `null` is as many as `maxJobs`, at most 2.
      '';
    };

    idleTimeout = mkOption {
      type = types.ints.unsigned;
      default = 900;
      example = 0;
      description = ''
        Seconds without a build after which the idle slots are dropped; the next build boots its own. 0
        keeps them.
      '';
    };

    limits = {
      wallClock = seconds "a builder may run";
      silence = seconds "a builder may print nothing";
      log = bytes "a builder may print";
      output = bytes ''
        the outputs of one derivation may have together (as NAR), and any one file while it is built
      '';
      tmpfs = mkOption {
        type = types.ints.between 16777216 9223372036854775807;
        default = 2147483648;
        example = 4294967296;
        description = "Bytes that a slot's `/tmp` may hold, and as many again a Darling prefix. At least 16 MiB.";
      };
      processes = mkOption {
        type = types.nullOr types.ints.unsigned;
        default = null;
        example = 16384;
        description = ''
          Processes and threads that a slot may have at once. `null` is 64 a core, and 4096 at least; 0 is no
          limit.
        '';
      };
    };

    fixedOutputNetwork = mkOption {
      type = types.enum [
        "auto"
        "pasta"
        "host"
      ];
      default = "auto";
      example = "pasta";
      description = ''
        What fixed-output builds have for a network. `pasta`: one of their own, which pasta(1) joins to this
        machine's, so that what listens on this machine can't be reached; `host`: this machine's own;
        `auto`: `pasta` where it works, which the daemon tries when it starts, else `host`.
      '';
    };

    pasta.package = mkOption {
      type = types.nullOr types.package;
      default = pkgs.passt or null;
      defaultText = literalExpression "pkgs.passt";
      example = literalExpression "pkgs.passt";
      description = "The package with `pasta`, for `fixedOutputNetwork`. `null` is none.";
    };

    allowUserNamespaces = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether builders can make user namespaces. In one each is root, with mounts of its own and memory
        that no limit covers: only for builds that you trust as far as yourself.
      '';
    };

    uidCount = mkOption {
      type = types.ints.between 512 2147482647;
      default = 65536;
      example = 4096;
      description = ''
        Uids that are slots', from 2000000000 (`settings.uid-base`) on, used in rotation. None of them may
        be an account's.
      '';
    };

    frontEnd = mkOption {
      type = types.enum [
        "auto"
        "external-builder"
        "build-hook"
      ];
      default = "auto";
      example = "build-hook";
      description = ''
        How Nix hands builds over. `external-builder` needs Nix 2.32 or later; Nix then registers, checks
        and signs by itself. `build-hook` works with every Nix from 2.3 on, and with Lix before 2.94.
        `auto` takes the best that `nix.package` has.
      '';
    };

    settings = mkOption {
      type = toml.type;
      default = { };
      example = {
        queue-limit = 16;
        external-builder.when-busy = "fail";
      };
      description = ''
        The daemon's configuration file, for what has no option of its own: see docs/configuration.md. The
        options above are written into it as well; what is set here and there must agree.
      '';
    };

    ssh.enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether one can log in to a Darling prefix with `ssh darling-builder`: on 127.0.0.1 only, with the
        key at `sshKeyPath` only, as the unprivileged user `builder`. For looking around; builds do not
        need it.
      '';
    };

    port = mkOption {
      type = types.ints.between 1 65535;
      default = 2222;
      example = 2022;
      description = "TCP port for `ssh.enable`, on 127.0.0.1.";
    };

    sshKeyPath = mkOption {
      type = types.nullOr (types.strMatching "/.*");
      default = null;
      example = "/etc/ssh/darling-builder";
      description = ''
        Path of the private key that may log in (`ssh.enable`), a string, so that it is not copied into
        the store. The daemon makes the key if it is missing (ed25519, mode 0600, root's) and never
        replaces one; the directory must exist. `null` is `ssh/client_ed25519` in `prefixPath`.
      '';
    };

    prefixPath = mkOption {
      type = types.strMatching "/.*";
      default = "/nix/var/darling-builder";
      example = "/nix/var/lib/darling-builder";
      description = ''
        The daemon's state directory: build directories, outputs until they are moved into the store, kept
        failed builds, keys. Best on the file system of `/nix/store`, else every output is copied. No
        Darling prefix is kept here or anywhere: each build gets a new one, on a tmpfs of its own.
      '';
    };

    installNix = mkOption {
      type = types.bool;
      default = false;
      example = false;
      description = ''
        Refused if `true`. No Nix is installed inside Darling: over the shared store it would wait for the
        locks which the Nix that asks for the build holds, for ever; and it is not needed, as Nix's part
        of a build is done outside.
      '';
    };

    nixVersion = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = null;
      description = "Refused unless `null`, see `installNix`. The Nix that counts is `nix.package`.";
    };
  };
}
