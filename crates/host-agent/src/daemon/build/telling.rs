//! What whoever asked is told while a build goes on and at its end. Everything goes through one [`Outgoing`] frame, so that
//! nothing is said into the middle of another message.
//!
//! [`Outgoing`]: crate::daemon::pump::Outgoing

use std::time::Duration;

use protocol::ByteString;
use protocol::message::Exit;
use tracing::info;

use super::{Build, Gone, is_success};
use crate::control::message::{FromDaemon, ToDaemon};
use crate::daemon::pump::{self, Ended};
use crate::request::{BuildLimits, BuildOutcome, BuildPhase, BuildReport};
use crate::slot::{Slot, stuck_report};

/// Longest time for notes on a build that is over.
const NOTES_LIMIT: Duration = Duration::from_secs(2);

impl Build<'_> {
    /// What the log is to say of how a build ended: of a stuck one, what its slot is doing now.
    pub(super) async fn last_words(&self, slot: &Slot, ended: &Ended, limits: &BuildLimits) -> Vec<String> {
        match (ended, slot.proc()) {
            (ended, Some(proc)) if ended.is_stuck() => {
                stuck_report::take(proc, self.daemon.pool.guest().clone(), &self.log.remarks).await
            }
            (Ended::Exit(Exit::Code(0), _) | Ended::Cancelled, _) => Vec::new(),
            (ended, _) => {
                let mut lines = self.log.remarks.lines();
                if let Ended::Exit(exit, _) = ended {
                    lines.extend(limits.file_too_large(exit));
                }
                lines
            }
        }
    }

    /// Lines for the log of a build that has ended. A front end that does not read must not hold it up for long.
    pub(super) async fn notes(&mut self, lines: Vec<String>) {
        let all = async {
            for line in lines {
                if self.note(line).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(NOTES_LIMIT, all).await;
    }

    pub(super) async fn note(&mut self, line: String) -> Result<(), Gone> {
        self.say(&FromDaemon::Note(line)).await
    }

    pub(super) async fn phase(&mut self, phase: BuildPhase) -> Result<(), Gone> {
        self.daemon.registry.build_phase(self.id, &phase);
        self.say(&FromDaemon::Phase(phase)).await
    }

    async fn say(&mut self, message: &FromDaemon) -> Result<(), Gone> {
        self.log.outgoing.say(&mut self.connection.writer, message).await.map_err(|_| Gone)
    }

    /// Sends the report, then waits until the front end has taken the results and closes.
    pub(super) async fn report(&mut self, outcome: BuildOutcome) {
        if !is_success(&outcome) {
            info!(build = self.id, ?outcome, "build failed");
        }
        let report = BuildReport {
            outcome,
            usage: self.usage,
            log_bytes: self.log_bytes,
            timings: self.timings,
            kept: self.kept.as_deref().map(ByteString::from),
        };
        if self.say(&FromDaemon::Finished(report)).await.is_ok() {
            let mut mode = self.daemon.mode.subscribe();
            tokio::select! {
                _ = self.connection.reader.next::<ToDaemon>() => {}
                // The front end may be in the middle of taking its outputs.
                () = async {
                    pump::stopping(&mut mode).await;
                    tokio::time::sleep(Duration::from_secs(5)).await;
                } => {}
            }
        }
    }
}
