//! The two connections to the host, and their handshake.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use protocol::frame::{self, FrameError};
use protocol::hello::{Agreed, Channel, Features, Hello, HelloError};
use thiserror::Error;

/// Longest path of a socket, bytes: `sun_path` of macOS has 104, one of them for the final NUL. Darling cuts longer
/// ones without a word, so the same limit holds everywhere.
pub const SOCKET_PATH_MAX: usize = 103;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The path would be cut.
    #[error(
        "socket path {} has {} bytes, at most {SOCKET_PATH_MAX} fit: put the socket into a shorter directory",
        .0.display(), .0.as_os_str().len()
    )]
    PathTooLong(PathBuf),
    /// `connect(2)` failed.
    #[error("failed to connect to {}: {source}", path.display())]
    Connect {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Our greeting could not be sent.
    #[error("failed to greet the host: {0}")]
    Greet(#[source] FrameError),
    /// The host's greeting did not come, or it speaks something else.
    #[error("failed to agree with the host: {0}")]
    Hello(#[from] HelloError),
    /// The host took one connection for the other.
    #[error("host answered for channel {theirs:?} on channel {ours:?}")]
    Channel {
        /// What was asked for.
        ours: Channel,
        /// What came back.
        theirs: Channel,
    },
}

/// Connects and greets.
pub fn open(path: &Path, channel: Channel) -> Result<(UnixStream, Agreed), ConnectionError> {
    if path.as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
        return Err(ConnectionError::PathTooLong(path.to_owned()));
    }
    let mut stream = UnixStream::connect(path)
        .map_err(|source| ConnectionError::Connect { path: path.to_owned(), source })?;
    let mut ours = Hello::ours(channel, &identity());
    ours.features = features();
    frame::write(&mut stream, &ours).map_err(ConnectionError::Greet)?;
    let theirs = Hello::read(&mut stream)?;
    let agreed = ours.agree(&theirs)?;
    if theirs.channel != channel {
        return Err(ConnectionError::Channel { ours: channel, theirs: theirs.channel });
    }
    Ok((stream, agreed))
}

/// What this build of the agent can do here.
fn features() -> Features {
    if cfg!(target_os = "linux") {
        Features::ALL
    } else {
        // Orphans go to launchd, and those that made a session of their own can't be told from its services.
        Features(Features::PTY.0 | Features::DIAGNOSTICS.0 | Features::INPUT.0)
    }
}

/// Program, version and system, for logs.
pub fn identity() -> String {
    format!("darwin-agent {} ({})", env!("CARGO_PKG_VERSION"), system())
}

/// `uname -srm`.
pub fn system() -> String {
    match nix::sys::utsname::uname() {
        Ok(name) => {
            [name.sysname(), name.release(), name.machine()].map(|part| part.to_string_lossy()).join(" ")
        }
        Err(_) => std::env::consts::OS.to_owned(),
    }
}
