//! What this process does with itself: it closes what Nix has let it inherit, and dies of a signal if its builder did.

#![expect(unsafe_code, reason = "closing descriptors of no owner, and default signal dispositions")]

use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigHandler, SigSet, Signal, raise, signal};

use crate::config::GuestKind;

/// Closes every descriptor from 3 up. Nix leaks some, among them the other end of our own output; with that open, a Nix
/// that is gone would go unnoticed. To be called before anything else is opened.
pub fn close_inherited() {
    // SAFETY: nothing in this process has opened a descriptor yet, so none of them has an owner here.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if result == 0 {
        return;
    }
    // Linux before 5.9.
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    for fd in 3..limit.map_or(1024, |(soft, _)| soft.min(1 << 20) as i32) {
        // SAFETY: as above; those that are not open are not harmed.
        unsafe { libc::close(fd) };
    }
}

/// Dies of this signal (the guest's number) as the builder has. Returns if it has no meaning here.
pub fn die_of(number: i32, guest: GuestKind) {
    let linux = match guest {
        GuestKind::Linux => Signal::try_from(number).ok(),
        GuestKind::Darling => from_darwin(number),
    };
    let Some(fatal) = linux else { return };
    // The core, if any, was the builder's to dump.
    let _ = set_dumpable(false);
    let mut set = SigSet::empty();
    set.add(fatal);
    // SAFETY: the default disposition runs no code of ours.
    let _ = unsafe { signal(fatal, SigHandler::SigDfl) };
    let _ = set.thread_unblock();
    let _ = raise(fatal);
}

/// Darwin's signal numbers (`<sys/signal.h>`). SIGEMT and SIGINFO do not exist in Linux.
fn from_darwin(number: i32) -> Option<Signal> {
    use Signal::*;
    Some(match number {
        1 => SIGHUP,
        2 => SIGINT,
        3 => SIGQUIT,
        4 => SIGILL,
        5 => SIGTRAP,
        6 => SIGABRT,
        8 => SIGFPE,
        9 => SIGKILL,
        10 => SIGBUS,
        11 => SIGSEGV,
        12 => SIGSYS,
        13 => SIGPIPE,
        14 => SIGALRM,
        15 => SIGTERM,
        16 => SIGURG,
        17 => SIGSTOP,
        18 => SIGTSTP,
        19 => SIGCONT,
        20 => SIGCHLD,
        21 => SIGTTIN,
        22 => SIGTTOU,
        23 => SIGIO,
        24 => SIGXCPU,
        25 => SIGXFSZ,
        26 => SIGVTALRM,
        27 => SIGPROF,
        28 => SIGWINCH,
        30 => SIGUSR1,
        31 => SIGUSR2,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_have_other_numbers_in_darwin_keep_their_meaning() {
        assert_eq!(from_darwin(10), Some(Signal::SIGBUS));
        assert_eq!(from_darwin(30), Some(Signal::SIGUSR1));
        assert_eq!(from_darwin(12), Some(Signal::SIGSYS));
        assert_eq!(from_darwin(29), None);
        // Every Darwin signal but the two that Linux lacks, each another one.
        let all: std::collections::BTreeSet<_> = (1..32).filter_map(from_darwin).collect();
        assert_eq!(all.len(), 29);
    }
}
