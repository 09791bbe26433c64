//! The messages on an agent's control connection, after the handshake.
//!
//! One process a connection: `Prepare`, any number of `Arguments` and `Environment`, `Limits`, then `Start`. The agent
//! answers `Started` or `Exited` with [`Exit::SpawnFailed`], then sends `Output` and, last, `Exited`.

use serde::{Deserialize, Serialize};

use crate::ByteString;

/// How the process's standard streams are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Streams {
    /// stdin is `/dev/null`; stdout and stderr are one pseudo-terminal in raw mode, as Nix gives a builder.
    Pty,
    /// stdin is `/dev/null`; stdout and stderr are a pipe each.
    Pipes,
    /// All three are one pseudo-terminal of this size in cooked mode, the process's controlling terminal; what comes as
    /// `Input` is typed there. For a shell, never for a build. Needs [`Features::INPUT`](crate::hello::Features::INPUT).
    Terminal(TerminalSize),
    /// A pipe each; what comes as `Input` can be read from stdin. For a shell, never for a build. Needs
    /// [`Features::INPUT`](crate::hello::Features::INPUT).
    PipesWithInput,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Both standard output and standard error, through the pseudo-terminal.
    Pty,
    /// Standard output's pipe.
    Stdout,
    /// Standard error's pipe.
    Stderr,
}

/// Resource limits that the agent sets in the process before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Soft limit for core files, bytes; Nix gives 0.
    pub core: u64,
    /// Largest file the process may write, bytes; `None` leaves it alone.
    pub file_size: Option<u64>,
}

/// To the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// What to run. Nothing happens before `Start`.
    Prepare {
        /// Executed as it is, without a search in `PATH`.
        program: ByteString,
        /// Working directory.
        directory: ByteString,
        /// How the streams are made.
        streams: Streams,
        /// File mode creation mask.
        umask: u32,
    },
    /// More arguments, `argv[0]` first; in pieces, because a command line may exceed a frame.
    Arguments(Vec<ByteString>),
    /// More environment, exactly as given; in pieces as well.
    Environment(Vec<(ByteString, ByteString)>),
    /// Resource limits of the process.
    Limits(ResourceLimits),
    /// Start what was prepared.
    Start,
    /// Send this signal (guest's number) to the process's group.
    Signal(i32),
    /// Answered by `Pong` with the same number.
    Ping(u64),
    /// Answered by `Diagnostics`.
    Diagnose,
    /// For the process's stdin, at most [`CHUNK_MAX`](crate::limits::CHUNK_MAX) bytes; empty: no more comes. Answered by
    /// `InputTaken`, and only then may the next one be sent, so that nothing piles up before a process that does not
    /// read.
    Input(ByteString),
    /// The terminal has this size from now on.
    Resize(TerminalSize),
}

/// How a process ended, or why the build did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this status.
    Code(i32),
    /// This signal ended it (the guest's number).
    Signal(i32),
    /// It never started: the step that failed, and the guest's error number.
    SpawnFailed {
        /// What was being done, e.g. `execve /bin/sh`.
        step: String,
        /// errno.
        errno: i32,
    },
    /// Ended by the wall-clock limit.
    TimedOut,
    /// Ended by the silence limit.
    Silent,
    /// Ended by the log size limit.
    LogLimit,
    /// Ended on request.
    Killed,
}

/// What a process and the descendants it waited for have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// From start to exit, microseconds.
    pub wall_micros: u64,
    /// CPU time in user mode, microseconds.
    pub user_micros: u64,
    /// CPU time in the kernel, microseconds.
    pub system_micros: u64,
    /// Largest resident set, bytes.
    pub max_rss_bytes: u64,
}

/// One process that the agent sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Process id, in the guest's view.
    pub pid: i32,
    /// Parent's process id.
    pub parent: i32,
    /// Name or command line, as far as the guest tells.
    pub command: ByteString,
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The process runs, with this process id in the guest.
    Started {
        /// Process id.
        pid: i32,
    },
    /// Something it printed; at most [`CHUNK_MAX`](crate::limits::CHUNK_MAX) bytes.
    Output {
        /// Which stream.
        stream: Stream,
        /// When it was read, microseconds since `Start`.
        at_micros: u64,
        /// The bytes, unchanged.
        bytes: ByteString,
    },
    /// The process has ended and all its output was sent.
    Exited {
        /// How.
        exit: Exit,
        /// At what cost.
        usage: Usage,
    },
    /// Answer to `Ping`.
    Pong(u64),
    /// Answer to `Diagnose`.
    Diagnostics {
        /// `uname`-like description of the guest as the agent sees it.
        system: String,
        /// Processes below the agent.
        processes: Vec<ProcessEntry>,
        /// Resident memory of the agent itself, bytes; 0 where the guest does not tell.
        agent_rss_bytes: u64,
    },
    /// The last `Input` was written, or thrown away because nobody can read it any more.
    InputTaken,
}
