# Evaluates the module in every configuration of ./configurations.nix and shows what came of each, as values
# that JSON can hold.
#
#   nix-instantiate --eval --strict --json nixos/tests/evaluate.nix
let
  lib = import ./lib;
  surroundings = import ./surroundings.nix { inherit lib; };
  configurations = import ./configurations.nix {
    inherit lib;
    inherit (surroundings) package;
  };

  # A configuration is a module; with `pkgs` in it, other packages.
  evaluate =
    configuration:
    lib.evalModules {
      modules = [
        ../module.nix
        surroundings.module
        (removeAttrs configuration [ "pkgs" ])
      ];
      specialArgs = {
        inherit lib;
        pkgs = surroundings.pkgs // (configuration.pkgs or { });
      };
    };

  shown =
    { config, ... }:
    {
      assertions = map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
      inherit (config) warnings;
    };

  # Places of those that fire, to see that each fires somewhere.
  fired =
    { config, ... }:
    builtins.filter (index: !(builtins.elemAt config.assertions index).assertion) (
      builtins.genList (index: index) (builtins.length config.assertions)
    );

  # Only where no assertion fires: NixOS looks no further either.
  rendered =
    { config, ... }:
    {
      toml = config.environment.etc."darling-builder/config.toml".source.value or null;
      nixPackage = {
        inherit (config.nix.package) pname version;
      };
      inherit (config.services.darling-builder) frontEnd;
      package = config.services.darling-builder.package.outPath;
      nix = config.nix.settings;
      nixDaemon = config.systemd.services.nix-daemon.environment;
      ssh = config.programs.ssh.extraConfig;
      service = config.systemd.services.darling-builder or null;
      socket = config.systemd.sockets.darling-builder or null;
      systemPackages = map (package: package.outPath) config.environment.systemPackages;
    };

  works = builtins.mapAttrs (
    _: configuration:
    let
      result = evaluate configuration;
    in
    shown result // rendered result
  ) configurations.works;

  refused = builtins.mapAttrs (
    _: configuration:
    let
      result = evaluate configuration;
    in
    shown result
    // {
      fired = fired result;
      total = builtins.length result.config.assertions;
    }
  ) configurations.refused;

  # Each fails to evaluate; to be asked for one by one.
  mistyped = builtins.mapAttrs (
    _: configuration: rendered (evaluate configuration)
  ) configurations.mistyped;

  # The options as documentation shows them.
  literal = value: if (value._type or null) == "literalExpression" then value else { inherit value; };
  options =
    map
      (option: {
        inherit (option) name description;
        type = option.type.description;
        default = literal (option.defaultText or option.default);
        example = literal option.example;
      })
      (
        lib.optionTree [ ../options.nix ] {
          inherit lib;
          inherit (surroundings) pkgs;
        }
      );

  # What the rules of ../front-end.nix say, for a test to compare with the program's.
  frontEnds =
    version:
    { lix, wanted }:
    let
      way = import ../front-end.nix { inherit lib; } {
        inherit wanted;
        nix = surroundings.package (if lix then "lix" else "nix") version;
        builder = surroundings.pkgs.darling-builder;
      };
    in
    {
      inherit (way) name place rebuilds;
    };
in
{
  inherit
    works
    refused
    mistyped
    options
    ;
  frontEnds = builtins.concatMap (
    version:
    builtins.concatMap
      (
        lix:
        map (wanted: { inherit version lix wanted; } // frontEnds version { inherit lix wanted; }) [
          "auto"
          "external-builder"
          "build-hook"
        ]
      )
      [
        false
        true
      ]
  ) configurations.nixVersions;
}
