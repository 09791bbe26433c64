//! Waiting for children, and signals by number: what has no safe wrapper that also gives resource usage.
#![expect(unsafe_code, reason = "wait4, waitid with WNOWAIT and kill by number have no safe wrappers")]

use std::io;
use std::mem::MaybeUninit;

use libc::{c_int, pid_t};

/// Which child to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// This one, however long it takes.
    For(pid_t),
    /// Any that has ended, without waiting.
    AnyEnded,
}

/// A child that has ended and was reaped.
#[derive(Debug, Clone, Copy)]
pub struct Reaped {
    /// As from `wait(2)`.
    pub status: c_int,
    /// What it and the descendants it waited for used.
    pub usage: libc::rusage,
}

/// Reaps a child; `None` if none has ended yet ([`Wait::AnyEnded`] only). ECHILD: there is no such child.
pub fn wait(which: Wait) -> io::Result<Option<Reaped>> {
    let (pid, options) = match which {
        Wait::For(pid) => (pid, 0),
        Wait::AnyEnded => (-1, libc::WNOHANG),
    };
    loop {
        let mut status = 0;
        // SAFETY: both pointers are to locals; rusage is plain data.
        let (reaped, usage) = unsafe {
            let mut usage: libc::rusage = MaybeUninit::zeroed().assume_init();
            (libc::wait4(pid, &mut status, options, &mut usage), usage)
        };
        match reaped {
            0 => return Ok(None),
            1.. => return Ok(Some(Reaped { status, usage })),
            _ => retry_interrupted()?,
        }
    }
}

/// Waits until some child has ended and says which, without reaping it: its process id stays taken, so that a signal
/// to its group can't reach a stranger.
#[cfg(target_os = "linux")]
pub fn wait_for_an_end() -> io::Result<pid_t> {
    loop {
        // SAFETY: siginfo is plain data and filled by the call; si_pid is valid after a successful waitid.
        unsafe {
            let mut info: libc::siginfo_t = MaybeUninit::zeroed().assume_init();
            if libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOWAIT) == 0 {
                return Ok(info.si_pid());
            }
        }
        retry_interrupted()?;
    }
}

/// `kill(2)`: a negative number names a process group, -1 everything this user may signal.
pub fn kill(pid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes orphans below this process its children, so that none escapes (Linux).
pub fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is involved; a failure leaves orphans to init, as elsewhere.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
}

/// The last error, unless it was an interruption.
fn retry_interrupted() -> io::Result<()> {
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        error => Err(error),
    }
}
