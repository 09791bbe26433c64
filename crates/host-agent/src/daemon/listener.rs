//! The daemon's socket: made by itself, or handed over by systemd.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::net::UnixListener;
use tracing::warn;

use super::Daemon;
use super::door::Door;
use crate::slot::root::set_mode;

/// Why the daemon can't listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The socket can't be made.
    #[error("failed to listen on {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody answers there.
    #[error("failed to listen on {0}: another daemon answers there")]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("failed to listen on {0}: there is a file that is not a socket; move it away or set `socket`")]
    NotASocket(PathBuf),
}

/// Where front ends connect.
#[derive(Debug)]
pub(super) struct Listener(UnixListener);

impl Listener {
    /// The socket from systemd if there is one (sd_listen_fds(3)), else a new one at `path`, mode 0666: who may ask is
    /// decided by credentials.
    pub(super) fn open(path: &Path) -> Result<Self, ListenError> {
        let failed = |error| ListenError::Io { path: path.to_owned(), error };
        if let Some(socket) = from_systemd() {
            let socket = std::os::unix::net::UnixListener::from(socket);
            socket.set_nonblocking(true).map_err(failed)?;
            return UnixListener::from_std(socket).map(Self).map_err(failed);
        }
        if let Ok(kind) = path.symlink_metadata() {
            if !kind.file_type().is_socket() {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ListenError::InUse(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        set_mode(path, 0o666).map_err(failed)?;
        Ok(Self(listener))
    }

    /// Accepts until aborted. Nothing that a peer does makes this wait.
    pub(super) async fn serve(self, daemon: Arc<Daemon>) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => Door::receive(&daemon, stream),
                Err(error) => {
                    // Out of descriptors, most likely: connections that end will free some.
                    warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Removes the socket, unless systemd owns it.
pub(super) fn remove_socket(path: &Path) {
    if std::env::var_os("LISTEN_FDS").is_none() {
        let _ = std::fs::remove_file(path);
    }
}

#[expect(unsafe_code, reason = "the descriptor is ours by the protocol of sd_listen_fds(3)")]
fn from_systemd() -> Option<OwnedFd> {
    const FIRST: i32 = 3;
    let ours = std::env::var("LISTEN_PID").ok()?.parse::<u32>().ok()? == std::process::id();
    let one = std::env::var("LISTEN_FDS").ok()? == "1";
    if !ours || !one {
        return None;
    }
    // SAFETY: systemd has passed this descriptor to this process (LISTEN_PID), and it is taken once, at start.
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST) };
    let _ = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    Some(fd)
}
