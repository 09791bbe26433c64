//! Attacks on the agent, which has the uid that the builder has and decides what the daemon hears of a build.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;

use crate::call::{call, in_child, own_proc, pointer, tell, tell_io, tell_word};

/// A way to send a signal with this number to the agent.
type Send = dyn FnMut(u64) -> Result<i64, Errno>;

const LAST_SIGNAL: u64 = 64;
const PTRACE_ATTACH: u64 = 16;
const PTRACE_SEIZE: u64 = 0x4206;
const SIGNAL_OF_DESCRIPTOR: u64 = 10;

pub fn attack(words: &[&str]) {
    match words {
        // By a child of the builder's, and with a number of this system's.
        ["everyone", signal] => {
            let signal: u64 = signal.parse().unwrap();
            tell(format!("everyone-{signal}"), call(libc::SYS_kill, &[-1_i64 as u64, signal]));
        }
        ["signals"] => signals(agent()),
        ["one-signal", signal] => {
            tell("one-signal", call(libc::SYS_kill, &[agent(), signal.parse().unwrap()]))
        }
        ["memory"] => memory(agent()),
        ["limits"] => limits(agent()),
        ["connect"] => connect(),
        _ => panic!("{words:?}"),
    }
}

/// The parent of the first process of this session, which is the builder.
fn agent() -> u64 {
    let builder = call(libc::SYS_getsid, &[0]).unwrap();
    let stat = fs::read_to_string(own_proc().join(builder.to_string()).join("stat")).unwrap();
    let agent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
    println!("the agent is {agent}");
    agent.parse().unwrap()
}

fn is_there(process: u64) -> bool {
    own_proc().join(process.to_string()).join("stat").exists()
}

/// Every signal in every way. Told is which can be sent.
fn signals(agent: u64) {
    let mut info = [0_u32; 32];
    let handle = call(libc::SYS_pidfd_open, &[agent, 0]).unwrap_or(-1) as u64;
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(agent as i32)))
        .map_or(0, |group| group.as_raw());
    // That of the first process has a number that means everybody.
    let group = if group > 1 { (-i64::from(group)) as u64 } else { -(agent as i64) as u64 };
    let mut ways: Vec<(&str, Box<Send>)> = vec![
        ("kill", Box::new(move |signal| call(libc::SYS_kill, &[agent, signal]))),
        ("tkill", Box::new(move |signal| call(libc::SYS_tkill, &[agent, signal]))),
        ("tgkill", Box::new(move |signal| call(libc::SYS_tgkill, &[agent, agent, signal]))),
        ("pidfd", Box::new(move |signal| call(libc::SYS_pidfd_send_signal, &[handle, signal, 0, 0]))),
        (
            "queue",
            Box::new(move |signal| {
                // `si_code` of sigqueue(3), -1, without which it is refused anyway.
                info[0] = signal as u32;
                info[2] = u32::MAX;
                call(libc::SYS_rt_sigqueueinfo, &[agent, signal, info.as_ptr() as u64])
            }),
        ),
        ("group", Box::new(move |signal| call(libc::SYS_kill, &[group, signal]))),
    ];
    for (way, send) in &mut ways {
        let mut answers: Vec<String> = (0..=LAST_SIGNAL)
            .map(|signal| {
                send(signal).map_or_else(|error| format!("{error:?}"), |_| format!("sent-{signal}"))
            })
            .collect();
        answers.dedup();
        tell_word(format!("signals-by-{way}"), answers.join(","));
    }
    tell_word("signals-by-descriptor", in_child(|| by_descriptor(agent)));
    tell_word("signals-by-child", in_child(by_child));
    std::thread::sleep(std::time::Duration::from_millis(100));
    tell_word("agent", if is_there(agent) { "there" } else { "gone" });
}

/// The kernel sends a signal to the owner of a descriptor that has become readable: which owner, which signal, can be said.
fn by_descriptor(agent: u64) -> i32 {
    let (reading, writing) = UnixStream::pair().unwrap();
    let set = |command: i32, value: u64| {
        call(libc::SYS_fcntl, &[reading.as_raw_fd() as u64, command as u64, value])
    };
    let owned =
        set(libc::F_SETOWN, agent).and_then(|_| set(SIGNAL_OF_DESCRIPTOR as i32, libc::SIGKILL as u64));
    let owned = owned.and_then(|_| set(libc::F_SETFL, libc::O_ASYNC as u64));
    let _ = std::io::Write::write(&mut &writing, b"x");
    i32::from(owned.is_err())
}

/// A child says by which signal its parent is to hear of its end; the parent of an orphan is the agent.
fn by_child() -> i32 {
    let orphan = call(libc::SYS_clone, &[libc::SIGKILL as u64]);
    if orphan == Ok(0) {
        std::thread::sleep(std::time::Duration::from_millis(20));
        // SAFETY: ends the copy.
        unsafe { libc::_exit(0) }
    }
    let sibling = call(libc::SYS_clone, &[(libc::CLONE_PARENT | libc::SIGKILL) as u64]);
    if sibling == Ok(0) {
        // SAFETY: ends the copy.
        unsafe { libc::_exit(0) }
    }
    i32::from(orphan.is_err() || sibling.is_err())
}

/// Everything that would let the builder read or write what the agent holds.
fn memory(agent: u64) {
    let directory = own_proc().join(agent.to_string());
    let mut buffer = [0_u8; 16];
    let part = [buffer.as_mut_ptr() as u64, buffer.len() as u64];
    let part = part.as_ptr() as u64;
    tell("attach", call(libc::SYS_ptrace, &[PTRACE_ATTACH, agent]));
    tell("seize", call(libc::SYS_ptrace, &[PTRACE_SEIZE, agent]));
    tell("readv", call(libc::SYS_process_vm_readv, &[agent, part, 1, part, 1, 0]));
    tell("writev", call(libc::SYS_process_vm_writev, &[agent, part, 1, part, 1, 0]));
    tell_io("mem", fs::File::options().read(true).write(true).open(directory.join("mem")));
    tell_io("environ", fs::read(directory.join("environ")));
    tell_io("maps", fs::read(directory.join("maps")));
    tell_io("root", fs::read_link(directory.join("root")));
    tell_io("cwd", fs::read_link(directory.join("cwd")));
    tell_io("fd", fs::read_dir(directory.join("fd")));
    for number in 3..8 {
        tell_io(format!("fd-{number}"), fs::read_link(directory.join(format!("fd/{number}"))));
    }
    match call(libc::SYS_pidfd_open, &[agent, 0]) {
        Ok(handle) => {
            for number in 3..8 {
                tell(format!("getfd-{number}"), call(libc::SYS_pidfd_getfd, &[handle as u64, number, 0]));
            }
            tell("enter", call(libc::SYS_setns, &[handle as u64, libc::CLONE_NEWNS as u64]));
        }
        Err(error) => tell::<()>("pidfd", Err(error)),
    }
    tell("compare", call(libc::SYS_kcmp, &[agent, agent, 0, 0, 0]));
}

/// A process may set limits of others of its uid: one of processor time ends it, one of descriptors blinds it.
fn limits(agent: u64) {
    let none = [0_u64, 0];
    let lower = |limit: u32| call(libc::SYS_prlimit64, &[agent, limit.into(), none.as_ptr() as u64, 0]);
    tell("limit-processor", lower(libc::RLIMIT_CPU));
    tell("limit-descriptors", lower(libc::RLIMIT_NOFILE));
    tell("limit-memory", lower(libc::RLIMIT_AS));
    let high = 0xdead_beef_0000_0000 | agent;
    let limit = libc::RLIMIT_CPU.into();
    tell("limit-high", call(libc::SYS_prlimit64, &[high, limit, none.as_ptr() as u64, 0]));
}

/// Its socket, or one in its place.
fn connect() {
    for directory in ["/run/db", "/Volumes/SystemRoot/run/db"] {
        tell_io(format!("connect-{directory}"), UnixStream::connect(format!("{directory}/a")));
        tell_io(format!("bind-{directory}"), UnixListener::bind(format!("{directory}/a")));
        tell_io(format!("remove-{directory}"), fs::remove_file(format!("{directory}/darwin-agent")));
        tell_io(format!("write-{directory}"), fs::write(format!("{directory}/darwin-agent"), ""));
        tell_io(format!("rename-{directory}"), fs::rename(directory, format!("{directory}.moved")));
    }
    let kind = pointer("none");
    tell("mount", call(libc::SYS_mount, &[pointer("/build"), pointer("/run/db"), kind, libc::MS_BIND, 0]));
}
