# The rest of the machine. If you have one already, take your own configuration.nix and
# hardware-configuration.nix.
{
  networking.hostName = "my-machine";

  boot.loader.systemd-boot.enable = true;
  fileSystems."/" = {
    device = "/dev/disk/by-label/nixos";
    fsType = "ext4";
  };

  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];

  users.users.me = {
    isNormalUser = true;
    extraGroups = [ "wheel" ];
  };

  system.stateVersion = "26.05";
}
