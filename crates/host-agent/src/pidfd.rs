//! Processes by descriptor (pidfd_open(2), Linux 5.3): a number may mean another process a moment later, these never do.

#![expect(unsafe_code, reason = "raw system calls without a safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A descriptor of the process that has this number now; readable once it has ended.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call on numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to it (pidfd_send_signal(2)), as `kill` with its number would.
pub fn send_signal(process: impl AsFd, signal: Signal) -> io::Result<()> {
    // SAFETY: a plain system call on a descriptor that outlives it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_fd().as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
