# The stages in a NixOS virtual machine. What they do is in crates/xtask/src/vm_test; here is only the
# machine, and its reset button.
{
  lib,
  module,
  xtask,
  # With fixtures/ in it.
  payload,
}:

{
  name = "darling-builder";

  nodes.machine = {
    imports = [ module ];

    services.darling-builder = {
      enable = true;
      ssh.enable = true;
    };

    environment.systemPackages = [ xtask ];
    environment.etc."vm-test-plan.json".text = builtins.toJSON {
      guest = "darling";
      inherit payload;
      install = false;
      user = "tester";
      reboot = true;
      slowness = 1;
    };
    users.users.tester = {
      isNormalUser = true;
      uid = 1000;
    };

    virtualisation = {
      cores = 4;
      memorySize = 4096;
      diskSize = 8192;
      # Builds write into the store, as on a real machine.
      writableStore = true;
      # What is built must outlive a reset.
      writableStoreUseTmpfs = false;
    };
  };

  testScript = ''
    # The runner's exit status for: reset the machine, hard, and call me again.
    RESET = 75

    for _ in range(5):
        machine.wait_for_unit("multi-user.target")
        # To the console, so that its lines are seen while it runs.
        status, _ = machine.execute(
            "${lib.getExe xtask} vm-stages --plan /etc/vm-test-plan.json >&2", timeout=3600
        )
        if status != RESET:
            break
        machine.crash()
        machine.start()

    assert status == 0, f"the stages ended with {status}"
  '';
}
