# A stand-in for the part of nixpkgs' `lib` that the module uses, so that it can be evaluated where there is
# no nixpkgs.
#
# Same names, same meaning as far as the module goes: types check what they say, definitions merge by
# priority, conflicts are errors. docs/nixos.md says what was evaluated with the real one.
let
  strings = import ./strings.nix;
  priorities = import ./priorities.nix;
  types = import ./types.nix { inherit strings priorities; };
  modules = import ./modules.nix { inherit priorities types; };
in
strings
// {
  inherit types;
  inherit (priorities)
    mkDefault
    mkForce
    mkIf
    mkMerge
    mkOverride
    ;
  inherit (modules) evalModules optionTree;

  # Lists and lines are few enough here to be in any order.
  mkAfter = value: value;

  mkOption = attrs: attrs // { _type = "option"; };

  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };

  optionalAttrs = condition: attrs: if condition then attrs else { };
  optional = condition: value: if condition then [ value ] else [ ];

  getExe' = package: name: "${package}/bin/${name}";
  getName = package: package.pname;
  getVersion = package: package.version;
}
