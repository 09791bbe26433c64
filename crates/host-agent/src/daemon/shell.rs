//! One shell: a program in a fresh slot, with a terminal or with pipes, for as long as whoever asked stays.
//!
//! It takes a place as a build does, so that shells can't crowd out builds. Nothing is shown in its store and nothing is
//! kept of what it does.

use std::time::Instant;

use protocol::ByteString;
use protocol::hello::Features;
use protocol::limits::CHUNK_MAX;
use protocol::message::{FromAgent, Streams, ToAgent};
use tracing::info;

use super::inside::{Inside, connect, stop};
use super::places::Place;
use super::pump::{self, Outgoing, Process};
use super::registry::SlotState;
use super::session::Connection;
use super::{Daemon, remove_directory};
use crate::config::GuestKind;
use crate::control::message::{FromDaemon, ToDaemon};
use crate::control::shell::{ShellEnd, ShellRequest};
use crate::control::stream::send;
use crate::request::{BuildPhase, Network};
use crate::slot::plan::FromSlot;
use crate::slot::{Slot, stalled};

/// Whoever asked is gone, or spoke out of turn: there is nobody to tell anything.
struct Gone;

/// Runs the shell and tells the front end how it ended.
pub(super) async fn run(daemon: &Daemon, connection: &mut Connection, place: Place, request: ShellRequest) {
    let id = daemon.registry.build_new(&connection.front_end, connection.peer);
    info!(shell = id, uid = connection.peer.uid, "shell asked for");
    let end = converse(daemon, connection, place, &request, id).await;
    daemon.registry.shell_gone(id);
    info!(shell = id, "shell ended");
    if let Ok(end) = end {
        let _ = send(&mut connection.writer, &FromDaemon::ShellEnded(end)).await;
    }
}

async fn converse(
    daemon: &Daemon,
    connection: &mut Connection,
    mut place: Place,
    request: &ShellRequest,
    id: u64,
) -> Result<ShellEnd, Gone> {
    if place.ahead > 0 {
        phase(daemon, connection, id, BuildPhase::Queued(place.ahead)).await?;
    }
    let mut mode = daemon.mode.subscribe();
    let permit = tokio::select! {
        permit = place.turn() => permit,
        // It has nothing to say before it is told that its shell runs.
        _ = connection.reader.next::<ToDaemon>() => return Err(Gone),
        () = pump::stopping(&mut mode) => return Ok(ShellEnd::Lost(STOPPED.into())),
    };
    let mut slot = match daemon.pool.take(Network::Loopback).await {
        Ok(slot) => slot,
        Err(error) => return Ok(ShellEnd::Lost(error.to_string())),
    };
    let slot_id = slot.id;
    daemon.registry.slot_is(slot_id, SlotState::Busy);
    let told = phase(daemon, connection, id, BuildPhase::Preparing(slot_id)).await;
    let end = match told {
        Ok(()) => run_in(daemon, connection, &mut slot, request, id).await,
        Err(gone) => Err(gone),
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
    });
    drop((permit, place));
    end
}

const STOPPED: &str = "the daemon was stopped";

async fn run_in(
    daemon: &Daemon,
    connection: &mut Connection,
    slot: &mut Slot,
    request: &ShellRequest,
    id: u64,
) -> Result<ShellEnd, Gone> {
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
    phase(daemon, connection, id, BuildPhase::Building).await?;
    relay(daemon, connection, &mut inside, id).await
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
    connection: &mut Connection,
    inside: &mut Inside,
    id: u64,
) -> Result<ShellEnd, Gone> {
    let started = Instant::now();
    let wall = daemon.config.limits.of_a_build().wall;
    let mut mode = daemon.mode.subscribe();
    let mut outgoing = Outgoing::default();
    let mut incoming = Outgoing::default();
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
                    Ok(None) | Err(_) => return Err(Gone),
                };
                if let Err(error) = incoming.put(&message) {
                    return lost(&error.to_string());
                }
            }
            () = pump::stopping(&mut mode) => return lost(STOPPED),
            written = incoming.write_to(&mut inside.agent_writer), if !incoming.is_empty() => {
                if written.is_err() {
                    return lost(&pump::why_gone(&mut inside.slot).await);
                }
            }
            written = outgoing.write_to(&mut connection.writer), if !outgoing.is_empty() => {
                if written.is_err() {
                    return Err(Gone);
                }
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

async fn phase(daemon: &Daemon, connection: &mut Connection, id: u64, phase: BuildPhase) -> Result<(), Gone> {
    daemon.registry.build_phase(id, &phase);
    send(&mut connection.writer, &FromDaemon::Phase(phase)).await.map_err(|_| Gone)
}
