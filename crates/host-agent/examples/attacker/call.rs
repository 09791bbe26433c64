//! System calls by number, and how what came of them is told.

use std::ffi::CString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// One call; missing arguments are 0.
pub fn call(number: libc::c_long, arguments: &[u64]) -> Result<i64, Errno> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: there is none: this program exists to make calls that may do anything, and its own memory is what it risks.
    let result = unsafe {
        libc::syscall(number, argument(0), argument(1), argument(2), argument(3), argument(4), argument(5))
    };
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// Says what came of an attempt.
pub fn tell<T>(what: impl Display, result: Result<T, Errno>) {
    match result {
        Ok(_) => println!("attempt {what} done"),
        Err(error) => println!("attempt {what} {error:?}"),
    }
}

/// As [`tell`], with a word for what came of it.
pub fn tell_word(what: impl Display, word: impl Display) {
    println!("attempt {what} {word}");
}

/// As [`tell`], of an operation of the standard library's.
pub fn tell_io<T>(what: impl Display, result: std::io::Result<T>) {
    tell(what, result.map_err(|error| errno(&error)));
}

/// The number in it.
pub fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// For a call; lives as long as the program.
pub fn pointer(path: impl AsRef<Path>) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap().into_raw() as u64
}

/// Where every process filesystem is: the slot's, and inside Darling its own.
pub fn all_procs() -> Vec<PathBuf> {
    ["/proc", "/var/d/p/proc"]
        .map(PathBuf::from)
        .into_iter()
        .filter(|proc| proc.join("self").exists())
        .collect()
}

/// The one whose numbers are those of this process's calls.
pub fn own_proc() -> PathBuf {
    let own = std::process::id().to_string();
    all_procs()
        .into_iter()
        .find(|proc| proc.join("self").read_link().is_ok_and(|number| number.to_str() == Some(&own)))
        .unwrap_or_else(|| "/proc".into())
}

/// In a child of its own, since it may be killed or change what cannot be changed back. What the child returns becomes its exit code;
/// told is how it ended.
pub fn in_child(work: impl FnOnce() -> i32) -> String {
    // SAFETY: this program has one thread wherever this is used.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = work();
        // SAFETY: ends the copy.
        unsafe { libc::_exit(code) }
    }
    if child < 0 {
        return format!("fork-{:?}", Errno::last());
    }
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        if Errno::last() != Errno::EINTR {
            return format!("wait-{:?}", Errno::last());
        }
    }
    if libc::WIFSIGNALED(status) {
        format!("signal-{}", libc::WTERMSIG(status))
    } else {
        format!("exit-{}", libc::WEXITSTATUS(status))
    }
}

/// Becomes root of a user namespace of its own, with further namespaces (`CLONE_NEW…`).
pub fn enter_user_namespace(further: i32) -> Result<(), Errno> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    call(libc::SYS_unshare, &[(libc::CLONE_NEWUSER | further) as u64])?;
    let proc = own_proc().join("self");
    let write = |name: &str, text: String| std::fs::write(proc.join(name), text);
    write("setgroups", "deny".into())
        .and_then(|()| write("uid_map", format!("0 {uid} 1")))
        .and_then(|()| write("gid_map", format!("0 {gid} 1")))
        .map_err(|error| errno(&error))
}

/// Ignores all signals that can be ignored.
pub fn ignore_signals() {
    for signal in 1..=64 {
        // SAFETY: a disposition without a handler.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Waits for a signal, for ever.
pub fn pause() -> ! {
    loop {
        nix::unistd::pause();
    }
}

/// Repeats until it is so or the time is over; whether it is so.
pub fn eventually(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
