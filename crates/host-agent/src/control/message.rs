//! Messages on the daemon's socket.
//!
//! One build a connection: `Hello`, `Reserve` → `Reserved`, `RequestPart`… `RequestEnd` → `Phase` and `Output` … →
//! `Finished`. After `Finished` the front end takes the staged outputs and closes; the daemon then removes the rest.

use std::time::Duration;

use protocol::ByteString;
use protocol::message::{Stream, TerminalSize};
use serde::{Deserialize, Serialize};

use super::shell::{ShellEnd, ShellRequest};
use crate::request::{BuildPhase, BuildReport, PhaseTimings};
use crate::store_path::StoreName;

/// Version of this socket's messages. Both ends are the same program, so they must be equal; a difference means that
/// the daemon was not restarted after an upgrade.
pub const CONTROL_VERSION: u32 = 4;

/// Most bytes that one encoded [`BuildRequest`](crate::request::BuildRequest) may have.
pub const REQUEST_MAX: usize = 256 << 20;

/// Bytes of an encoded request in each `RequestPart`.
pub const REQUEST_PART: usize = 512 << 10;

/// To the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDaemon {
    /// First message.
    Hello {
        /// [`CONTROL_VERSION`].
        version: u32,
        /// Which front end speaks, for `status`.
        front_end: String,
    },
    /// A place for one build, please: answered by `Reserved`, `Full` or `Refused` at once.
    Reserve,
    /// Part of an encoded [`BuildRequest`](crate::request::BuildRequest).
    RequestPart(ByteString),
    /// The request is complete; start when its turn comes.
    RequestEnd,
    /// Answered by `Status`.
    Status,
    /// A shell in the place that was reserved, when its turn comes: see [`shell`](super::shell).
    Shell(ShellRequest),
    /// For the shell's stdin, at most [`CHUNK_MAX`](protocol::limits::CHUNK_MAX) bytes; empty: no more comes. The next one
    /// only after `ShellInputTaken`.
    ShellInput(ByteString),
    /// The shell's terminal has this size now.
    ShellResize(TerminalSize),
}

/// From the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDaemon {
    /// First message.
    Hello {
        /// [`CONTROL_VERSION`].
        version: u32,
        /// Program version.
        program: String,
    },
    /// There is a place; this many builds are ahead.
    Reserved {
        /// Builds before this one.
        ahead: u32,
    },
    /// The queue is full, or the daemon is draining: ask again later.
    Full(String),
    /// The peer may not ask this, or asked it wrongly; the text says why. The connection is closed.
    Refused(String),
    /// The build has come this far.
    Phase(BuildPhase),
    /// Output of the builder, in order.
    Output(ByteString),
    /// A note from the daemon for the build's log, one line without newline.
    Note(String),
    /// The end of the build.
    Finished(BuildReport),
    /// Answer to `Status`.
    Status(StatusReport),
    /// Output of the shell.
    ShellOutput {
        /// Which stream.
        stream: Stream,
        /// The bytes.
        bytes: ByteString,
    },
    /// The last `ShellInput` has arrived.
    ShellInputTaken,
    /// The shell has ended.
    ShellEnded(ShellEnd),
}

/// What `host-agent status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Program version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Since it was ready.
    pub uptime: Duration,
    /// `darling` or `linux`.
    pub guest: String,
    /// Systems it builds for.
    pub systems: Vec<String>,
    /// Builds that may run at once.
    pub max_jobs: u32,
    /// Builds that may wait.
    pub queue_limit: u32,
    /// Finishing what runs, taking nothing new.
    pub draining: bool,
    /// Builds since start that succeeded.
    pub succeeded: u64,
    /// Builds since start that failed.
    pub failed: u64,
    /// Builds since start whose front end went away.
    pub cancelled: u64,
    /// Every slot there is.
    pub slots: Vec<SlotStatus>,
    /// Every build there is, running ones first.
    pub builds: Vec<BuildStatus>,
    /// The last builds that have ended, latest first.
    pub recent: Vec<EndedBuild>,
    /// Logging in over ssh, if that is configured.
    pub ssh: Option<SshStatus>,
}

/// Logging in over ssh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshStatus {
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// The slot that sessions are in; `None` until somebody connects.
    pub slot: Option<u32>,
    /// Connections that have not logged in yet.
    pub unauthenticated: u32,
    /// Those that have, oldest first.
    pub sessions: Vec<SshSession>,
}

/// A connection that has logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshSession {
    /// As whom.
    pub user: String,
    /// Since then.
    pub age: Duration,
}

/// A build that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedBuild {
    /// Base name of the derivation.
    pub derivation: StoreName,
    /// `succeeded`, `failed` or `cancelled`.
    pub fate: String,
    /// Since it ended.
    pub ago: Duration,
    /// How long each phase took.
    pub timings: PhaseTimings,
    /// Bytes of output that it printed.
    pub log_bytes: u64,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its number.
    pub id: u32,
    /// Uid of everything inside.
    pub uid: u32,
    /// `booting`, `warm`, `busy` or `stopping`.
    pub state: String,
    /// Since it was started.
    pub age: Duration,
    /// From start to the agent's handshake.
    pub boot: Option<Duration>,
    /// Resident memory of everything inside, bytes.
    pub memory_bytes: u64,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStatus {
    /// Base name of the derivation; `None` while only a place was reserved.
    pub derivation: Option<StoreName>,
    /// Which front end asked.
    pub front_end: String,
    /// As whom.
    pub uid: u32,
    /// Its slot, once it has one.
    pub slot: Option<u32>,
    /// Where it is.
    pub phase: String,
    /// Since it was asked for.
    pub age: Duration,
    /// Bytes of output so far.
    pub log_bytes: u64,
}
