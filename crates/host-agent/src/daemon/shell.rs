//! One shell: a program in a fresh slot, with a terminal or with pipes, for as long as whoever asked stays.
//!
//! It takes a place as a build does, so that shells can't crowd out builds. Nothing is shown in its store and nothing is
//! kept of what it does.

use std::time::{Duration, Instant};

use protocol::ByteString;
use protocol::hello::Features;
use protocol::limits::CHUNK_MAX;
use protocol::message::{FromAgent, Streams, ToAgent};
use tracing::{info, warn};

use super::inside::{Inside, connect, stop};
use super::outgoing::{NotTaken, Outgoing};
use super::places::Place;
use super::pump::{self, Process};
use super::registry::SlotState;
use super::session::{Connection, Reservation};
use super::{Daemon, remove_directory};
use crate::config::GuestKind;
use crate::control::message::{FromDaemon, ToDaemon};
use crate::control::shell::{ShellEnd, ShellRequest};
use crate::request::{BuildPhase, Network};
use crate::slot::plan::FromSlot;
use crate::slot::{Slot, stalled};

/// How long whoever asked may take to hear that the shell has ended.
const END_LIMIT: Duration = Duration::from_secs(600);

/// Whoever asked. [`NotTaken::Gone`] also if they spoke out of turn: there is nobody to tell anything.
struct FrontEnd<'a> {
    connection: &'a mut Connection,
    outgoing: Outgoing,
}

/// Runs the shell and tells the front end how it ended.
pub(super) async fn run(
    daemon: &Daemon,
    connection: &mut Connection,
    reservation: Reservation,
    request: ShellRequest,
) {
    let Reservation { place, listed } = reservation;
    let (id, uid) = (listed.id(), connection.peer.uid);
    info!(shell = id, uid, "shell asked for");
    let mut front_end = FrontEnd { connection, outgoing: Outgoing::to_front_end(place.patience()) };
    let end = converse(daemon, &mut front_end, place, &request, id).await;
    drop(listed);
    info!(shell = id, "shell ended");
    let end = match end {
        Ok(end) => end,
        Err(NotTaken::Gone) => return,
        Err(error) => {
            warn!(shell = id, uid, "shell was {error}");
            ShellEnd::Lost(error.to_string())
        }
    };
    let _ = tokio::time::timeout(END_LIMIT, front_end.say(&FromDaemon::ShellEnded(end))).await;
}

impl FrontEnd<'_> {
    async fn say(&mut self, message: &FromDaemon) -> Result<(), NotTaken> {
        self.outgoing.say(&self.connection.writer, message).await
    }

    async fn phase(&mut self, daemon: &Daemon, id: u64, phase: BuildPhase) -> Result<(), NotTaken> {
        daemon.registry.build_phase(id, &phase);
        self.say(&FromDaemon::Phase(phase)).await
    }
}

async fn converse(
    daemon: &Daemon,
    front_end: &mut FrontEnd<'_>,
    mut place: Place,
    request: &ShellRequest,
    id: u64,
) -> Result<ShellEnd, NotTaken> {
    let ahead = place.ask();
    if ahead > 0 {
        front_end.phase(daemon, id, BuildPhase::Queued(ahead)).await?;
    }
    let mut mode = daemon.mode.subscribe();
    tokio::select! {
        () = place.turn() => {}
        // It has nothing to say before it is told that its shell runs.
        _ = front_end.connection.reader.next::<ToDaemon>() => return Err(NotTaken::Gone),
        () = pump::stopping(&mut mode) => return Ok(ShellEnd::Lost(STOPPED.into())),
    }
    let mut slot = match daemon.pool.take(Network::Loopback).await {
        Ok(slot) => slot,
        Err(error) => return Ok(ShellEnd::Lost(error.to_string())),
    };
    let slot_id = slot.id;
    daemon.registry.slot_is(slot_id, SlotState::Busy);
    let end = match front_end.phase(daemon, id, BuildPhase::Preparing(slot_id)).await {
        Ok(()) => run_in(daemon, front_end, &mut slot, request, id).await,
        Err(not_taken) => Err(not_taken),
    };
    daemon.registry.slot_is(slot_id, SlotState::Stopping);
    let stopped = stop(slot).await;
    let registry = std::sync::Arc::clone(&daemon.registry);
    tokio::task::spawn_blocking(move || {
        if let Some((stopped, _)) = stopped {
            remove_directory(stopped.directory.path());
            drop(stopped);
        }
        registry.slot_gone(slot_id);
        drop(place);
    });
    end
}

const STOPPED: &str = "the daemon was stopped";

async fn run_in(
    daemon: &Daemon,
    front_end: &mut FrontEnd<'_>,
    slot: &mut Slot,
    request: &ShellRequest,
    id: u64,
) -> Result<ShellEnd, NotTaken> {
    if !slot.greeting.features.contains(Features::INPUT) {
        return Ok(ShellEnd::Lost(format!(
            "the agent ({}) is too old for shells: install host-agent and darwin-agent from the same release",
            slot.greeting.identity
        )));
    }
    let mut inside = match connect(slot) {
        Ok(inside) => inside,
        Err(error) => {
            return Ok(ShellEnd::Lost(format!("failed to take up the slot's connections: {error}")));
        }
    };
    let shell = [ByteString::from(own_shell(daemon.config.guest))];
    let argv = if request.command.is_empty() { &shell } else { &request.command[..] };
    let process = Process {
        program: &argv[0],
        argv,
        env: &request.env,
        streams: request.terminal.map_or(Streams::PipesWithInput, Streams::Terminal),
        file_size: None,
    };
    if let Err(reason) = pump::start(&mut inside.agent_writer, process).await {
        return Ok(ShellEnd::Lost(reason));
    }
    front_end.phase(daemon, id, BuildPhase::Building).await?;
    relay(daemon, front_end, &mut inside, id).await
}

fn own_shell(guest: GuestKind) -> &'static str {
    match guest {
        GuestKind::Darling => "/bin/bash",
        GuestKind::Linux => "/bin/sh",
    }
}

/// Relays both ways until the program has ended. One message in each direction is held at most; the agent takes input piece
/// by piece, and until it has taken one, no other is accepted.
async fn relay(
    daemon: &Daemon,
    front_end: &mut FrontEnd<'_>,
    inside: &mut Inside,
    id: u64,
) -> Result<ShellEnd, NotTaken> {
    let started = Instant::now();
    let wall = daemon.config.limits.of_a_build().wall;
    let mut mode = daemon.mode.subscribe();
    let FrontEnd { connection, outgoing } = front_end;
    let mut incoming = Outgoing::new();
    let mut untaken = false;
    let mut printed = 0;
    let lost = |reason: &str| Ok(ShellEnd::Lost(reason.to_owned()));
    loop {
        tokio::select! {
            biased;
            message = connection.reader.next::<ToDaemon>(), if incoming.is_empty() => {
                let message = match message {
                    Ok(Some(ToDaemon::ShellInput(bytes))) if !untaken && bytes.len() <= CHUNK_MAX => {
                        untaken = true;
                        ToAgent::Input(bytes)
                    }
                    Ok(Some(ToDaemon::ShellResize(size))) => ToAgent::Resize(size),
                    Ok(Some(_)) => return lost("the front end said something that makes no sense to a shell"),
                    Ok(None) | Err(_) => return Err(NotTaken::Gone),
                };
                if let Err(error) = incoming.put(&message) {
                    return lost(&error.to_string());
                }
            }
            () = pump::stopping(&mut mode) => return lost(STOPPED),
            written = incoming.write_to(&inside.agent_writer), if !incoming.is_empty() => {
                if written.is_err() {
                    return lost(&pump::why_gone(&mut inside.slot).await);
                }
            }
            written = outgoing.write_to(&connection.writer), if !outgoing.is_empty() => {
                written?;
            }
            message = inside.agent_reader.next(), if outgoing.is_empty() => {
                let message = match message {
                    Ok(Some(FromAgent::Output { stream, bytes, .. })) => {
                        printed += bytes.len() as u64;
                        daemon.registry.build_log(id, printed);
                        FromDaemon::ShellOutput { stream, bytes }
                    }
                    Ok(Some(FromAgent::InputTaken)) => {
                        untaken = false;
                        FromDaemon::ShellInputTaken
                    }
                    Ok(Some(FromAgent::Exited { exit, .. })) => return Ok(ShellEnd::Exit(exit)),
                    Ok(Some(_)) => continue,
                    Ok(None) => return lost(&pump::why_gone(&mut inside.slot).await),
                    Err(error) if error.is_gone() => return lost(&pump::why_gone(&mut inside.slot).await),
                    Err(error) => return lost(&error.to_string()),
                };
                if let Err(error) = outgoing.put(&message) {
                    return lost(&error.to_string());
                }
            }
            event = inside.slot.next::<FromSlot>() => match event {
                Ok(Some(FromSlot::Stalled(late))) => return lost(&stalled(late)),
                Ok(Some(FromSlot::Failed(reason))) => return lost(&reason),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return lost("the slot's first process was killed"),
            },
            () = pump::at(started, wall) => return lost("the wall-clock limit of the configuration has ended it"),
        }
    }
}
