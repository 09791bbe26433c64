# The development environment, for those without flakes; arguments as in default.nix.
arguments@{ ... }: (import ./default.nix arguments).shell
