//! What whoever asked is told while a build goes on and at its end. Everything goes through one [`Outgoing`] frame, so that
//! nothing is said into the middle of another message.
//!
//! [`Outgoing`]: crate::daemon::outgoing::Outgoing

use std::time::Duration;

use protocol::ByteString;
use tracing::info;

use super::{Build, is_success};
use crate::control::message::{FromDaemon, ToDaemon};
use crate::daemon::outgoing::NotTaken;
use crate::daemon::pump;
use crate::request::{BuildOutcome, BuildPhase, BuildReport};
use crate::slot::{Slot, stuck_report};

/// Longest time for notes on a build that is over.
const NOTES_LIMIT: Duration = Duration::from_secs(2);

/// How long a front end may take to take its results, which has nothing left of the build but them and its connection. Long
/// enough for one that its user has stopped overnight.
const RESULTS_LIMIT: Duration = Duration::from_secs(24 * 3600);

impl Build<'_> {
    /// What the slot is doing, for the log, before it is ended.
    pub(super) async fn stuck_report(&self, slot: &Slot) -> Vec<String> {
        match slot.proc() {
            Some(proc) => stuck_report::take(proc, self.daemon.pool.guest().clone(), &self.log.remarks).await,
            None => Vec::new(),
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

    pub(super) async fn note(&mut self, line: String) -> Result<(), NotTaken> {
        self.say(&FromDaemon::Note(line)).await
    }

    pub(super) async fn phase(&mut self, phase: BuildPhase) -> Result<(), NotTaken> {
        self.daemon.registry.build_phase(self.id, &phase);
        self.say(&FromDaemon::Phase(phase)).await
    }

    async fn say(&mut self, message: &FromDaemon) -> Result<(), NotTaken> {
        self.log.outgoing.say(&self.connection.writer, message).await
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
        let (id, mut mode) = (self.id, self.daemon.mode.subscribe());
        let taken = async {
            if self.say(&FromDaemon::Finished(report)).await.is_ok() {
                let _ = self.connection.reader.next::<ToDaemon>().await;
            }
        };
        tokio::select! {
            () = taken => {}
            () = tokio::time::sleep(RESULTS_LIMIT) => info!(build = id, "results were not taken for a day"),
            // The front end may be in the middle of taking its outputs.
            () = async {
                pump::stopping(&mut mode).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
            } => {}
        }
    }
}
