//! `kill(-1, SIGKILL)` as some uid: everything that runs as it is dead or dying when the call returns.
//!
//! The kernel walks its own list of processes, which none can be added to meanwhile, and a process with a signal pending makes no
//! other: so a process that forks all the time, and is another whenever somebody looks at /proc, is met as well.

#![expect(unsafe_code, reason = "a forked copy of a process with threads may make plain system calls only")]

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Kills every process in this pid namespace and below that has this uid as its real or saved one; blocking. False if the copy of
/// this process that does it, and has that uid for a moment, was killed or stopped by one of them: then it is to be tried again.
pub(super) fn kill_uid(uid: u32) -> io::Result<bool> {
    if uid == 0 {
        return Err(io::Error::other("root is no uid of a slot"));
    }
    // Not the C library's fork(3), which in the copy goes on with locks that another thread may hold.
    // SAFETY: the copy makes plain system calls on its own stack and ends with `_exit`.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as libc::pid_t;
    match child {
        0 => {
            // SAFETY: as above.
            let code = unsafe { kill_as(uid) };
            // SAFETY: ends the copy, without what the original has to do at its end.
            unsafe { libc::_exit(code) }
        }
        1.. => loop {
            match waitpid(Pid::from_raw(child), Some(WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(_, 0)) => return Ok(true),
                Ok(WaitStatus::Exited(_, code)) => return Err(io::Error::from_raw_os_error(code)),
                Ok(WaitStatus::Stopped(..)) => kill(Pid::from_raw(child), Signal::SIGKILL)?,
                Ok(_) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        },
        _ => Err(io::Error::last_os_error()),
    }
}

/// The error, or 0.
///
/// # Safety
/// In a process that has one thread and is to end.
unsafe fn kill_as(uid: u32) -> i32 {
    // Version 3 of linux/capability.h; of this thread.
    let mut header = [0x2008_0522_u32, 0];
    let mut rights = [0_u32; 6];
    let mut ids = [0_u32; 3];
    // SAFETY: the kernel writes into these arrays, which have the size that it expects.
    unsafe {
        // Of the C library's functions only those that are no more than the call.
        let id = libc::c_long::from(uid);
        if libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) != 0
            || libc::syscall(libc::SYS_setresgid, id, id, id) != 0
            || libc::syscall(libc::SYS_setresuid, id, id, id) != 0
            || libc::syscall(libc::SYS_getresuid, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2]) != 0
            || libc::syscall(libc::SYS_capget, header.as_mut_ptr(), rights.as_mut_ptr()) != 0
        {
            return Errno::last_raw();
        }
        // With root's uid or its right to kill, everybody would mean the machine.
        if ids != [uid; 3] || rights[0] != 0 || rights[3] != 0 {
            return libc::EPERM;
        }
        match libc::syscall(libc::SYS_kill, -1, libc::SIGKILL) {
            0 => 0,
            _ if Errno::last_raw() == libc::ESRCH => 0,
            _ => Errno::last_raw(),
        }
    }
}
