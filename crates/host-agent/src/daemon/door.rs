//! Who comes in: every connection is judged before it takes anything that another could need.
//!
//! Whoever may not ask is told so into the empty buffer of its own socket and let go, so there is nothing that it could hold.
//! Only who has to be looked up first waits, in a small room of its own and for a short time. Those who are admitted have a
//! limit for each uid, and together leave room for root.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use protocol::frame;
use tokio::net::UnixStream;
use tracing::{debug, info};

use super::admission::Admission;
use super::peer::{Peer, ROOT};
use super::shares::{Share, Shares};
use super::{Daemon, session};
use crate::config::Config;
use crate::control::message::FromDaemon;

/// Connections that wait for their peer to be looked up, all together.
const UNKNOWN_MAX: usize = 256;

/// Of one uid, which may well begin many builds at once.
const UNKNOWN_OF_ONE: usize = 64;

/// How long they wait.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);

/// Connections of one uid beyond those that its builds can have: `status`, and front ends that ask for a place again and again.
const BESIDE_BUILDS: usize = 64;

/// Connections of root's: as many as its programs could need on the largest machine.
const OF_ROOT_MAX: usize = 4096;

/// Between two lines in the log about connections that were refused: whoever connects must not fill a disk.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Lets connections in.
#[derive(Debug)]
pub(super) struct Door {
    admission: Arc<Admission>,
    unknown: Shares,
    others: Shares,
    root: Shares,
    refused: Mutex<Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    said: Option<Instant>,
    unsaid: u64,
}

impl Door {
    /// `descriptors`: how many this process may have.
    pub(super) fn new(config: &Config, descriptors: usize) -> Self {
        let builds = config.jobs().saturating_add(config.queue_limit) as usize;
        let each = builds + BESIDE_BUILDS;
        // Where few descriptors are to be had, root's and the slots' come first.
        let others = (each * 4).min(descriptors / 4).max(1);
        Self {
            admission: Arc::new(Admission::new(config)),
            unknown: Shares::new(UNKNOWN_MAX, UNKNOWN_OF_ONE),
            others: Shares::new(others, each),
            // A share is half of what there is, and root is alone in this one.
            root: Shares::new(OF_ROOT_MAX * 2, OF_ROOT_MAX),
            refused: Mutex::default(),
        }
    }

    /// Takes a connection that was made. Does not wait.
    pub(super) fn receive(daemon: &Arc<Daemon>, stream: UnixStream) {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => return debug!(%error, "a connection went away before it was looked at"),
        };
        let door = &daemon.door;
        match door.admission.known(peer) {
            Some(Ok(())) => Self::enter(daemon, stream, peer),
            Some(Err(reason)) => door.turn_away(&stream, peer, reason),
            None => match door.unknown.take(peer.uid, 1) {
                Some(share) => drop(tokio::spawn(Self::look_up(Arc::clone(daemon), stream, peer, share))),
                None => door.turn_away(&stream, peer, TOO_MANY_UNKNOWN.into()),
            },
        }
    }

    async fn look_up(daemon: Arc<Daemon>, stream: UnixStream, peer: Peer, share: Share) {
        let verdict = tokio::time::timeout(LOOK_UP_LIMIT, daemon.door.admission.look_up(peer)).await;
        drop(share);
        match verdict {
            Ok(Ok(())) => Self::enter(&daemon, stream, peer),
            Ok(Err(reason)) => daemon.door.turn_away(&stream, peer, reason),
            Err(_) => daemon.door.turn_away(
                &stream,
                peer,
                format!(
                    "the system's databases did not say within {LOOK_UP_LIMIT:?} whether uid {} is a member of the group '{}'; \
                     add it to `allowed-uids` in the daemon's configuration to do without them",
                    peer.uid, daemon.config.build_group
                ),
            ),
        }
    }

    fn enter(daemon: &Arc<Daemon>, stream: UnixStream, peer: Peer) {
        let door = &daemon.door;
        let shares = if peer.uid == ROOT { &door.root } else { &door.others };
        match shares.take(peer.uid, 1) {
            Some(share) => {
                let daemon = Arc::clone(daemon);
                tokio::spawn(async move {
                    session::serve(&daemon, stream, peer).await;
                    drop(share);
                });
            }
            None => door.turn_away(
                &stream,
                peer,
                format!("uid {} has too many connections; close some", peer.uid),
            ),
        }
    }

    /// Tells the peer why, if that can be done without waiting, and closes.
    fn turn_away(&self, stream: &UnixStream, peer: Peer, reason: String) {
        self.log_refusal(peer, &reason);
        if let Ok(frame) = frame::encode(&FromDaemon::Refused(reason)) {
            let _ = send(stream.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
    }

    /// Has the log say that a connection was refused, if it did not just say so of another.
    pub(super) fn log_refusal(&self, peer: Peer, reason: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.said.is_some_and(|said| said.elapsed() < SAID_EVERY) {
            refused.unsaid += 1;
            return;
        }
        let others = std::mem::take(&mut refused.unsaid);
        refused.said = Some(Instant::now());
        drop(refused);
        info!(uid = peer.uid, reason, not_logged_before = others, "refused a connection");
    }
}

const TOO_MANY_UNKNOWN: &str = "too many connections wait for the system to say who may build; try again, or have the uid in `allowed-uids`";
