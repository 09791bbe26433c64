//! One build from its request to its report.
//!
//! turn → slot → inputs and files → builder → everything in the slot killed → outputs prepared → report. At every step
//! the front end may go away, and then the build is over: what it holds is dropped, and the slot torn down.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::ByteString;
use protocol::message::{Exit, Streams, Usage};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::given_directory::{GivenDirectory, GivenError};
use super::places::Place;
use super::pump::{self, Ended, Inside, Log, Process};
use super::registry::{Fate, SlotState};
use super::session::Connection;
use super::{Daemon, outputs, remove_directory};
use crate::control::message::{FromDaemon, ToDaemon};
use crate::control::stream::FrameReader;
use crate::guest::darling::remarks::Remarks;
use crate::request::{
    BuildDirectory, BuildFile, BuildLimits, BuildOutcome, BuildPhase, BuildReport, BuildRequest,
    PhaseTimings, Publishing,
};
use crate::slot::directory::SlotDirectory;
use crate::slot::uids::UidLease;
use crate::slot::{Slot, SlotError, stalled, stuck_report};

/// Runs the build and tells the front end; returns when the front end has closed the connection.
pub(super) async fn run(daemon: &Daemon, connection: &mut Connection, place: Place, request: BuildRequest) {
    let id = daemon.registry.build_new(&connection.front_end, connection.peer);
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
        abandoned: None,
        log: Log::default(),
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
    given: Option<GivenDirectory>,
    /// Preparing outputs, when nobody waits for it any more.
    abandoned: Option<JoinHandle<BuildOutcome>>,
    log: Log,
}

/// What ends a build before its report: the front end has gone.
struct Gone;

/// What became of a build in one slot.
enum Attempt {
    /// It has a result.
    Over(BuildOutcome),
    /// Time stood still in the slot; a tick was not answered for so many milliseconds.
    Stalled(u64),
}

/// Longest time for notes on a build that is over.
const NOTES_LIMIT: Duration = Duration::from_secs(2);

impl Build<'_> {
    /// `None` when the front end has gone.
    async fn run(&mut self, mut place: Place) -> Option<BuildOutcome> {
        let asked = Instant::now();
        if let Err(error) = self.open_given().await {
            return Some(infrastructure(&error));
        }
        if place.ahead > 0 {
            self.phase(BuildPhase::Queued(place.ahead)).await.ok()?;
        }
        let mut mode = self.daemon.mode.subscribe();
        let permit = tokio::select! {
            permit = place.turn() => permit,
            message = self.connection.reader.next::<ToDaemon>() => return match message {
                Ok(Some(_)) => Some(BuildOutcome::Infrastructure("the front end spoke while its build was waiting".into())),
                Ok(None) | Err(_) => None,
            },
            () = pump::stopping(&mut mode) => return Some(BuildOutcome::Infrastructure("the daemon was stopped".into())),
        };
        self.timings.queued = asked.elapsed();

        let mut outcome = self.attempt().await;
        if let Ok(Attempt::Stalled(late)) = outcome
            && self.daemon.config.retry_stalled
            // One that was given is no longer as it was.
            && self.builds_in_own_directory()
        {
            let note = format!("{}; the build starts again in a fresh slot", stalled(late));
            warn!(build = self.id, note);
            outcome = match self.note(note).await {
                Ok(()) => self.attempt().await,
                Err(Gone) => Err(Gone),
            };
        }
        drop((permit, place));
        match outcome {
            Ok(Attempt::Over(outcome)) => Some(outcome),
            Ok(Attempt::Stalled(late)) => Some(BuildOutcome::Infrastructure(stalled(late))),
            Err(Gone) => None,
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, Gone> {
        let booting = Instant::now();
        let slot = match self.daemon.pool.take(self.request.network).await {
            Ok(slot) => slot,
            Err(error) => return Ok(Attempt::Over(infrastructure(&error))),
        };
        self.timings.booting = booting.elapsed();
        self.daemon.registry.slot_is(slot.id, SlotState::Busy);
        self.run_in(slot).await
    }

    async fn run_in(&mut self, slot: Slot) -> Result<Attempt, Gone> {
        let slot_id = slot.id;
        let preparing = Instant::now();
        let mut phased = self.phase(BuildPhase::Preparing(slot_id)).await;
        // Connections are kept until the slot is ended: when its own closes, the agent kills the builder.
        let (slot, mut prepared) = self.prepare(slot).await;
        self.timings.preparing = preparing.elapsed();
        let limits = self.request.limits.stricter(self.daemon.config.limits.of_a_build());
        let ended = match &mut prepared {
            Ok(inside) if phased.is_ok() => {
                phased = self.phase(BuildPhase::Building).await;
                let building = Instant::now();
                let ended = self.build(inside, &limits).await;
                self.timings.building = building.elapsed();
                ended
            }
            Ok(_) => Ended::Cancelled,
            Err(error) => Ended::Lost(error.to_string()),
        };

        if ended.is_stuck() {
            self.report_stuck(slot.pid()).await;
        } else if !matches!(ended, Ended::Exit(Exit::Code(0), _) | Ended::Cancelled) {
            self.notes(self.log.remarks.lines()).await;
        }
        let stopping = Instant::now();
        self.daemon.registry.slot_is(slot_id, SlotState::Stopping);
        self.daemon.registry.build_phase(self.id, &BuildPhase::Stopping);
        let (directory, uid, alive) = stop(slot).await.ok_or(Gone)?;
        drop(prepared);
        // Everything in it is dead; what is left are directories.
        self.daemon.registry.slot_gone(slot_id);
        self.take_back().await;
        self.timings.stopping = stopping.elapsed();
        let ended = match ended {
            // The agent and its slot go down together; the log says more than either end of a socket.
            Ended::Lost(reason) if !alive => Ended::Lost(format!("{reason}; {}", directory.log_tail())),
            ended => ended,
        };
        let over = |outcome| Ok(Attempt::Over(outcome));
        let outcome = match ended {
            Ended::Cancelled => Err(Gone),
            Ended::Stalled(late) => Ok(Attempt::Stalled(late)),
            Ended::Lost(reason) => over(BuildOutcome::Infrastructure(reason)),
            Ended::Exit(exit, usage) => {
                self.usage = usage;
                match (exit, phased) {
                    (_, Err(Gone)) => Err(Gone),
                    (Exit::Code(0), _) => {
                        self.publish(&directory, uid.uid(), &limits, slot_id).await.map(Attempt::Over)
                    }
                    (exit, _) => over(BuildOutcome::BuilderFailed(exit)),
                }
            }
        };
        // What a stall leaves behind is worth nothing: it may be built once more. A directory that was given stays its
        // owner's.
        let failed = matches!(&outcome, Ok(Attempt::Over(outcome)) if !is_success(outcome));
        if self.request.keep_failed && self.builds_in_own_directory() && failed {
            self.keep(&directory, uid.uid()).await;
        }
        let abandoned = self.abandoned.take();
        let results = if abandoned.is_some() { self.results.take() } else { None };
        // Thousands of mount points take a while to remove, and nobody has to wait for that.
        tokio::spawn(async move {
            if let Some(abandoned) = abandoned {
                let _ = abandoned.await;
            }
            let _ = tokio::task::spawn_blocking(move || {
                remove_directory(directory.path());
                if let Some(results) = results {
                    remove_directory(&results);
                }
                drop(uid);
            })
            .await;
        });
        outcome
    }

    /// Inputs, files, connections.
    async fn prepare(&mut self, slot: Slot) -> (Slot, Result<Inside, SlotError>) {
        let inputs = std::mem::take(&mut self.request.inputs);
        let files = std::mem::take(&mut self.request.files);
        let mut given = self.given.take();
        let task = tokio::task::spawn_blocking(move || {
            let lent = given.as_mut().map_or(Ok(()), |given| {
                let tree = given.lend(slot.uid.uid()).map_err(|error| SlotError::Step(error.to_string()))?;
                slot.show_build_directory(tree.as_fd())
            });
            let result = lent.and_then(|()| slot.show(&inputs)).and_then(|()| {
                write_files(&slot.directory.build(), &files, slot.uid.uid()).map_err(|error| {
                    SlotError::Step(format!("failed to write into the build directory: {error}"))
                })
            });
            (slot, inputs, files, given, result)
        });
        match task.await {
            Ok((mut slot, inputs, files, given, result)) => {
                self.request.inputs = inputs;
                self.request.files = files;
                self.given = given;
                let inside = result.and_then(|()| {
                    connect(&mut slot).map_err(|error| {
                        SlotError::Step(format!("failed to take up the slot's connections: {error}"))
                    })
                });
                (slot, inside)
            }
            // The closure does not panic; if it ever does, the panic is the daemon's own.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Opened at once, so that a directory that is not the peer's is refused before anything waits for it.
    async fn open_given(&mut self) -> Result<(), GivenError> {
        if let BuildDirectory::Given { path } = &self.request.build_directory {
            if !self.request.files.is_empty() {
                return Err(GivenError::Files);
            }
            self.given = Some(GivenDirectory::open_soon(path.as_path(), self.connection.peer).await?);
        }
        Ok(())
    }

    async fn take_back(&mut self) {
        if let Some(given) = self.given.take()
            && let Err(error) = given.take_back_soon().await
        {
            warn!(build = self.id, error, "failed to give a build directory back");
        }
    }

    fn builds_in_own_directory(&self) -> bool {
        self.request.build_directory == BuildDirectory::Own
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
        if let Err(reason) = pump::start(inside, process).await {
            return Ended::Lost(reason);
        }
        let mut mode = self.daemon.mode.subscribe();
        self.log.remarks = Remarks::default();
        let (ended, log_bytes) = pump::relay(
            inside,
            self.connection,
            limits,
            &mut mode,
            &self.daemon.registry,
            self.id,
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
    ) -> Result<BuildOutcome, Gone> {
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
        };
        let publishing_way = self.request.publishing;
        let mut task = tokio::task::spawn_blocking(move || match publishing_way {
            Publishing::Prepare => outputs::prepare(&work),
            Publishing::HandOver => outputs::hand_over(&work),
        });
        let outcome = tokio::select! {
            outcome = &mut task => outcome,
            // Reading a large output can't be interrupted; it ends by itself, and is waited for with the cleaning up.
            _ = self.connection.reader.next::<ToDaemon>() => {
                self.abandoned = Some(task);
                return Err(Gone);
            }
        };
        self.timings.publishing = publishing.elapsed();
        Ok(outcome.unwrap_or_else(|error| {
            BuildOutcome::Infrastructure(format!("the task that prepares outputs panicked: {error}"))
        }))
    }

    async fn keep(&mut self, directory: &SlotDirectory, builder: u32) {
        let peer = self.connection.peer;
        let name = self.request.derivation.name().trim_end_matches(".drv").to_owned();
        let build = directory.build();
        let state = std::sync::Arc::clone(&self.daemon.state);
        let kept = tokio::task::spawn_blocking(move || {
            state.keep(&build, &name, builder, (peer.uid, peer.gid)).map_err(|error| error.to_string())
        });
        match kept.await.map_err(|error| error.to_string()).and_then(|kept| kept) {
            Ok(kept) => self.kept = Some(kept),
            Err(error) => warn!(build = self.id, error, "failed to keep a build directory"),
        }
    }

    /// Tells the log what the slot is doing, before it is ended.
    async fn report_stuck(&mut self, slot_init: i32) {
        let guest = self.daemon.pool.guest().clone();
        let remarks = self.log.remarks.clone();
        let report =
            tokio::task::spawn_blocking(move || stuck_report::take(slot_init, &guest, &remarks)).await;
        self.notes(report.unwrap_or_default()).await;
    }

    /// Lines for the log of a build that has ended. A front end that does not read must not hold up the slot's end.
    async fn notes(&mut self, lines: Vec<String>) {
        let all = async {
            for line in lines {
                if self.note(line).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(NOTES_LIMIT, all).await;
    }

    async fn note(&mut self, line: String) -> Result<(), Gone> {
        self.say(&FromDaemon::Note(line)).await
    }

    async fn phase(&mut self, phase: BuildPhase) -> Result<(), Gone> {
        self.daemon.registry.build_phase(self.id, &phase);
        self.say(&FromDaemon::Phase(phase)).await
    }

    async fn say(&mut self, message: &FromDaemon) -> Result<(), Gone> {
        self.log.outgoing.say(&mut self.connection.writer, message).await.map_err(|_| Gone)
    }

    /// Sends the report, then waits until the front end has taken the results and closes.
    async fn report(&mut self, outcome: BuildOutcome) {
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

fn is_success(outcome: &BuildOutcome) -> bool {
    matches!(outcome, BuildOutcome::Built(_) | BuildOutcome::HandedOver(_))
}

fn infrastructure(error: &dyn std::error::Error) -> BuildOutcome {
    BuildOutcome::Infrastructure(error.to_string())
}

/// Kills everything in the slot; whether it was alive until then is told too.
pub(super) async fn stop(slot: Slot) -> Option<(SlotDirectory, UidLease, bool)> {
    tokio::task::spawn_blocking(move || {
        let alive = slot.is_alive();
        let (directory, uid) = slot.stop();
        (directory, uid, alive)
    })
    .await
    .ok()
}

/// Takes up the connections into a booted slot.
pub(super) fn connect(slot: &mut Slot) -> io::Result<Inside> {
    let into_tokio = |socket: std::os::unix::net::UnixStream| {
        socket.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(socket)
    };
    let agent = slot.take_agent().ok_or_else(|| io::Error::other("the slot was used before"))?;
    let (agent_reader, agent_writer) = into_tokio(agent)?.into_split();
    let (slot_reader, slot_writer) = into_tokio(slot.listen()?)?.into_split();
    Ok(Inside {
        agent_reader: FrameReader::new(agent_reader),
        agent_writer,
        slot: FrameReader::new(slot_reader),
        _slot_writer: slot_writer,
    })
}

/// Writes the files that a builder finds in its directory: mode 0644, owned by it. Nothing runs in the slot yet.
fn write_files(directory: &Path, files: &[BuildFile], uid: u32) -> io::Result<()> {
    for file in files {
        if file.name.is_empty() || file.name.contains(&b'/') || matches!(&*file.name, b"." | b"..") {
            return Err(io::Error::other(format!("'{}' is not a file name", file.name)));
        }
        let path = directory.join(file.name.as_path());
        let mut opened: File = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
        opened.write_all(&file.contents)?;
        chown(&path, Some(uid), Some(uid))?;
    }
    Ok(())
}
