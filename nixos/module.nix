# services.darling-builder: x86_64-darwin builds on NixOS, through Darling.
#
# Options are in options.nix; every other file is about one thing that follows from them.
{
  imports = [
    ./options.nix
    ./settings.nix
    ./service.nix
    ./nix-settings.nix
    ./ssh.nix
    ./assertions.nix
  ];
}
