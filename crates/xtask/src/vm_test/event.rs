//! What the runner says while it works: one JSON object a line behind a mark.
//!
//! The lines may pass through a serial port, a journal or the log of a build, which put text before them and mix them with
//! other lines; the mark finds them again.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::report::Verdict;

/// Stands before every event.
pub const MARK: &str = "@vm-test ";

/// Time from one sign of life to the next.
pub const BEAT: Duration = Duration::from_secs(1);

/// What one thing of the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// `host-agent install`.
    Install,
    /// A stage, by number.
    Stage(u8),
    /// `host-agent uninstall`, and the comparison of the machine's files.
    Uninstall,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The runner runs.
    Started {
        /// The machine, for people.
        machine: String,
        /// It has done a part before, and the machine was reset since.
        resumed: bool,
    },
    /// This begins.
    Begun {
        /// What.
        step: Step,
        /// Seconds within which it must be over.
        limit: u64,
    },
    /// Something was done.
    Progress {
        /// For people.
        line: String,
    },
    /// This is over.
    Ended {
        /// What.
        step: Step,
        /// How long it took.
        seconds: f64,
        /// What came of it.
        verdict: Verdict,
    },
    /// The runner lives.
    Beat,
    /// The machine is to be reset, and the runner started again.
    Reset,
    /// The end of the journal, after a failure.
    Journal {
        /// Its lines.
        text: String,
    },
    /// Nothing more comes.
    Done,
    /// The runner itself failed.
    Broken {
        /// Why.
        reason: String,
    },
}

impl Event {
    /// As a line, without newline.
    pub fn line(&self) -> Result<String> {
        Ok(format!("{MARK}{}", serde_json::to_string(self)?))
    }

    /// The event in a line, if there is one.
    pub fn find(line: &str) -> Option<Self> {
        let (_, json) = line.split_once(MARK)?;
        // Whatever follows the object is not ours.
        serde_json::Deserializer::from_str(json).into_iter().next()?.ok()
    }
}

/// Writes events to the standard output, whole lines only, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Emitter {
    lock: Arc<Mutex<()>>,
}

impl Emitter {
    /// Writes an event. Nobody who listens is no reason to stop.
    pub fn emit(&self, event: &Event) {
        let Ok(line) = event.line() else { return };
        let _guard = self.lock.lock();
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(format!("{line}\n").as_bytes());
        let _ = stdout.flush();
    }

    /// Writes a sign of life every [`BEAT`], as long as this process lives.
    pub fn beat(&self) {
        let emitter = self.clone();
        std::thread::spawn(move || {
            loop {
                emitter.emit(&Event::Beat);
                std::thread::sleep(BEAT);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_behind_what_a_journal_or_a_builder_puts_before_it() {
        let event = Event::Ended {
            step: Step::Stage(3),
            seconds: 1.5,
            verdict: Verdict::Failed("expected \"x\"\nnot y".into()),
        };
        let line = event.line().unwrap();
        assert!(!line.contains('\n'));
        for before in ["", "vm-test-run> machine # [   12.3] vm-test[512]: ", "\u{1b}[0m"] {
            assert_eq!(Event::find(&format!("{before}{line}\r")).as_ref(), Some(&event));
        }
        assert_eq!(Event::find("a line of the console"), None);
        assert_eq!(Event::find(&line[..line.len() - 4]), None, "half a line");
    }
}
