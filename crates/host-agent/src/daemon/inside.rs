//! A slot in use: the daemon's connections into it, and its end.

use std::io;

use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::agent::AgentReader;
use crate::control::stream::FrameReader;
use crate::slot::{Slot, Stopped};

/// The two connections into a slot.
pub(super) struct Inside {
    pub(super) agent_reader: AgentReader,
    pub(super) agent_writer: OwnedWriteHalf,
    pub(super) slot: FrameReader<OwnedReadHalf>,
    /// The write half of `slot`, so that it is not shut down.
    _slot_writer: OwnedWriteHalf,
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
        agent_reader: AgentReader::new(agent_reader),
        agent_writer,
        slot: FrameReader::new(slot_reader),
        _slot_writer: slot_writer,
    })
}

/// Kills everything in the slot; whether it was alive until then is told too.
pub(super) async fn stop(slot: Slot) -> Option<(Stopped, bool)> {
    tokio::task::spawn_blocking(move || {
        let alive = slot.is_alive();
        (slot.stop(), alive)
    })
    .await
    .ok()
}
