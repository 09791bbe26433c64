//! The slot that sessions are in: booted when somebody first connects, kept until it dies or the daemon ends.
//!
//! All sessions share it, so that one finds the files of another. When it dies, its sessions end, and the next connection
//! boots another. It is renewed after some hundred connections, as soon as nobody is in it: Darling's shellspawn and launchd
//! reap nothing, and each connection leaves two dead processes.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::super::pool::Pool;
use super::super::registry::{Registry, SlotState};
use crate::control::stream::FrameReader;
use crate::slot::plan::FromSlot;
use crate::slot::{Slot, stalled};
use crate::ssh::login::Login;

/// After a boot that has failed, the next one has to wait: whoever connects must not keep the machine busy.
const BOOT_PAUSE: Duration = Duration::from_secs(5);

/// Connections that one slot serves, if there is a moment for another. Far from any limit on processes.
const RENEWED_AFTER: u32 = 500;

/// Keeps at most one slot.
#[derive(Debug)]
pub(super) struct Prefix {
    login: Login,
    state: tokio::sync::Mutex<State>,
    current: Mutex<Option<Arc<Running>>>,
}

#[derive(Debug, Default)]
struct State {
    failed: Option<(Instant, String)>,
    stopped: bool,
}

/// A slot, until it dies.
#[derive(Debug)]
pub(super) struct Running {
    id: u32,
    slot: Mutex<Option<Slot>>,
    logins: AtomicU32,
    /// The reason.
    died: watch::Sender<Option<String>>,
}

impl Prefix {
    pub(super) fn new(login: Login) -> Self {
        Self { login, state: tokio::sync::Mutex::default(), current: Mutex::default() }
    }

    /// The slot that there is, or a new one; the reason if there is none. `alone`: whoever asks is the only one. In a task of
    /// its own, so that a slot is not lost with a connection that goes while it boots.
    pub(super) async fn get(
        self: &Arc<Self>,
        pool: &Pool,
        registry: &Arc<Registry>,
        alone: bool,
    ) -> Result<Arc<Running>, String> {
        let (prefix, pool, registry) = (Arc::clone(self), pool.clone(), Arc::clone(registry));
        let got = tokio::spawn(async move { prefix.get_or_boot(&pool, &registry, alone).await });
        got.await.unwrap_or_else(|_| Err("the task that boots the slot for ssh panicked".into()))
    }

    async fn get_or_boot(
        &self,
        pool: &Pool,
        registry: &Arc<Registry>,
        alone: bool,
    ) -> Result<Arc<Running>, String> {
        let mut state = self.state.lock().await;
        if let Some(running) = self.current().filter(|running| running.reason().is_none()) {
            if !(alone && running.logins.load(Ordering::SeqCst) >= RENEWED_AFTER) {
                return Ok(running);
            }
            running.end(pool, "it has served its time".into()).await;
        }
        if state.stopped {
            return Err("the daemon is ending".into());
        }
        if let Some((when, reason)) = &state.failed
            && when.elapsed() < BOOT_PAUSE
        {
            return Err(reason.clone());
        }
        state.failed = None;
        let booted = match pool.boot_for_logins(self.login.clone()).await {
            Ok(slot) => {
                Running::watch(slot, pool.clone(), Arc::clone(registry)).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match booted {
            Ok(running) => {
                self.set_current(Some(Arc::clone(&running)));
                Ok(running)
            }
            Err(reason) => {
                warn!(reason, "failed to boot a slot for ssh");
                state.failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }

    /// Ends the slot, for this reason, for good.
    pub(super) async fn stop(&self, pool: &Pool, reason: &str) {
        let mut state = self.state.lock().await;
        state.stopped = true;
        if let Some(running) = self.current() {
            running.end(pool, reason.to_owned()).await;
        }
        self.set_current(None);
    }

    /// Number of the slot that there is.
    pub(super) fn slot(&self) -> Option<u32> {
        self.current().filter(|running| running.reason().is_none()).map(|running| running.id)
    }

    fn current(&self) -> Option<Arc<Running>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_current(&self, running: Option<Arc<Running>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

impl Running {
    /// Watches a slot from now on, and ends it when it has died.
    fn watch(slot: Slot, pool: Pool, registry: Arc<Registry>) -> std::io::Result<Arc<Self>> {
        let id = slot.id;
        registry.slot_is(id, SlotState::Ssh);
        info!(slot = id, boot = ?slot.boot, "slot for ssh booted");
        let events = slot.listen()?;
        events.set_nonblocking(true)?;
        let events = tokio::net::UnixStream::from_std(events)?;
        let (died, _) = watch::channel(None);
        let running = Arc::new(Self { id, slot: Mutex::new(Some(slot)), logins: AtomicU32::new(0), died });
        let watched = Arc::clone(&running);
        tokio::spawn(async move {
            let mut events = FrameReader::new(events);
            let reason = loop {
                match events.next::<FromSlot>().await {
                    Ok(Some(FromSlot::Stalled(late))) => break stalled(late),
                    Ok(Some(FromSlot::Failed(reason))) => break reason,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break "the slot's first process was killed".into(),
                }
            };
            watched.end(&pool, reason).await;
        });
        Ok(running)
    }

    /// Has an `sshd` serve this connection; an error is the slot's end.
    pub(super) async fn log_in(
        &self,
        pool: &Pool,
        number: u32,
        connection: BorrowedFd<'_>,
        log: BorrowedFd<'_>,
    ) -> Result<(), String> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        let said = match &*self.slot.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(slot) => slot.log_in(number, connection, log).map_err(|error| error.to_string()),
            None => return Err(self.reason().unwrap_or_default()),
        };
        if let Err(reason) = &said {
            self.end(pool, reason.clone()).await;
        }
        said
    }

    /// Ends that `sshd`, if it has not ended.
    pub(super) fn end_login(&self, number: u32) {
        if let Some(slot) = &*self.slot.lock().unwrap_or_else(PoisonError::into_inner)
            && let Err(error) = slot.end_login(number)
        {
            debug!(slot = self.id, %error, "failed to end an sshd");
        }
    }

    /// Returns the reason when the slot has died.
    pub(super) async fn died(&self) -> String {
        let mut died = self.died.subscribe();
        match died.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    fn reason(&self) -> Option<String> {
        self.died.borrow().clone()
    }

    /// Kills everything in it and removes what it had on the host. The first reason stays.
    async fn end(&self, pool: &Pool, reason: String) {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(slot) = slot {
            info!(slot = self.id, reason, "slot for ssh ended");
            self.died.send_replace(Some(reason));
            pool.stop(slot).await;
        }
    }
}
