//! Starts a slot's first process: `host-agent slot-init`, pid 1 of namespaces of its own.
//!
//! clone3 rather than unshare, so that the child *is* pid 1 and no process stands between it and the daemon; the
//! pidfd that comes with it can't be confused with a later process of the same number.

#![expect(unsafe_code, reason = "clone3 followed by exec in the child")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Descriptor of the daemon's socket in `slot-init`.
pub const DAEMON_FD: RawFd = 3;

/// A running `slot-init`.
#[derive(Debug)]
pub struct SlotInit {
    /// Refers to the process, also after its death.
    pub pidfd: OwnedFd,
    /// Process id on the host.
    pub pid: i32,
    /// Our end of the socket.
    pub socket: UnixStream,
}

/// The network namespace that a slot's first process begins in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// A new one.
    Own,
    /// That of the host.
    Hosts,
}

/// Starts `slot-init` in new mount, pid, ipc and uts namespaces, and in this network namespace. Needs CAP_SYS_ADMIN.
pub fn slot_init(network: NetworkNamespace) -> io::Result<SlotInit> {
    let (ours, theirs) = UnixStream::pair()?;
    // The running binary, also if its file was replaced by an upgrade meanwhile.
    let program = File::open("/proc/self/exe")?;
    let argv = [CString::from(c"host-agent"), CString::from(c"slot-init")];
    let argv: Vec<*const libc::c_char> =
        argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let env: [*const libc::c_char; 1] = [std::ptr::null()];

    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let namespaces = match network {
        NetworkNamespace::Own => namespaces | libc::CLONE_NEWNET,
        NetworkNamespace::Hosts => namespaces,
    };
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args: no stack (the child goes on on a copy of ours), no tid pointers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;

    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of the address space, in which only this
    // thread exists; until exec it makes only async-signal-safe system calls on memory prepared above.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: see above; every call is a plain system call, and `_exit` ends the copy without running destructors.
        unsafe {
            // Both ends at once: `program` must not sit on 3 when the socket moves there.
            let program = libc::fcntl(program.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10);
            if program >= 0 && libc::dup2(theirs.as_raw_fd(), DAEMON_FD) == DAEMON_FD {
                reset_signals();
                let keep = program as libc::c_uint;
                libc::syscall(libc::SYS_close_range, DAEMON_FD as libc::c_uint + 1, keep - 1, 0);
                libc::syscall(libc::SYS_close_range, keep + 1, libc::c_uint::MAX, 0);
                libc::syscall(
                    libc::SYS_execveat,
                    program,
                    c"".as_ptr(),
                    argv.as_ptr(),
                    env.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
            }
            libc::_exit(127);
        }
    }
    // SAFETY: the kernel has stored a descriptor of ours there, because CLONE_PIDFD was asked for.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(SlotInit { pidfd, pid: pid as i32, socket: ours })
}

/// Default dispositions and an empty mask: the daemon's handlers and blocked signals are not the slot's.
///
/// # Safety
/// Only between fork and exec.
unsafe fn reset_signals() {
    // SAFETY: plain system calls on local memory; failures for SIGKILL and SIGSTOP are expected and harmless.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

impl SlotInit {
    /// Kills it, and with it, since it is pid 1, everything in the slot. Idempotent.
    pub fn kill(&self) {
        // SAFETY: a plain system call on a descriptor that `self` owns.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            );
        }
    }

    /// Waits until it, and so everything in the slot, is dead, and reaps it. The kernel reports the death of a pid
    /// namespace's first process only after all others in it are gone.
    pub fn wait(&self) -> io::Result<()> {
        use nix::errno::Errno;
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        use std::os::fd::AsFd;
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Ok(_) | Err(Errno::ECHILD) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for SlotInit {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}
