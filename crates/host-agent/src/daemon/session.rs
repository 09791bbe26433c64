//! One connection from its greeting to its end.

use std::time::Duration;

use protocol::frame::{self, FrameError};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tracing::{debug, info};

use super::peer::{Peer, admit};
use super::places::Place;
use super::{Daemon, Mode, build, shell};
use crate::control::message::{CONTROL_VERSION, FromDaemon, REQUEST_MAX, StatusReport, ToDaemon};
use crate::control::stream::{FrameReader, is_gone, send};
use crate::request::BuildRequest;

/// How long a peer may take to say who it is.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// A connection that has been greeted.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) reader: FrameReader<OwnedReadHalf>,
    pub(super) writer: OwnedWriteHalf,
    pub(super) front_end: String,
    pub(super) peer: Peer,
}

/// Why a connection ends early.
enum End {
    /// The peer is gone.
    Gone,
    /// It said something that it may not say; it is told.
    Refused(String),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        if is_gone(&error) { End::Gone } else { End::Refused(error.to_string()) }
    }
}

/// Serves one connection.
pub(super) async fn serve(daemon: &Daemon, stream: UnixStream, peer: Peer) {
    let (reader, writer) = stream.into_split();
    let mut connection =
        Connection { reader: FrameReader::new(reader), writer, front_end: String::new(), peer };
    match converse(daemon, &mut connection).await {
        Ok(()) | Err(End::Gone) => {}
        Err(End::Refused(reason)) => {
            info!(uid = peer.uid, reason, "refused a connection");
            let _ = send(&mut connection.writer, &FromDaemon::Refused(reason)).await;
        }
    }
}

async fn converse(daemon: &Daemon, connection: &mut Connection) -> Result<(), End> {
    let hello = tokio::time::timeout(GREETING_LIMIT, connection.reader.next::<ToDaemon>())
        .await
        .map_err(|_| End::Refused("no greeting came".into()))??;
    match hello {
        Some(ToDaemon::Hello { version, front_end }) => {
            let program = env!("CARGO_PKG_VERSION").to_owned();
            send(&mut connection.writer, &FromDaemon::Hello { version: CONTROL_VERSION, program }).await?;
            if version != CONTROL_VERSION {
                debug!(version, "a front end of another release");
                return Err(End::Gone);
            }
            connection.front_end = front_end;
        }
        Some(_) => return Err(End::Refused("a greeting must come first".into())),
        None => return Err(End::Gone),
    }
    admit(connection.peer, &daemon.config).map_err(End::Refused)?;

    let mut place = None;
    let mut encoded = Vec::new();
    while let Some(message) = connection.reader.next().await? {
        match message {
            ToDaemon::Status => {
                let report = Box::new(status(daemon).await);
                send(&mut connection.writer, &FromDaemon::Status(*report)).await?;
            }
            ToDaemon::Reserve => {
                let (answer, reserved) = reserve(daemon);
                place = reserved;
                send(&mut connection.writer, &answer).await?;
            }
            ToDaemon::RequestPart(part) => {
                if encoded.len() + part.len() > REQUEST_MAX {
                    return Err(End::Refused(format!("the request is larger than {REQUEST_MAX} bytes")));
                }
                encoded.extend_from_slice(&part);
            }
            ToDaemon::RequestEnd => {
                let place: Place =
                    place.take().ok_or_else(|| End::Refused("a place must be reserved first".into()))?;
                let request: BuildRequest = frame::decode_large(&std::mem::take(&mut encoded))
                    .map_err(|error| End::Refused(format!("failed to understand the request: {error}")))?;
                build::run(daemon, connection, place, request).await;
                return Ok(());
            }
            ToDaemon::Shell(request) => {
                let place: Place =
                    place.take().ok_or_else(|| End::Refused("a place must be reserved first".into()))?;
                shell::run(daemon, connection, place, request).await;
                return Ok(());
            }
            ToDaemon::ShellInput(_) | ToDaemon::ShellResize(_) => {
                return Err(End::Refused("there is no shell".into()));
            }
            ToDaemon::Hello { .. } => return Err(End::Refused("one greeting is enough".into())),
        }
    }
    Ok(())
}

fn reserve(daemon: &Daemon) -> (FromDaemon, Option<Place>) {
    if *daemon.mode.borrow() != Mode::Running {
        return (FromDaemon::Full("the daemon is finishing what runs and takes nothing new".into()), None);
    }
    match daemon.places.reserve() {
        Some(place) => (FromDaemon::Reserved { ahead: place.ahead }, Some(place)),
        None => (
            FromDaemon::Full(format!(
                "{} builds run and {} wait already",
                daemon.config.jobs(),
                daemon.config.queue_limit
            )),
            None,
        ),
    }
}

async fn status(daemon: &Daemon) -> StatusReport {
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
        slots: daemon.registry.slots(),
        builds: daemon.registry.builds(),
        recent: daemon.registry.recent(),
        ssh: daemon.ssh.as_ref().map(|ssh| ssh.status()),
    }
}
