//! One build from its request to its report.
//!
//! turn → slot → inputs and files → builder → everything in the slot killed → outputs prepared → report. At every step
//! the front end may go away, and then the build is over: what it holds is dropped, and the slot torn down.

mod long_work;
mod surroundings;
mod telling;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use protocol::message::{Exit, Streams, Usage};
use tracing::{info, warn};

use super::given_directory::GivenDirectory;
use super::inside::{Inside, stop};
use super::outgoing::{NotTaken, Outgoing};
use super::places::Place;
use super::pump::{self, Ended, Log, Process};
use super::registry::{Fate, SlotState};
use super::session::{Connection, Reservation};
use super::{Daemon, outputs, remove_directory};
use crate::control::message::ToDaemon;
use crate::guest::darling::remarks::Remarks;
use crate::publish::Interrupt;
use crate::request::{BuildLimits, BuildOutcome, BuildPhase, BuildRequest, PhaseTimings, Publishing};
use crate::slot::directory::SlotDirectory;
use crate::slot::{Slot, Stopped, stalled};

/// Runs the build and tells the front end; returns when the front end has closed the connection.
pub(super) async fn run(
    daemon: &Daemon,
    connection: &mut Connection,
    reservation: Reservation,
    request: BuildRequest,
) {
    let Reservation { place, listed } = reservation;
    let id = listed.id();
    daemon.registry.build_is_of(id, &request.derivation);
    info!(build = id, derivation = %request.derivation, uid = connection.peer.uid, "build asked for");
    let mut build = Build {
        daemon,
        id,
        request,
        connection,
        timings: PhaseTimings::default(),
        usage: Usage::default(),
        log_bytes: 0,
        kept: None,
        results: None,
        given: None,
        log: Log { outgoing: Outgoing::to_front_end(place.patience()), remarks: Remarks::default() },
    };
    let outcome = build.run(place).await;
    let fate = match &outcome {
        Some(outcome) if is_success(outcome) => Fate::Succeeded,
        Some(_) => Fate::Failed,
        None => Fate::Cancelled,
    };
    info!(build = id, fate = ?fate, "build ended: {}", build.timings);
    // Before the report, so that whoever has read it finds `status` in agreement with it.
    daemon.registry.build_gone(id, fate, build.timings);
    if let Some(outcome) = outcome {
        build.report(outcome).await;
    }
    if let Some(results) = build.results.take() {
        let _ = tokio::task::spawn_blocking(move || remove_directory(&results)).await;
    }
}

struct Build<'a> {
    daemon: &'a Daemon,
    id: u64,
    request: BuildRequest,
    connection: &'a mut Connection,
    timings: PhaseTimings,
    usage: Usage,
    log_bytes: u64,
    kept: Option<PathBuf>,
    results: Option<PathBuf>,
    /// The build directory of whoever asks.
    given: Option<Arc<GivenDirectory>>,
    log: Log,
}

/// What became of a build in one slot.
enum Attempt {
    /// It has a result.
    Over(BuildOutcome),
    /// Time stood still in the slot; a tick was not answered for so many milliseconds.
    Stalled(u64),
}

impl Build<'_> {
    /// `None` when the front end has gone.
    async fn run(&mut self, place: Place) -> Option<BuildOutcome> {
        match self.run_in_place(place).await {
            Ok(outcome) => Some(outcome),
            Err(NotTaken::Gone) => None,
            Err(error) => {
                let uid = self.connection.peer.uid;
                warn!(build = self.id, uid, derivation = %self.request.derivation, "build was {error}");
                Some(infrastructure(&error))
            }
        }
    }

    async fn run_in_place(&mut self, mut place: Place) -> Result<BuildOutcome, NotTaken> {
        let asked = Instant::now();
        if let Err(error) = self.open_given().await {
            return Ok(infrastructure(&error));
        }
        let ahead = place.ask();
        if ahead > 0 {
            self.phase(BuildPhase::Queued(ahead)).await?;
        }
        let mut mode = self.daemon.mode.subscribe();
        tokio::select! {
            () = place.turn() => {}
            message = self.connection.reader.next::<ToDaemon>() => return match message {
                Ok(Some(_)) => Ok(BuildOutcome::Infrastructure("the front end spoke while its build was waiting".into())),
                Ok(None) | Err(_) => Err(NotTaken::Gone),
            },
            () = pump::stopping(&mut mode) => return Ok(BuildOutcome::Infrastructure("the daemon was stopped".into())),
        }
        self.timings.queued = asked.elapsed();
        // Shared with what is left to do when the build is over: others wait until nothing of it is left.
        let place = Arc::new(place);

        let mut outcome = self.attempt(&place, self.daemon.config.retry_stalled).await;
        if let Ok(Attempt::Stalled(late)) = outcome {
            let note = format!("{}; the build starts again in a fresh slot", stalled(late));
            warn!(build = self.id, note);
            outcome = match self.note(note).await {
                Ok(()) => self.attempt(&place, false).await,
                Err(not_taken) => Err(not_taken),
            };
        }
        Ok(match outcome? {
            Attempt::Over(outcome) => outcome,
            Attempt::Stalled(late) => BuildOutcome::Infrastructure(stalled(late)),
        })
    }

    /// Builds in one slot. If that stalls and there may be another attempt, nothing is made of what it has left.
    async fn attempt(&mut self, place: &Arc<Place>, another: bool) -> Result<Attempt, NotTaken> {
        let booting = Instant::now();
        let slot = match self.daemon.pool.take(self.request.network).await {
            Ok(slot) => slot,
            Err(error) => return Ok(Attempt::Over(infrastructure(&error))),
        };
        self.timings.booting = booting.elapsed();
        self.daemon.registry.slot_is(slot.id, SlotState::Busy);
        self.run_in(slot, place, another).await
    }

    async fn run_in(&mut self, slot: Slot, place: &Arc<Place>, another: bool) -> Result<Attempt, NotTaken> {
        let slot_id = slot.id;
        let preparing = Instant::now();
        let told = self.phase(BuildPhase::Preparing(slot_id)).await;
        // Connections are kept until the slot is ended: when its own closes, the agent kills the builder.
        let (slot, mut prepared, still_here) = self.prepare(slot).await;
        self.timings.preparing = preparing.elapsed();
        let limits = self.request.limits.stricter(self.daemon.config.limits.of_a_build());
        let told = match told.and(still_here) {
            Ok(()) if prepared.is_ok() => self.phase(BuildPhase::Building).await,
            told => told,
        };
        let mut started = None;
        let ended = match (&mut prepared, told) {
            (_, Err(not_taken)) => Ended::Left(not_taken),
            (Err(error), Ok(())) => Ended::Lost(error.to_string()),
            (Ok(inside), Ok(())) => {
                let building = Instant::now();
                started = Some(building);
                let ended = self.build(inside, &limits).await;
                self.timings.building = building.elapsed();
                ended
            }
        };

        let last_words = if ended.is_stuck() {
            self.stuck_report(&slot).await
        } else if !matches!(ended, Ended::Exit(Exit::Code(0), _) | Ended::Left(_)) {
            let mut lines = self.log.remarks.lines();
            if let Ended::Exit(exit, _) = &ended {
                lines.extend(limits.file_too_large(exit));
            }
            lines
        } else {
            Vec::new()
        };
        let stopping = Instant::now();
        self.daemon.registry.slot_is(slot_id, SlotState::Stopping);
        self.daemon.registry.build_phase(self.id, &BuildPhase::Stopping);
        let (Stopped { directory, uid, alone }, alive) = stop(slot).await.ok_or(NotTaken::Gone)?;
        drop(prepared);
        // Not before: whoever asked may not read, and the builder is to end when its limit says so.
        self.notes(last_words).await;
        // Everything in it is dead; what is left are directories.
        let again = another && matches!(ended, Ended::Stalled(_));
        // Where no builder has run, nothing is left by one.
        if started.is_some() && !again {
            self.take_back(&directory, uid.uid()).await;
        }
        self.daemon.registry.slot_gone(slot_id);
        self.timings.stopping = stopping.elapsed();
        let ended = match ended {
            // The agent and its slot go down together; the log says more than either end of a socket.
            Ended::Lost(reason) if !alive => Ended::Lost(format!("{reason}; {}", directory.log_tail())),
            ended @ Ended::Exit(..) => match alone {
                Ok(()) => ended,
                Err(error) => Ended::Lost(error.to_string()),
            },
            ended => ended,
        };
        let over = |outcome| Ok(Attempt::Over(outcome));
        let outcome = match ended {
            Ended::Left(not_taken) => Err(not_taken),
            Ended::Stalled(late) if again => Ok(Attempt::Stalled(late)),
            Ended::Stalled(late) => over(BuildOutcome::Infrastructure(stalled(late))),
            Ended::Lost(reason) => over(BuildOutcome::Infrastructure(reason)),
            Ended::Exit(exit, usage) => {
                self.usage = usage;
                match exit {
                    Exit::Code(0) => {
                        let deadline = started.zip(limits.wall).and_then(|(at, wall)| at.checked_add(wall));
                        let interrupt = Interrupt::at(deadline);
                        let published =
                            self.publish(&directory, uid.uid(), &limits, slot_id, interrupt).await;
                        published.map(Attempt::Over)
                    }
                    exit => over(BuildOutcome::BuilderFailed(exit)),
                }
            }
        };
        // What a stall leaves behind is worth nothing. A directory that was given stays its owner's.
        let failed = match &outcome {
            Ok(Attempt::Over(outcome)) => !is_success(outcome),
            Ok(Attempt::Stalled(_)) | Err(_) => false,
        };
        let outcome = match failed && self.request.keep_failed && self.builds_in_own_directory() {
            true => self.keep(&directory, uid.uid()).await.and(outcome),
            false => outcome,
        };
        let results = match &outcome {
            Ok(Attempt::Over(outcome)) if is_success(outcome) => None,
            _ => self.results.take(),
        };
        let place = Arc::clone(place);
        // Whoever asked does not have to wait for that; whoever comes next has.
        tokio::task::spawn_blocking(move || {
            remove_directory(directory.path());
            if let Some(results) = results {
                remove_directory(&results);
            }
            drop((uid, place));
        });
        outcome
    }

    async fn build(&mut self, inside: &mut Inside, limits: &BuildLimits) -> Ended {
        let process = Process {
            program: &self.request.program,
            argv: &self.request.argv,
            env: &self.request.env,
            streams: Streams::Pty,
            // One file can't be larger than all outputs may be together, so a runaway builder meets its limit before the
            // disk's end.
            file_size: limits.output_bytes,
        };
        let mut mode = self.daemon.mode.subscribe();
        self.log.remarks = Remarks::default();
        let (ended, log_bytes) = pump::relay(
            inside,
            process,
            self.connection,
            limits,
            &mut mode,
            |bytes| self.daemon.registry.build_log(self.id, bytes),
            &mut self.log,
        )
        .await;
        self.log_bytes = log_bytes;
        ended
    }

    async fn publish(
        &mut self,
        directory: &SlotDirectory,
        builder: u32,
        limits: &BuildLimits,
        slot: u32,
        interrupt: Interrupt,
    ) -> Result<BuildOutcome, NotTaken> {
        self.phase(BuildPhase::Publishing).await?;
        let publishing = Instant::now();
        let peer = self.connection.peer;
        let results = match self.daemon.state.results(slot, peer.uid, peer.gid) {
            Ok(results) => results,
            Err(error) => return Ok(infrastructure(&error)),
        };
        self.results = Some(results.clone());
        let work = outputs::Work {
            view: directory.view(),
            results,
            builder,
            owner: (peer.uid, peer.gid),
            network: self.request.network,
            inputs: self.request.inputs.clone(),
            outputs: self.request.outputs.clone(),
            max_bytes: limits.output_bytes,
            interrupt: interrupt.clone(),
        };
        let publishing_way = self.request.publishing;
        let task = tokio::task::spawn_blocking(move || match publishing_way {
            Publishing::Prepare => outputs::prepare(&work),
            Publishing::HandOver => outputs::hand_over(&work),
        });
        let (outcome, still_here) = self.finish(&interrupt, task).await;
        self.timings.publishing = publishing.elapsed();
        still_here?;
        Ok(outcome.unwrap_or_else(|error| {
            BuildOutcome::Infrastructure(format!("the task that prepares outputs panicked: {error}"))
        }))
    }
}

fn is_success(outcome: &BuildOutcome) -> bool {
    matches!(outcome, BuildOutcome::Built(_) | BuildOutcome::HandedOver(_))
}

fn infrastructure(error: &dyn std::error::Error) -> BuildOutcome {
    BuildOutcome::Infrastructure(error.to_string())
}
