//! `host-agent slot-init`: see [`crate::slot::init`].

use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use super::fail;
use crate::slot::{init, spawn};

/// Runs a slot on the socket that the daemon has put on a fixed descriptor.
pub(super) fn run() -> ExitCode {
    match daemon_socket() {
        Some(socket) => {
            init::run(socket);
            ExitCode::SUCCESS
        }
        None => fail(&"`slot-init` is started by the daemon, never by hand"),
    }
}

#[expect(unsafe_code, reason = "the daemon passes the socket by its number")]
fn daemon_socket() -> Option<UnixStream> {
    use std::os::fd::{BorrowedFd, FromRawFd};
    if std::process::id() != 1 {
        return None;
    }
    // SAFETY: only borrowed for a look, which fails if nothing is open there.
    let fd = unsafe { BorrowedFd::borrow_raw(spawn::DAEMON_FD) };
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, and nothing else in this process knows of it.
    Some(unsafe { UnixStream::from_raw_fd(spawn::DAEMON_FD) })
}
