//! Slots ahead of builds: booted and idle, used once, replaced.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::registry::{Registry, SlotState};
use crate::config::Config;
use crate::guest::GuestPlan;
use crate::request::Network;
use crate::slot::directory::{self, StateDirectory};
use crate::slot::outside_network::{NetworkLease, OutsideNetwork};
use crate::slot::uid_range::UidRangeError;
use crate::slot::uids::{UidError, Uids};
use crate::slot::{Slot, SlotError};
use crate::ssh::login::Login;

/// Between attempts to boot a spare slot after one failed, at most.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Boots slots and keeps spare ones.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    state: Arc<StateDirectory>,
    guest: GuestPlan,
    uids: Uids,
    outside: OnceLock<OutsideNetwork>,
    next_id: AtomicU32,
    spare: Mutex<Vec<Slot>>,
    taken: Notify,
    last_build: Mutex<Instant>,
    registry: Arc<Registry>,
}

impl Pool {
    pub(super) fn new(
        config: Config,
        state: Arc<StateDirectory>,
        guest: GuestPlan,
        registry: Arc<Registry>,
    ) -> Result<Self, UidRangeError> {
        let uids = Uids::of_daemon(&config)?;
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                state,
                guest,
                uids,
                outside: OnceLock::new(),
                next_id: AtomicU32::new(0),
                spare: Mutex::default(),
                taken: Notify::new(),
                last_build: Mutex::new(Instant::now()),
                registry,
            }),
        })
    }

    /// Finds out what fixed-output builds have for a network, and boots one slot, so that a machine on which none can boot is found out before
    /// the daemon says it is ready. The slot becomes a spare one.
    pub(super) async fn prove(&self) -> Result<(), SlotError> {
        let shared = Arc::clone(&self.shared);
        let prepared = tokio::task::spawn_blocking(move || shared.prepare()).await;
        prepared
            .unwrap_or_else(|_| Err(SlotError::Step("the task that prepares for slots panicked".into())))?;
        let slot = self.boot(Network::Loopback).await?;
        if self.shared.config.warm() > 0 {
            self.put(slot);
        } else {
            self.stop(slot).await;
        }
        Ok(())
    }

    /// A slot for one build: a spare one if it has that network and is alive, else one booted now.
    pub(super) async fn take(&self, network: Network) -> Result<Slot, SlotError> {
        *self.shared.last_build.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let slot = self.take_or_boot(network).await;
        // Also if none was spare: the machine is in use again.
        self.shared.taken.notify_one();
        slot
    }

    async fn take_or_boot(&self, network: Network) -> Result<Slot, SlotError> {
        if network == Network::Loopback {
            while let Some(slot) = self.pop() {
                if slot.is_alive() {
                    return Ok(slot);
                }
                warn!(slot = slot.id, "a spare slot has died");
                self.stop(slot).await;
            }
        }
        match self.boot(network).await {
            Ok(slot) => Ok(slot),
            // Guests don't always come up; a build should not fail for what a second attempt mends.
            Err(error) => {
                warn!(%error, "failed to boot a slot, trying once more");
                self.boot(network).await
            }
        }
    }

    /// What runs in them.
    pub(super) fn guest(&self) -> &GuestPlan {
        &self.shared.guest
    }

    /// Keeps `count` spare slots while there are builds; never returns.
    pub(super) async fn keep_warm(&self, count: usize) {
        let mut pause = Duration::ZERO;
        loop {
            if self.idle_left() == Some(Duration::ZERO) {
                if self.spare() > 0 {
                    info!("no build for a while: spare slots are dropped");
                }
                self.empty().await;
            }
            while self.spare() < count && self.idle_left() != Some(Duration::ZERO) {
                match self.boot(Network::Loopback).await {
                    Ok(slot) => {
                        pause = Duration::ZERO;
                        self.put(slot);
                    }
                    Err(error) => {
                        pause = (pause * 2).clamp(Duration::from_secs(1), RETRY_MAX);
                        warn!(%error, again_in = ?pause, "failed to boot a spare slot");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
            match self.idle_left() {
                Some(left) if !left.is_zero() => {
                    let _ = tokio::time::timeout(left, self.shared.taken.notified()).await;
                }
                _ => self.shared.taken.notified().await,
            }
        }
    }

    /// How long spare slots are still kept if no build comes; `None` for ever.
    fn idle_left(&self) -> Option<Duration> {
        let timeout = self.shared.config.idle_timeout_seconds;
        let last = *self.shared.last_build.lock().unwrap_or_else(PoisonError::into_inner);
        (timeout > 0).then(|| Duration::from_secs(timeout).saturating_sub(last.elapsed()))
    }

    /// Ends a slot: kills everything in it, removes its directories, frees its uid.
    pub(super) async fn stop(&self, slot: Slot) {
        let shared = Arc::clone(&self.shared);
        let _ = tokio::task::spawn_blocking(move || {
            let id = slot.id;
            shared.registry.slot_is(id, SlotState::Stopping);
            let stopped = slot.stop();
            let path = stopped.directory.path();
            if let Err(error) = directory::remove(path) {
                warn!(path = %path.display(), %error, "failed to remove a slot's directory");
            }
            drop(stopped);
            shared.registry.slot_gone(id);
        })
        .await;
    }

    /// A slot that can be logged into, with its own loopback only.
    pub(super) async fn boot_for_logins(&self, login: Login) -> Result<Slot, SlotError> {
        self.boot_with(Network::Loopback, Some(login)).await
    }

    /// Ends all spare slots.
    pub(super) async fn empty(&self) {
        while let Some(slot) = self.pop() {
            self.stop(slot).await;
        }
    }

    async fn boot(&self, network: Network) -> Result<Slot, SlotError> {
        self.boot_with(network, None).await
    }

    async fn boot_with(&self, network: Network, login: Option<Login>) -> Result<Slot, SlotError> {
        let shared = Arc::clone(&self.shared);
        let booted = tokio::task::spawn_blocking(move || {
            let id = shared.next_id.fetch_add(1, Ordering::SeqCst);
            let uid = shared.uids.lease()?;
            shared.registry.slot_booting(id, uid.uid());
            let network = shared.network(network)?;
            let booted =
                Slot::boot(&shared.config, &shared.state, shared.guest.clone(), id, uid, network, login);
            match &booted {
                Ok(slot) => {
                    debug!(slot = id, uid = slot.uid.uid(), boot = ?slot.boot, "slot booted");
                    shared.registry.slot_booted(id, slot.boot);
                }
                Err(_) => {
                    shared.registry.slot_gone(id);
                    // The slot itself is dropped, so dead; its reason has quoted its log.
                    let _ =
                        directory::remove(&shared.config.state_directory.join("slots").join(id.to_string()));
                }
            }
            booted
        });
        match booted.await {
            Ok(result) => result,
            Err(_) => Err(SlotError::Step("the task that boots slots panicked".into())),
        }
    }

    fn spare(&self) -> usize {
        self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn put(&self, slot: Slot) {
        self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    fn pop(&self) -> Option<Slot> {
        // The oldest first: it is surely done booting.
        let mut spare = self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_empty() { None } else { Some(spare.remove(0)) }
    }
}

impl Shared {
    /// What comes before the first slot; blocking.
    fn prepare(&self) -> Result<(), SlotError> {
        match self.uids.clear().map_err(UidError::from)? {
            0 => {}
            ended => warn!(ended, "processes had uids of slots, left by an earlier daemon; they were killed"),
        }
        let (outside, reason) = OutsideNetwork::decide(&self.config, &self.uids)?;
        match (&outside, reason) {
            (OutsideNetwork::Pasta(program), _) => {
                info!(pasta = %program.display(), "fixed-output builds have a network of their own");
            }
            (OutsideNetwork::Host, None) => info!("fixed-output builds have the host's network"),
            (OutsideNetwork::Host, Some(reason)) => {
                warn!(
                    reason,
                    "fixed-output builds have the host's network: pasta is there and does not work"
                );
            }
        }
        // Once a daemon.
        let _ = self.outside.set(outside);
        Ok(())
    }

    fn network(&self, network: Network) -> Result<NetworkLease, SlotError> {
        match network {
            Network::Loopback => Ok(NetworkLease::Loopback),
            Network::Outside => match self.outside.get() {
                Some(outside) => Ok(outside.lease(&self.uids)?),
                None => Err(SlotError::Step("nothing is known of the network yet".into())),
            },
        }
    }
}
