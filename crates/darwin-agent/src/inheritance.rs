//! What this program takes over from whoever started it, and does not want.
#![expect(unsafe_code, reason = "signal dispositions and descriptors that no Rust value owns")]

use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;

/// Undoes what whoever started this program may have set: an ignored SIGCHLD would make the kernel reap children and
/// lose their status, and blocked signals would stay blocked here.
pub fn own_signals() {
    // SAFETY: plain calls; called before any thread is started.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut());
        let mut none: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Signals that end or stop a program which does nothing about them, and that a program may ignore.
const IGNORED: [libc::c_int; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGIO,
    libc::SIGXCPU,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The builder has the same uid and may signal all that it may; what is meant for its own processes must not end this one. Whoever
/// wants that closes the connection.
pub fn ignore_signals() {
    for signal in IGNORED {
        // SAFETY: a plain call; called before any thread is started.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Deals with descriptors that whoever started this program left open: on Linux they are closed, elsewhere marked
/// close-on-exec (inside Darling some belong to its libraries). Called before anything is opened.
pub fn disown_descriptors() {
    #[cfg(target_os = "linux")]
    // SAFETY: nothing in this program has opened a descriptor yet, so none is owned by a Rust value.
    if unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) } == 0 {
        return;
    }
    let inherited: Vec<RawFd> = std::fs::read_dir("/dev/fd")
        .map(|entries| {
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
        })
        .unwrap_or_else(|_| (3..256).collect());
    for fd in inherited.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: sets a flag; a number that is not open is refused harmlessly.
        unsafe {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}
