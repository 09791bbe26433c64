{
  description = "Builds x86_64-darwin derivations on Linux, through Darling";

  inputs = {
    # The last release with x86_64-darwin.
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    # For Rust's standard library for x86_64-apple-darwin, see nix/darwin-agent.nix.
    rust-overlay.url = "github:oxalica/rust-overlay";
    rust-overlay.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    {
      self,
      nixpkgs,
      rust-overlay,
    }:
    let
      # Darling runs x86_64 programs natively, so there is no other.
      system = "x86_64-linux";
      overlay = import ./nix/overlay.nix { inherit rust-overlay; };
      pkgs = import nixpkgs {
        inherit system;
        overlays = [ overlay ];
      };
      app = name: program: {
        type = "app";
        program = "${pkgs.darling-builder}/bin/${program}";
        meta.description = name;
      };
    in
    {
      packages.${system} = {
        default = pkgs.darling-builder;
        host-agent = pkgs.darling-builder;
        darwin-agent = pkgs.darling-builder-darwin-agent;
        xtask = pkgs.darling-builder-xtask;
        options-doc = pkgs.callPackage ./nix/options-doc.nix { };
      };

      overlays.default = overlay;

      nixosModules = {
        default = self.nixosModules.darling-builder;
        darling-builder =
          { lib, ... }:
          {
            imports = [ ./nixos/module.nix ];
            # Built with the nixpkgs above, whatever the machine's is.
            services.darling-builder.package = lib.mkDefault self.packages.${system}.default;
          };
      };

      templates = {
        default = self.templates.darling-builder;
        darling-builder = {
          path = ./templates/darling-builder;
          description = "A NixOS machine that builds x86_64-darwin derivations";
          welcomeText = "Read README.md, set the host name in flake.nix, then: nixos-rebuild switch --flake .";
        };
      };

      checks.${system} = import ./nix/checks.nix {
        inherit pkgs;
        module = self.nixosModules.darling-builder;
      };

      devShells.${system}.default = pkgs.callPackage ./nix/dev-shell.nix { };

      apps.${system} = {
        default = self.apps.${system}.host-agent;
        host-agent = app "The command line: doctor, status, build, shell" "host-agent";
        doctor = {
          type = "app";
          program = "${pkgs.writeShellScript "doctor" ''exec ${pkgs.darling-builder}/bin/host-agent doctor "$@"''}";
          meta.description = "Find out whether builds can work on this machine";
        };
      };

      formatter.${system} = pkgs.nixfmt-tree;
    };
}
