//! The first process of a slot is root's and holds a descriptor of the whole store: a builder has no way to it.

use crate::attack::{Attacker, skipped};
use crate::harness::{Daemon, darling};

#[test]
fn the_first_process_of_a_slot_can_be_neither_looked_into_nor_traced_nor_signalled() {
    if skipped() {
        return;
    }
    for extra in ["", "\nallow-user-namespaces = true"] {
        let daemon = Daemon::start(&format!("warm-slots = 0{extra}"));
        let told = Attacker::new(&daemon).run("$attacker first-process; echo > $out");
        assert!(told.is_built(), "{:?}", told.done.report);
        // Anybody may open that one; writing to it is what the kernel then refuses.
        told.none_was_done_but(&["/proc/1/timerslack_ns"], 45);
        for name in
            ["root", "cwd", "exe", "fd", "environ", "maps", "mem", "fd/3", "ns/mnt", "root/run/.store"]
        {
            assert_eq!(told.came_of(&format!("/proc/1/{name}")), "EACCES", "{name}: {}", told.log());
        }
        if darling() {
            assert_eq!(told.came_of("number"), "none", "{}", told.log());
            continue;
        }
        for what in ["attach", "readv", "writev", "limit", "getfd-3", "enter"] {
            assert_eq!(told.came_of(what), "EPERM", "{what}: {}", told.log());
        }
        for signal in [0, libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM, libc::SIGCHLD] {
            assert_eq!(told.came_of(&format!("signal-{signal}")), "EPERM", "{}", told.log());
        }
    }
}
