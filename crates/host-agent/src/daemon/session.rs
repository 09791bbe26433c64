//! One connection from its greeting to its end.
//!
//! Peers may be hostile, also those who may ask: whatever the daemon waits for has a deadline, and what they make it keep has
//! a limit. Where a peer may well take its time, because its user has stopped it or looks at a pager, the deadline comes
//! only when somebody needs what it holds: see [`places`](super::places).

use std::sync::Arc;
use std::time::Duration;

use protocol::frame::{self, FrameError};
use protocol::limits::FRAME_MAX;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tracing::debug;

use super::peer::Peer;
use super::places::{Full, Place, RESERVED_FOR};
use super::pump::stopping;
use super::registry::Listed;
use super::shares::Share;
use super::{Daemon, Mode, build, shell};
use crate::control::message::{
    CONTROL_VERSION, FromDaemon, FrontEndName, REQUEST_MAX, REQUEST_PART, StatusReport, ToDaemon,
};
use crate::control::stream::{FrameReader, is_gone, send};
use crate::request::BuildRequest;

/// How long a peer may take to say who it is. Front ends do so at once.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// How long any message may take from its first byte to its last. Front ends send each with one call, and none is larger
/// than 1 MiB.
const MESSAGE_LIMIT: Duration = Duration::from_secs(10);

/// How long a peer that has no place may say nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// How long a peer may take to take an answer, before it has a place.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Longest message of a peer without a place, bytes: greeting, `Reserve` and `Status` are far shorter.
const SHORT_MESSAGE: usize = 1024;

/// A connection that has been greeted.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) reader: FrameReader<OwnedReadHalf>,
    pub(super) writer: OwnedWriteHalf,
    pub(super) peer: Peer,
}

/// A place, and that `status` shows it.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) place: Place,
    pub(super) listed: Listed,
}

/// Why a connection ends early.
enum End {
    /// The peer is gone.
    Gone,
    /// It said something that it may not say, or did not say what it had to; it is told.
    Refused(String),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        if is_gone(&error) { End::Gone } else { End::Refused(error.to_string()) }
    }
}

/// Serves one connection of a peer that was let in.
pub(super) async fn serve(daemon: &Daemon, stream: UnixStream, peer: Peer) {
    let (reader, writer) = stream.into_split();
    let reader = FrameReader::bounded(reader, SHORT_MESSAGE, MESSAGE_LIMIT);
    let mut connection = Connection { reader, writer, peer };
    match converse(daemon, &mut connection).await {
        Ok(()) | Err(End::Gone) => {}
        Err(End::Refused(reason)) => {
            daemon.door.log_refusal(peer, &reason);
            let _ = answer(&mut connection, &FromDaemon::Refused(reason)).await;
        }
    }
}

async fn converse(daemon: &Daemon, connection: &mut Connection) -> Result<(), End> {
    let front_end = greet(connection).await?;
    let mut held: Option<Reservation> = None;
    let mut request = Request::new(daemon, connection.peer);
    let mut mode = daemon.mode.subscribe();
    loop {
        let message = match &held {
            Some(reservation) => tokio::select! {
                message = connection.reader.next::<ToDaemon>() => message?,
                () = reservation.place.lapsed() => return Err(End::Refused(lapsed())),
                () = stopping(&mut mode) => return Err(End::Refused("the daemon was stopped".into())),
            },
            None => timeout(SILENCE_LIMIT, connection.reader.next::<ToDaemon>())
                .await
                .map_err(|_| End::Refused(format!("nothing was said for {SILENCE_LIMIT:?}")))??,
        };
        match (message, held.is_some()) {
            (None, _) => return Ok(()),
            (Some(ToDaemon::Status), _) => {
                let report = status(daemon, connection.peer).await;
                answer(connection, &FromDaemon::Status(report)).await?;
            }
            (Some(ToDaemon::Reserve), false) => {
                let reserved = reserve(daemon, connection.peer, &front_end);
                let said = match &reserved {
                    Ok(reservation) => FromDaemon::Reserved { ahead: reservation.place.ahead },
                    Err(full) => FromDaemon::Full(full.clone()),
                };
                answer(connection, &said).await?;
                held = reserved.ok();
                connection.reader.set_longest(if held.is_some() { FRAME_MAX } else { SHORT_MESSAGE });
            }
            (Some(ToDaemon::Reserve), true) => {
                return Err(End::Refused("one place is enough for one connection".into()));
            }
            (Some(ToDaemon::RequestPart(part)), true) => request.append(&part)?,
            (Some(ToDaemon::RequestEnd), true) => {
                let Some(reservation) = held.take() else { return Ok(()) };
                let (request, _share) = request.decode().await?;
                build::run(daemon, connection, reservation, request).await;
                return Ok(());
            }
            (Some(ToDaemon::Shell(request)), true) => {
                let Some(reservation) = held.take() else { return Ok(()) };
                shell::run(daemon, connection, reservation, request).await;
                return Ok(());
            }
            (Some(ToDaemon::RequestPart(_) | ToDaemon::RequestEnd | ToDaemon::Shell(_)), false) => {
                return Err(End::Refused("a place must be reserved first".into()));
            }
            (Some(ToDaemon::ShellInput(_) | ToDaemon::ShellResize(_)), _) => {
                return Err(End::Refused("there is no shell".into()));
            }
            (Some(ToDaemon::Hello { .. }), _) => return Err(End::Refused("one greeting is enough".into())),
        }
    }
}

fn lapsed() -> String {
    let minutes = RESERVED_FOR.as_secs() / 60;
    format!(
        "no build came for the place that was reserved for {minutes} minutes, and it is needed; ask again"
    )
}

async fn greet(connection: &mut Connection) -> Result<FrontEndName, End> {
    let hello = timeout(GREETING_LIMIT, connection.reader.next::<ToDaemon>())
        .await
        .map_err(|_| End::Refused(format!("no greeting came within {GREETING_LIMIT:?}")))??;
    match hello {
        Some(ToDaemon::Hello { version, front_end }) => {
            let program = env!("CARGO_PKG_VERSION").to_owned();
            answer(connection, &FromDaemon::Hello { version: CONTROL_VERSION, program }).await?;
            if version != CONTROL_VERSION {
                debug!(version, "a front end of another release");
                return Err(End::Gone);
            }
            Ok(front_end)
        }
        Some(_) => Err(End::Refused("a greeting must come first".into())),
        None => Err(End::Gone),
    }
}

/// Says something to a peer that may not read it.
async fn answer(connection: &mut Connection, message: &FromDaemon) -> Result<(), End> {
    match timeout(ANSWER_LIMIT, send(&mut connection.writer, message)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(End::Gone),
    }
}

/// A request on its way.
struct Request {
    encoded: Vec<u8>,
    /// What it takes of the memory that all peers but root share.
    share: Option<Share>,
}

impl Request {
    fn new(daemon: &Daemon, peer: Peer) -> Self {
        let share = (!peer.is_root()).then(|| daemon.requests.nothing_yet(peer.uid));
        Self { encoded: Vec::new(), share }
    }

    fn append(&mut self, part: &[u8]) -> Result<(), End> {
        if self.encoded.len() + part.len() > REQUEST_MAX {
            return Err(End::Refused(format!("the request is larger than {REQUEST_MAX} bytes")));
        }
        if let Some(share) = &mut self.share
            && !share.grow(part.len())
        {
            return Err(End::Refused(
                "the requests of this uid that are not built yet are too large; let some builds end".into(),
            ));
        }
        self.encoded.extend_from_slice(part);
        Ok(())
    }

    /// The request, and its share for as long as there is one of the two.
    async fn decode(self) -> Result<(BuildRequest, Option<Share>), End> {
        let Self { encoded, share } = self;
        let decoded = if encoded.len() <= REQUEST_PART {
            frame::decode_large(&encoded)
        } else {
            // Takes a while, in which this thread could serve others.
            let decoding = tokio::task::spawn_blocking(move || frame::decode_large(&encoded));
            decoding.await.unwrap_or_else(|error| Err(FrameError::Malformed(error.to_string())))
        };
        let request =
            decoded.map_err(|error| End::Refused(format!("failed to understand the request: {error}")))?;
        Ok((request, share))
    }
}

fn reserve(daemon: &Daemon, peer: Peer, front_end: &FrontEndName) -> Result<Reservation, String> {
    if *daemon.mode.borrow() != Mode::Running {
        return Err("the daemon is finishing what runs and takes nothing new".into());
    }
    match daemon.places.reserve(peer.uid) {
        Ok(place) => Ok(Reservation { place, listed: Listed::new(&daemon.registry, front_end, peer) }),
        Err(Full::All) => {
            Err(format!("{} builds run and {} wait already", daemon.config.jobs(), daemon.config.queue_limit))
        }
        Err(Full::Share { held }) => {
            Err(format!("{held} builds of uid {} wait already, which leaves as many for others", peer.uid))
        }
    }
}

/// How the daemon is. Takes a look at every process of the machine, so no more than one does so at a time for others than root.
async fn status(daemon: &Daemon, peer: Peer) -> StatusReport {
    let _turn = if peer.is_root() { None } else { Some(daemon.status_turn.lock().await) };
    let registry = Arc::clone(&daemon.registry);
    let slots = tokio::task::spawn_blocking(move || registry.slots()).await.unwrap_or_default();
    let (succeeded, failed, cancelled) = daemon.registry.fates();
    StatusReport {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime: daemon.registry.uptime(),
        guest: daemon.config.guest.as_str().into(),
        systems: daemon.config.systems.clone(),
        max_jobs: daemon.config.jobs(),
        queue_limit: daemon.config.queue_limit,
        draining: *daemon.mode.borrow() != Mode::Running,
        succeeded,
        failed,
        cancelled,
        slots,
        builds: daemon.registry.builds(),
        recent: daemon.registry.recent(),
        ssh: daemon.ssh.as_ref().map(|ssh| ssh.status()),
    }
}

#[cfg(test)]
mod tests;
