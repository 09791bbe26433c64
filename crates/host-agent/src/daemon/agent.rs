//! What the agent may say, and when. It runs beside the builder and with its uid: what it says is judged like anything else that
//! comes out of a slot, and an agent that says what none says is at fault, not its builder.

use protocol::frame::FrameError;
use protocol::limits::CHUNK_MAX;
use protocol::message::{Exit, FromAgent};
use thiserror::Error;
use tokio::net::unix::OwnedReadHalf;

use crate::control::stream::{self, FrameReader};

/// Longest reason for which a builder did not start, bytes. A path has 4096 at most.
const REASON_MAX: usize = 4096;

/// Largest status of a process (wait(2)).
const CODE_MAX: i32 = 255;

/// Largest number of a signal, Linux's.
const SIGNAL_MAX: i32 = 64;

/// The agent can't be listened to.
#[derive(Debug, Error)]
pub(super) enum AgentError {
    /// Not a message.
    #[error("the agent sent nonsense: {0}")]
    Frame(#[from] FrameError),
    /// A message that makes no sense now.
    #[error("the agent made no sense: {0}")]
    Untimely(&'static str),
}

impl AgentError {
    /// Whether the agent is merely gone.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Frame(error) if stream::is_gone(error))
    }
}

/// Reads what the agent says of one process.
#[derive(Debug)]
pub(super) struct AgentReader {
    frames: FrameReader<OwnedReadHalf>,
    conversation: Conversation,
}

impl AgentReader {
    /// Of an agent that was told nothing yet.
    pub(super) fn new(reader: OwnedReadHalf) -> Self {
        Self { frames: FrameReader::new(reader), conversation: Conversation::default() }
    }

    /// The next message; `None` when the agent has closed. May be cancelled without losing a byte.
    pub(super) async fn next(&mut self) -> Result<Option<FromAgent>, AgentError> {
        match self.frames.next().await? {
            Some(message) => self.conversation.hear(message).map(Some).map_err(AgentError::Untimely),
            None => Ok(None),
        }
    }
}

/// How far it is.
#[derive(Debug, Default)]
struct Conversation {
    started: bool,
}

impl Conversation {
    /// Takes a message if an agent may say it now, with what is shown of it made fit for that.
    fn hear(&mut self, message: FromAgent) -> Result<FromAgent, &'static str> {
        match message {
            FromAgent::Started { .. } if self.started => Err("it started the builder twice"),
            FromAgent::Started { .. } => {
                self.started = true;
                Ok(message)
            }
            FromAgent::Exited { exit: Exit::SpawnFailed { step, errno }, usage } => {
                Ok(FromAgent::Exited { exit: Exit::SpawnFailed { step: plain(&step), errno }, usage })
            }
            FromAgent::Output { .. } | FromAgent::Exited { .. } if !self.started => {
                Err("it spoke of a builder that it had not started")
            }
            FromAgent::Exited { exit: Exit::Code(0..=CODE_MAX) | Exit::Signal(1..=SIGNAL_MAX), .. } => {
                Ok(message)
            }
            FromAgent::Exited { .. } => Err("it told of an end that no process has"),
            FromAgent::Output { ref bytes, .. } if (1..=CHUNK_MAX).contains(&bytes.len()) => Ok(message),
            FromAgent::Output { .. } => Err("it sent a piece of output of a size that none has"),
            // An answer, which overtakes what is printed. Who sends no input wants none.
            FromAgent::InputTaken => Ok(message),
            FromAgent::Pong(_) | FromAgent::Diagnostics { .. } => Err("it answered what it was not asked"),
        }
    }
}

/// One line of printable ASCII: this is shown on terminals.
fn plain(text: &str) -> String {
    let mut plain: String = text.chars().take(REASON_MAX).collect::<String>().escape_default().to_string();
    plain.truncate(REASON_MAX);
    // It has no others, and these do no harm.
    plain.replace("\\'", "'").replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use protocol::message::{Stream, Usage};

    use super::*;

    const STARTED: FromAgent = FromAgent::Started { pid: 7 };

    fn output(bytes: usize) -> FromAgent {
        FromAgent::Output { stream: Stream::Pty, at_micros: 0, bytes: vec![b'x'; bytes].into() }
    }

    fn exited(exit: Exit) -> FromAgent {
        FromAgent::Exited { exit, usage: Usage::default() }
    }

    /// Whether this can be said after those.
    fn is_heard(before: &[FromAgent], message: FromAgent) -> bool {
        let mut conversation = Conversation::default();
        before.iter().for_each(|message| drop(conversation.hear(message.clone()).unwrap()));
        conversation.hear(message).is_ok()
    }

    #[test]
    fn what_an_agent_says_of_its_builder_is_heard() {
        let failed = exited(Exit::SpawnFailed { step: "execve /x".into(), errno: 2 });
        assert!(is_heard(&[], failed.clone()) && is_heard(&[STARTED], failed));
        assert!(is_heard(&[STARTED, output(1)], output(CHUNK_MAX)));
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(1), Exit::Signal(64)] {
            assert!(is_heard(&[STARTED], exited(exit.clone())), "{exit:?}");
        }
        assert!(is_heard(&[], FromAgent::InputTaken) && is_heard(&[STARTED], FromAgent::InputTaken));
    }

    #[test]
    fn what_none_says_is_not() {
        assert!(!is_heard(&[STARTED], STARTED));
        for message in [output(1), exited(Exit::Code(0))] {
            assert!(!is_heard(&[], message.clone()), "{message:?}");
        }
        assert!(!is_heard(&[STARTED], output(0)) && !is_heard(&[STARTED], output(CHUNK_MAX + 1)));
        for exit in [
            Exit::Code(-1),
            Exit::Code(256),
            Exit::Signal(0),
            Exit::Signal(65),
            Exit::TimedOut,
            Exit::Silent,
            Exit::LogLimit,
            Exit::Killed,
        ] {
            assert!(!is_heard(&[STARTED], exited(exit.clone())), "{exit:?}");
        }
        let diagnostics =
            FromAgent::Diagnostics { system: String::new(), processes: Vec::new(), agent_rss_bytes: 0 };
        assert!(!is_heard(&[STARTED], FromAgent::Pong(1)) && !is_heard(&[STARTED], diagnostics));
    }

    #[test]
    fn a_reason_is_a_line_that_a_terminal_only_shows() {
        assert_eq!(plain("execve '/nix/store/x' (try \"y\")"), "execve '/nix/store/x' (try \"y\")");
        assert_eq!(plain("a\x1b]0;x\x07\r\nb\u{202e}"), "a\\u{1b}]0;x\\u{7}\\r\\nb\\u{202e}");
        assert_eq!(plain(&"x".repeat(100_000)).len(), REASON_MAX);
    }
}
