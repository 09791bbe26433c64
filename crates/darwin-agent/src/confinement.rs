//! `--try-confinement`: tries what a builder may not do, as a builder, and prints what came of it.
//!
//! A line for each attempt: what should keep it from happening (the rules of the host's filter by their names), what was tried, and
//! `done` or the name of the error. Then lines of the limits that hold here. `host-agent doctor` and the tests read them. Attempts
//! are such that nothing comes of them if they are not refused, but for files in the working directory.

#![expect(unsafe_code, reason = "system calls by number")]

use std::ffi::CStr;
use std::io::{self, Write};

use crate::linux::{self, number};
use crate::process_table;

const AT_FDCWD: u64 = -100_i64 as u64;
const CREATE_AND_WRITE: u64 = 0o101;
const TEMPORARY_AND_WRITE: u64 = 0o20_200_001;
const NEW_USER: u64 = 0x1000_0000;
const SIGCHLD: u64 = 17;
const VSOCK: u64 = 40;
const ALG: u64 = 38;
const STREAM: u64 = 1;
const PTRACE_SEIZE: u64 = 0x4206;
const RLIMIT_NPROC: u64 = 6;
const X32: i64 = 0x4000_0000;
const FIRST_PROCESS: u64 = 1;

/// What a directory's file system can hold, and how much of it is a tmpfs's (statfs(2)).
const LIMITED: &[&CStr] = &[c"/tmp", c"/dev/shm"];

/// Tries everything and prints it.
pub fn run() -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !linux::is_below() {
        return writeln!(out, "kernel none");
    }
    for (rule, what, result) in attempts() {
        let came = result.map_or_else(error_name, |_| "done".to_owned());
        writeln!(out, "{rule} {what} {came}")?;
    }
    writeln!(out, "limit processes {}", processes())?;
    for directory in LIMITED {
        if let Some(files) = files_in(directory) {
            writeln!(out, "limit files-in-{} {files}", directory.to_string_lossy().trim_start_matches('/'))?;
        }
    }
    Ok(())
}

type Attempt = (&'static str, &'static str, Result<u64, i32>);

fn attempts() -> Vec<Attempt> {
    let file = c"try-confinement".as_ptr() as u64;
    let other = c"try-confinement-other".as_ptr() as u64;
    let here = c".".as_ptr() as u64;
    // SAFETY (of the whole list): strings are constants; calls that would write to memory get none; what is opened stays open until this
    // process ends.
    let call = |number, arguments: &[u64]| unsafe { linux::call(number, arguments) };
    let opened = call(number::OPEN, &[file, CREATE_AND_WRITE, 0o644]);
    let descriptor = opened.unwrap_or(u64::MAX);
    let mut attempts = vec![
        ("set-id-mode", "chmod", call(number::CHMOD, &[file, 0o4755])),
        ("set-id-mode", "fchmod", call(number::FCHMOD, &[descriptor, 0o2755])),
        ("set-id-mode", "fchmodat", call(number::FCHMODAT, &[AT_FDCWD, file, 0o6755])),
        ("set-id-mode", "creat", call(number::CREAT, &[other, 0o4755])),
        ("set-id-mode", "open", call(number::OPEN, &[other, CREATE_AND_WRITE, 0o4755])),
        ("set-id-mode", "openat", call(number::OPENAT, &[AT_FDCWD, other, CREATE_AND_WRITE, 0o2755])),
        (
            "set-id-mode",
            "openat-temporary",
            call(number::OPENAT, &[AT_FDCWD, here, TEMPORARY_AND_WRITE, 0o4755]),
        ),
        ("set-id-mode", "mknod", call(number::MKNOD, &[other, 0o104_755])),
        ("set-id-mode", "mknodat", call(number::MKNODAT, &[AT_FDCWD, other, 0o104_755])),
    ];
    // Linux 6.6; an older one has nothing to refuse.
    match call(number::FCHMODAT2, &[AT_FDCWD, file, 0o4755]) {
        Err(ENOSYS) => {}
        result => attempts.push(("set-id-mode", "fchmodat2", result)),
    }
    attempts.extend([
        ("openat2", "openat2", call(number::OPENAT2, &[AT_FDCWD, 0, 0, 0])),
        // In this order: the one that changes this process comes last.
        ("user-namespace", "clone", child_in_user_namespace()),
        ("user-namespace", "unshare", call(number::UNSHARE, &[NEW_USER])),
        ("clone3", "clone3", call(number::CLONE3, &[0, 0])),
        ("keys", "add_key", call(number::ADD_KEY, &[])),
        ("keys", "request_key", call(number::REQUEST_KEY, &[])),
        ("keys", "keyctl", call(number::KEYCTL, &[0, -3_i64 as u64])),
        ("io-uring", "io_uring_setup", call(number::IO_URING_SETUP, &[])),
        ("io-uring", "io_uring_enter", call(number::IO_URING_ENTER, &[u64::MAX])),
        ("io-uring", "io_uring_register", call(number::IO_URING_REGISTER, &[u64::MAX])),
        ("socket-family", "vsock", call(number::SOCKET, &[VSOCK, STREAM])),
        ("socket-family", "alg", call(number::SOCKET, &[ALG, STREAM])),
        ("socket-family", "socketpair", call(number::SOCKETPAIR, &[VSOCK, STREAM])),
        ("bpf", "bpf", call(number::BPF, &[])),
        ("perf", "perf_event_open", call(number::PERF_EVENT_OPEN, &[])),
        ("userfaultfd", "userfaultfd", call(number::USERFAULTFD, &[])),
        ("descriptors-of-others", "pidfd_getfd", call(number::PIDFD_GETFD, &[u64::MAX])),
        // Looked at before the address is, so nothing is set.
        ("limits-of-others", "prlimit", call(number::PRLIMIT64, &[FIRST_PROCESS, RLIMIT_NPROC, u64::MAX])),
        ("x32", "getppid", call(X32 | number::GETPPID, &[])),
        ("agent", "signal", agent().and_then(|agent| call(number::KILL, &[agent]))),
        ("agent", "trace", agent().and_then(|agent| call(number::PTRACE, &[PTRACE_SEIZE, agent]))),
    ]);
    attempts
}

/// The parent of the first process of this session, which is the builder.
fn agent() -> Result<u64, i32> {
    // SAFETY: asks for a number.
    let builder = unsafe { linux::call(number::GETSID, &[0]) }?;
    process_table::parent_of(builder as i32).map(|agent| agent as u64).ok_or(ESRCH)
}

/// As a fork, which ends at once.
fn child_in_user_namespace() -> Result<u64, i32> {
    // SAFETY: a copy of this process, with its own memory, that calls nothing but exit; then it is waited for.
    unsafe {
        let child = linux::call(number::CLONE, &[NEW_USER | SIGCHLD])?;
        if child == 0 {
            let _ = linux::call(number::EXIT, &[0]);
        }
        linux::call(number::WAIT4, &[child])
    }
}

fn processes() -> String {
    let mut limit = [0_u64; 2];
    // SAFETY: the kernel writes one struct rlimit, two numbers.
    let read = unsafe { linux::call(number::GETRLIMIT, &[RLIMIT_NPROC, limit.as_mut_ptr() as u64]) };
    match (read, limit[1]) {
        (Ok(_), u64::MAX) => "none".into(),
        (Ok(_), most) => most.to_string(),
        (Err(errno), _) => error_name(errno),
    }
}

/// How many files the file system there can hold.
fn files_in(directory: &CStr) -> Option<u64> {
    // struct statfs of x86_64: type, block size, blocks, free, available, files, …
    const FILES: usize = 5;
    let mut statfs = [0_u64; 15];
    // SAFETY: the kernel writes one struct statfs of 120 bytes.
    unsafe {
        linux::call(number::STATFS, &[directory.as_ptr() as u64, statfs.as_mut_ptr() as u64]).ok()?;
    }
    Some(statfs[FILES])
}

const ESRCH: i32 = 3;
const ENOSYS: i32 = 38;

/// Linux's name of an error, of those that an attempt may end with.
fn error_name(errno: i32) -> String {
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        ESRCH => "ESRCH",
        9 => "EBADF",
        13 => "EACCES",
        14 => "EFAULT",
        17 => "EEXIST",
        22 => "EINVAL",
        ENOSYS => "ENOSYS",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        number => return format!("error-{number}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_confinement_is_told_what_the_kernel_says() {
        let directory = tempfile::tempdir().unwrap();
        std::env::set_current_dir(directory.path()).unwrap();
        let attempts = attempts();
        assert!(attempts.len() >= 28, "{attempts:?}");
        let came = |what: &str| attempts.iter().find(|attempt| attempt.1 == what).unwrap().2;
        assert!(came("chmod").is_ok() && came("fchmod").is_ok(), "{attempts:?}");
        assert_eq!(came("clone3"), Err(22));
        assert!(processes() != "EFAULT");
        assert!(files_in(c"/proc/self").is_some() && files_in(c"/no/such/place").is_none());
    }
}
