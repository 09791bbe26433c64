# What the module finds in NixOS, as far as it looks: options of other modules, and packages. A stand-in, like
# ./lib.
{ lib }:

let
  inherit (lib) mkOption types;

  option =
    type: default:
    mkOption {
      inherit type default;
    };

  # The values themselves: the test has them rendered and read by the program's own library.
  toml =
    let
      value =
        types.oneOf [
          types.bool
          types.int
          types.float
          types.str
          types.path
          (types.attrsOf value)
          (types.listOf value)
        ]
        // {
          description = "TOML value";
        };
    in
    {
      type = value;
      generate = name: value: {
        outPath = "/nix/store/00000000000000000000000000000000-${name}";
        inherit value;
      };
    };

  package = pname: version: {
    inherit pname version;
    outPath = "/nix/store/00000000000000000000000000000000-${pname}-${version}";
  };

  unit = {
    unitConfig = option (types.attrsOf types.anything) { };
    wantedBy = option (types.listOf types.str) [ ];
  };
in
{
  inherit package;

  pkgs = {
    formats.toml = _: toml;
    coreutils = package "coreutils" "9.8";
    runtimeShell = "/nix/store/00000000000000000000000000000000-bash-5.3/bin/bash";
    darling-builder = package "darling-builder" "0.1.0";
    darling = package "darling" "0.1";
    passt = package "passt" "2026.01.20";
    stdenv.hostPlatform.system = "x86_64-linux";
  };

  module = {
    # NixOS has it anyhow.
    config.systemd.services.nix-daemon = { };

    options = {
      assertions = option (types.listOf types.anything) [ ];
      warnings = option (types.listOf types.str) [ ];

      nix = {
        enable = option types.bool true;
        package = option types.package (package "nix" "2.34.8");
        settings = option (types.attrsOf (
          types.oneOf [
            types.bool
            types.int
            types.str
            (types.listOf types.str)
          ]
        )) { };
        extraOptions = option types.lines "";
      };

      systemd.services = option (types.attrsOf (
        types.record (
          unit
          // {
            serviceConfig = option (types.attrsOf types.anything) { };
            environment = option (types.attrsOf types.str) { };
            reloadIfChanged = option types.bool false;
          }
        )
      )) { };
      systemd.sockets = option (types.attrsOf (
        types.record (unit // { socketConfig = option (types.attrsOf types.anything) { }; })
      )) { };

      environment.etc = option (types.attrsOf (
        types.record { source = option types.package (package "empty" "0"); }
      )) { };
      environment.systemPackages = option (types.listOf types.package) [ ];

      boot.kernelPackages = option types.anything { kernel.version = "6.18.2"; };
      boot.isContainer = option types.bool false;

      programs.ssh.extraConfig = option types.lines "";
      services.openssh.enable = option types.bool false;
      services.openssh.ports = option (types.listOf types.int) [ 22 ];
    };
  };
}
