# The options as NixOS's own documentation shows them; nixos/options.md is the same, made without nixpkgs.
{
  lib,
  nixosOptionsDoc,
  pkgs,
}:

let
  evaluated = lib.evalModules {
    modules = [ ../nixos/options.nix ];
    specialArgs = { inherit pkgs; };
  };
in
(nixosOptionsDoc {
  options = removeAttrs evaluated.options [ "_module" ];
  # Names of the repository, not of the store.
  transformOptions = option: option // { declarations = [ "nixos/options.nix" ]; };
}).optionsCommonMark
