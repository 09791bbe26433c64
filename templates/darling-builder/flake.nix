{
  description = "A NixOS machine that builds x86_64-darwin derivations";

  inputs = {
    # The last release with x86_64-darwin.
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    # Where you have it from.
    darling-builder.url = "path:/path/to/darling-builder";
  };

  outputs =
    { nixpkgs, darling-builder, ... }:
    {
      # The name that `nixos-rebuild switch --flake .` looks for is the machine's host name.
      nixosConfigurations.my-machine = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          darling-builder.nixosModules.darling-builder
          ./configuration.nix
          ./darling-builder.nix
        ];
      };
    };
}
