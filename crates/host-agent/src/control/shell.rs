//! What `host-agent shell` and the daemon say to each other: a program in a fresh slot, with a terminal or with pipes.
//!
//! `Reserve` as for a build, then `Shell`; the daemon answers with `Phase`, `ShellOutput` …, and last `ShellEnded`. Nothing
//! is built and nothing is kept: whatever the slot holds goes with it, as soon as the program ends or the connection does.

use protocol::ByteString;
use protocol::message::{Exit, TerminalSize};
use serde::{Deserialize, Serialize};

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellRequest {
    /// Program (by path) and arguments; empty: the guest's own shell.
    pub command: Vec<ByteString>,
    /// Complete environment.
    pub env: Vec<(ByteString, ByteString)>,
    /// Its standard streams: one terminal of this size, or else a pipe each.
    pub terminal: Option<TerminalSize>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShellEnd {
    /// By itself, or it was never started.
    Exit(Exit),
    /// The slot or the guest failed; the text says what.
    Lost(String),
}
