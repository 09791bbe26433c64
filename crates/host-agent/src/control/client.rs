//! A front end's end of the daemon's socket: blocking, because a hook does one thing at a time and must start fast.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::frame::{self, FrameError};
use protocol::message::{Stream, TerminalSize};
use thiserror::Error;

use super::message::{CONTROL_VERSION, FromDaemon, FrontEndName, REQUEST_PART, StatusReport, ToDaemon};
use super::shell::{ShellEnd, ShellRequest};
use crate::request::{BuildPhase, BuildReport, BuildRequest};

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// Answer to a request for a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is ours; this many builds are ahead.
    Reserved {
        /// Builds before this one.
        ahead: u32,
    },
    /// Not now; the text says why.
    Full(String),
}

/// What happens to a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildEvent {
    /// It has come this far.
    Phase(BuildPhase),
    /// The builder printed this.
    Output(Vec<u8>),
    /// A line from the daemon for the build's log.
    Note(String),
    /// It is over. Staged outputs stay until the connection closes.
    Finished(Box<BuildReport>),
}

/// What happens to a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellEvent {
    /// It has come this far.
    Phase(BuildPhase),
    /// It printed this.
    Output(Stream, Vec<u8>),
    /// More input may be sent.
    InputTaken,
    /// It is over.
    Ended(ShellEnd),
}

/// Why the daemon could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "failed to reach the darling-builder daemon at {socket}: {error}; start it with `systemctl start darling-builder` \
         (or run `host-agent daemon` as root)"
    )]
    Unreachable {
        /// Path of the socket.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The path can't be the address of a Unix socket.
    #[error(
        "failed to use socket path {0}: it is longer than the 107 bytes that a Unix socket address holds; choose a shorter `socket` in the configuration"
    )]
    PathTooLong(PathBuf),
    /// The daemon is of another release.
    #[error(
        "the daemon speaks version {theirs} of the control protocol, this program {CONTROL_VERSION}: restart the daemon (`systemctl restart darling-builder`) so that both are of the same release"
    )]
    Version {
        /// The daemon's version.
        theirs: u32,
    },
    /// The daemon said no.
    #[error("the daemon refused: {0}")]
    Refused(String),
    /// The daemon went away.
    #[error("the daemon closed the connection; see `journalctl -u darling-builder`")]
    Closed,
    /// The daemon answered out of turn.
    #[error("the daemon sent an unexpected message ({0})")]
    Unexpected(&'static str),
    /// The frames broke.
    #[error("failed to talk to the daemon: {0}")]
    Frame(#[from] FrameError),
}

impl AsFd for Client {
    /// Readable when the daemon has said something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Client {
    /// Connects and greets.
    pub fn connect(socket: &Path, front_end: &str) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => ClientError::PathTooLong(socket.to_owned()),
            _ => ClientError::Unreachable { socket: socket.to_owned(), error },
        })?;
        let mut client = Self { stream };
        let front_end = FrontEndName::made_of(front_end);
        client.send(&ToDaemon::Hello { version: CONTROL_VERSION, front_end })?;
        match client.receive()? {
            FromDaemon::Hello { version: CONTROL_VERSION, .. } => Ok(client),
            FromDaemon::Hello { version, .. } => Err(ClientError::Version { theirs: version }),
            _ => Err(ClientError::Unexpected("greeting expected")),
        }
    }

    /// Longest wait for any one message of the daemon's; by default there is none.
    pub fn set_patience(&mut self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Asks for a place for one build; answered at once.
    pub fn reserve(&mut self) -> Result<Place, ClientError> {
        self.send(&ToDaemon::Reserve)?;
        match self.receive()? {
            FromDaemon::Reserved { ahead } => Ok(Place::Reserved { ahead }),
            FromDaemon::Full(reason) => Ok(Place::Full(reason)),
            _ => Err(ClientError::Unexpected("answer to a reservation expected")),
        }
    }

    /// Hands over the build; from now on [`next_event`](Self::next_event) tells how it goes.
    pub fn submit(&mut self, request: &BuildRequest) -> Result<(), ClientError> {
        let encoded = frame::encode_large(request)?;
        for part in encoded.chunks(REQUEST_PART) {
            self.send(&ToDaemon::RequestPart(part.into()))?;
        }
        self.send(&ToDaemon::RequestEnd)
    }

    /// Waits for the next thing that happens to the build.
    pub fn next_event(&mut self) -> Result<BuildEvent, ClientError> {
        match self.receive()? {
            FromDaemon::Phase(phase) => Ok(BuildEvent::Phase(phase)),
            FromDaemon::Output(bytes) => Ok(BuildEvent::Output(bytes.into_vec())),
            FromDaemon::Note(line) => Ok(BuildEvent::Note(line)),
            FromDaemon::Finished(report) => Ok(BuildEvent::Finished(Box::new(report))),
            _ => Err(ClientError::Unexpected("progress of a build expected")),
        }
    }

    /// Starts a shell in the place that was reserved; from now on [`next_shell_event`](Self::next_shell_event) tells how it
    /// goes.
    pub fn shell(&mut self, request: ShellRequest) -> Result<(), ClientError> {
        self.send(&ToDaemon::Shell(request))
    }

    /// Sends the shell some input, at most [`CHUNK_MAX`](protocol::limits::CHUNK_MAX) bytes; none: no more comes. The next
    /// piece only after [`ShellEvent::InputTaken`].
    pub fn shell_input(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.send(&ToDaemon::ShellInput(bytes.into()))
    }

    /// Tells the shell its terminal's size.
    pub fn shell_resize(&mut self, size: TerminalSize) -> Result<(), ClientError> {
        self.send(&ToDaemon::ShellResize(size))
    }

    /// Waits for the next thing that happens to the shell.
    pub fn next_shell_event(&mut self) -> Result<ShellEvent, ClientError> {
        match self.receive()? {
            FromDaemon::Phase(phase) => Ok(ShellEvent::Phase(phase)),
            FromDaemon::ShellOutput { stream, bytes } => Ok(ShellEvent::Output(stream, bytes.into_vec())),
            FromDaemon::ShellInputTaken => Ok(ShellEvent::InputTaken),
            FromDaemon::ShellEnded(end) => Ok(ShellEvent::Ended(end)),
            _ => Err(ClientError::Unexpected("progress of a shell expected")),
        }
    }

    /// Asks how the daemon is.
    pub fn status(&mut self) -> Result<StatusReport, ClientError> {
        self.send(&ToDaemon::Status)?;
        match self.receive()? {
            FromDaemon::Status(report) => Ok(report),
            _ => Err(ClientError::Unexpected("status expected")),
        }
    }

    fn send(&mut self, message: &ToDaemon) -> Result<(), ClientError> {
        match frame::write(&mut self.stream, message) {
            // It may have said why before it closed.
            Err(FrameError::Io(error)) if is_gone(&error) => match self.receive() {
                Err(refused @ ClientError::Refused(_)) => Err(refused),
                _ => Err(ClientError::Closed),
            },
            sent => Ok(sent?),
        }
    }

    fn receive(&mut self) -> Result<FromDaemon, ClientError> {
        match frame::read(&mut self.stream) {
            Ok(Some(FromDaemon::Refused(reason))) => Err(ClientError::Refused(reason)),
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(FrameError::Truncated) => Err(ClientError::Closed),
            Err(FrameError::Io(error)) if is_gone(&error) => Err(ClientError::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
