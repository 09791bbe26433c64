//! How many may try to log in at once, and how many may have done so.
//!
//! The port is open to every user of this machine, so those who never log in must not keep others out: where as many
//! try as may, the oldest makes room as soon as it has had time enough. Before that the new one is turned away, so that
//! nobody who is logging in is disturbed, and no more `sshd`s are started than that time allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::control::message::SshSession;

/// Time in which nobody is asked to make room. Logging in takes less than one second.
const UNDISTURBED: Duration = Duration::from_secs(5);

/// Counts connections.
#[derive(Debug)]
pub(super) struct Gate {
    max_unauthenticated: usize,
    max_sessions: usize,
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug, Default)]
struct Tables {
    next: u64,
    /// Oldest first.
    unauthenticated: BTreeMap<u64, (Instant, Arc<Notify>)>,
    sessions: BTreeMap<u64, (Instant, String)>,
}

/// A connection that was let in; it is out when this is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    id: u64,
    max_sessions: usize,
    asked_to_leave: Arc<Notify>,
    tables: Arc<Mutex<Tables>>,
}

/// Too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Are logging in.
    Unauthenticated,
    /// Have logged in.
    Sessions,
}

impl Full {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Full::Unauthenticated => "too many connections are logging in, try again",
            Full::Sessions => "too many sessions, end one",
        }
    }
}

impl Gate {
    pub(super) fn new(max_unauthenticated: u32, max_sessions: u32) -> Self {
        Self {
            max_unauthenticated: max_unauthenticated as usize,
            max_sessions: max_sessions as usize,
            tables: Arc::default(),
        }
    }

    /// Lets a connection in, if there is room or can be made.
    pub(super) fn enter(&self, now: Instant) -> Result<Pass, Full> {
        let mut tables = lock(&self.tables);
        if tables.sessions.len() >= self.max_sessions {
            return Err(Full::Sessions);
        }
        if tables.unauthenticated.len() >= self.max_unauthenticated {
            match tables.unauthenticated.first_entry() {
                Some(oldest) if now.saturating_duration_since(oldest.get().0) >= UNDISTURBED => {
                    oldest.remove().1.notify_one();
                }
                _ => return Err(Full::Unauthenticated),
            }
        }
        let id = tables.next;
        tables.next += 1;
        let asked_to_leave = Arc::<Notify>::default();
        tables.unauthenticated.insert(id, (now, Arc::clone(&asked_to_leave)));
        Ok(Pass { id, max_sessions: self.max_sessions, asked_to_leave, tables: Arc::clone(&self.tables) })
    }

    /// Connections that are logging in, and the others.
    pub(super) fn inside(&self) -> (u32, Vec<SshSession>) {
        let tables = lock(&self.tables);
        let session =
            |(since, user): &(Instant, String)| SshSession { user: user.clone(), age: since.elapsed() };
        (tables.unauthenticated.len() as u32, tables.sessions.values().map(session).collect())
    }
}

impl Pass {
    /// Whether no other is inside.
    pub(super) fn is_alone(&self) -> bool {
        let tables = lock(&self.tables);
        tables.sessions.is_empty() && tables.unauthenticated.keys().all(|id| *id == self.id)
    }

    /// It has logged in, as `user`.
    pub(super) fn authenticated(&self, user: &str, now: Instant) -> Result<(), Full> {
        let mut tables = lock(&self.tables);
        tables.unauthenticated.remove(&self.id);
        if tables.sessions.len() >= self.max_sessions {
            return Err(Full::Sessions);
        }
        tables.sessions.insert(self.id, (now, user.to_owned()));
        Ok(())
    }

    /// Returns when it has to make room.
    pub(super) async fn asked_to_leave(&self) {
        self.asked_to_leave.notified().await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut tables = lock(&self.tables);
        tables.unauthenticated.remove(&self.id);
        tables.sessions.remove(&self.id);
    }
}

fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(gate: &Gate) -> (u32, usize) {
        let (unauthenticated, sessions) = gate.inside();
        (unauthenticated, sessions.len())
    }

    #[tokio::test]
    async fn the_oldest_makes_room_once_it_has_had_its_time() {
        let gate = Gate::new(2, 9);
        let start = Instant::now();
        let first = gate.enter(start).unwrap();
        let second = gate.enter(start + Duration::from_secs(1)).unwrap();
        assert_eq!(gate.enter(start + Duration::from_millis(4999)).unwrap_err(), Full::Unauthenticated);
        let third = gate.enter(start + UNDISTURBED).unwrap();
        first.asked_to_leave().await;
        assert_eq!(count(&gate), (2, 0));
        // The second has come later, and has its time as well.
        assert_eq!(gate.enter(start + UNDISTURBED).unwrap_err(), Full::Unauthenticated);
        drop(first);
        assert_eq!(count(&gate), (2, 0), "it was counted out already");
        assert!(!third.is_alone());
        drop(second);
        assert!(third.is_alone());
    }

    #[test]
    fn whoever_has_logged_in_makes_room_for_others_and_is_not_asked_to_leave() {
        let gate = Gate::new(1, 2);
        let start = Instant::now();
        let first = gate.enter(start).unwrap();
        first.authenticated("builder", start).unwrap();
        let second = gate.enter(start).unwrap();
        assert_eq!(count(&gate), (1, 1));
        let third = gate.enter(start + UNDISTURBED).unwrap();
        assert_eq!(count(&gate), (1, 1));
        // It was too late for the second to make room.
        second.authenticated("root", start).unwrap();
        assert_eq!(third.authenticated("root", start), Err(Full::Sessions));
        assert_eq!(gate.enter(start + UNDISTURBED * 9).unwrap_err(), Full::Sessions);
        drop((first, second));
        assert_eq!(count(&gate), (0, 0));
        gate.enter(start).unwrap();
    }
}
