//! Attacks on the slot's first process, which is root's and holds a descriptor of the whole store.

use std::fs;
use std::path::Path;

use crate::call::{call, own_proc, tell, tell_io, tell_word};

const PTRACE_ATTACH: u64 = 16;

pub fn attack(words: &[&str]) {
    assert!(words.is_empty());
    by_files(Path::new("/proc/1"));
    if own_proc() != Path::new("/proc") {
        // A pid namespace further down: there the first process is another, and this one has no number.
        return tell_word("number", "none");
    }
    let mut buffer = [0_u8; 16];
    let part = [buffer.as_mut_ptr() as u64, buffer.len() as u64];
    let part = part.as_ptr() as u64;
    tell("attach", call(libc::SYS_ptrace, &[PTRACE_ATTACH, 1]));
    tell("readv", call(libc::SYS_process_vm_readv, &[1, part, 1, part, 1, 0]));
    tell("writev", call(libc::SYS_process_vm_writev, &[1, part, 1, part, 1, 0]));
    for signal in [0, libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM, libc::SIGCHLD] {
        tell(format!("signal-{signal}"), call(libc::SYS_kill, &[1, signal as u64]));
    }
    tell("limit", call(libc::SYS_prlimit64, &[1, 0, [0_u64; 2].as_ptr() as u64, 0]));
    tell("nice", call(libc::SYS_setpriority, &[0, 1, 19]));
    match call(libc::SYS_pidfd_open, &[1, 0]) {
        Ok(handle) => {
            for number in 0..16 {
                tell(format!("getfd-{number}"), call(libc::SYS_pidfd_getfd, &[handle as u64, number, 0]));
            }
            let all = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
            tell("enter", call(libc::SYS_setns, &[handle as u64, all as u64]));
        }
        Err(error) => tell::<()>("pidfd", Err(error)),
    }
}

fn by_files(process: &Path) {
    let what = |name: &str| process.join(name).display().to_string();
    let at = |name: &str| process.join(name);
    for name in ["root", "cwd", "exe", "ns/mnt", "ns/pid", "ns/net", "ns/user"] {
        tell_io(what(name), fs::read_link(at(name)));
    }
    for name in
        ["root", "root/etc", "root/run/.store", "cwd/etc", "fd", "map_files", "task/1/root", "task/1/fd"]
    {
        tell_io(what(name).as_str(), fs::read_dir(at(name)));
    }
    for name in ["environ", "auxv", "maps", "smaps", "pagemap", "stack", "syscall", "io", "personality"] {
        tell_io(what(name), fs::read(at(name)));
    }
    for name in ["mem", "oom_score_adj", "clear_refs", "coredump_filter", "comm", "timerslack_ns"] {
        tell_io(what(name), fs::File::options().write(true).open(at(name)));
    }
    for number in 0..16 {
        tell_io(what(&format!("fd/{number}")), fs::File::open(at(&format!("fd/{number}"))));
    }
    let own = fs::File::open(at("ns/mnt"));
    tell_io(what("ns/mnt-opened"), own);
}
