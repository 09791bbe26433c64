//! Uids of slots: one for each, never shared while anything of a slot is left.
//!
//! Given out in rotation, from a place that differs each time the daemon starts: so a uid comes back as late as possible, and
//! nobody knows when. Before it does, whoever has it is killed ([`super::uid_processes`]). So that nobody is who has it by right,
//! they are taken before they are used ([`super::uid_range`]): the daemon's all at once, others one by one.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::uid_processes::{HolderError, end_all, end_all_of};
use super::uid_range::{FILE, UidRange, UidRangeError};
use crate::config::Config;

/// The last of the range are for slots that are no daemon's (`host-agent doctor`).
pub const NOT_THE_DAEMONS: u32 = 256;

/// Why a slot has no uid.
#[derive(Debug, Error)]
pub enum UidError {
    /// As many slots as uids.
    #[error("failed to find a free uid for a slot: all {0} are in use; see `uid-count`")]
    AllInUse(u32),
    /// Somebody has each that was tried.
    #[error(transparent)]
    Held(#[from] HolderError),
    /// They are somebody else's to use.
    #[error(transparent)]
    Range(#[from] UidRangeError),
}

/// The uids that are in use.
#[derive(Debug, Clone)]
pub struct Uids {
    base: u32,
    count: u32,
    turn: Arc<Mutex<Turn>>,
    taken: Taken,
}

/// How they are made this process's own.
#[derive(Debug, Clone)]
enum Taken {
    /// They are.
    All { _range: Arc<UidRange> },
    /// Each when it is leased.
    Each,
}

#[derive(Debug)]
struct Turn {
    /// Where to look next, from the base.
    next: u32,
    used: BTreeSet<u32>,
}

/// A uid that is one slot's alone; free again when dropped.
#[derive(Debug)]
pub struct UidLease {
    uid: u32,
    turn: Arc<Mutex<Turn>>,
    _taken: Option<UidRange>,
}

impl Uids {
    /// Those of the configuration that are the daemon's; no other has them as long as there is a copy of this.
    pub fn of_daemon(config: &Config) -> Result<Self, UidRangeError> {
        let uids = config.uid_base..config.uid_base + config.uid_count.saturating_sub(NOT_THE_DAEMONS);
        let range = UidRange::take(Path::new(FILE), &uids)?;
        Ok(Self::new(uids.start, uids.end - uids.start, Taken::All { _range: Arc::new(range) }))
    }

    /// Those of the configuration that are not.
    pub fn of_others(config: &Config) -> Self {
        let first = config.uid_base + config.uid_count.saturating_sub(NOT_THE_DAEMONS);
        Self::new(first, NOT_THE_DAEMONS, Taken::Each)
    }

    fn new(base: u32, count: u32, taken: Taken) -> Self {
        let random = std::hash::RandomState::new().build_hasher().finish() as u32;
        let turn = Turn { next: random % count.max(1), used: BTreeSet::new() };
        Self { base, count, turn: Arc::new(Mutex::new(turn)), taken }
    }

    /// Kills whoever has any of them, which an earlier daemon may have left; how many there were.
    pub fn clear(&self) -> Result<usize, HolderError> {
        end_all(&(self.base..self.base + self.count))
    }

    /// The next uid that is free and that nobody has; blocking. One that somebody has who does not die is never given out.
    pub fn lease(&self) -> Result<UidLease, UidError> {
        let mut held = None;
        // A few processes may be immortal for a while; if all are, that is told.
        for _ in 0..8 {
            let Some(lease) = self.take_turn()? else { break };
            match lease.end_holders() {
                Ok(()) => return Ok(lease),
                Err(error) => {
                    std::mem::forget(lease);
                    held = Some(error);
                }
            }
        }
        Err(held.map_or(UidError::AllInUse(self.count), UidError::Held))
    }

    fn take_turn(&self) -> Result<Option<UidLease>, UidRangeError> {
        let mut turn = locked(&self.turn);
        for _ in 0..self.count {
            let uid = self.base + turn.next;
            turn.next = (turn.next + 1) % self.count;
            if turn.used.contains(&uid) {
                continue;
            }
            let taken = match &self.taken {
                Taken::All { .. } => None,
                Taken::Each => match UidRange::take(Path::new(FILE), &(uid..uid + 1)) {
                    Ok(range) => Some(range),
                    Err(UidRangeError::Taken(_)) => continue,
                    Err(error) => return Err(error),
                },
            };
            turn.used.insert(uid);
            return Ok(Some(UidLease { uid, turn: Arc::clone(&self.turn), _taken: taken }));
        }
        Ok(None)
    }
}

impl UidLease {
    /// The number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Kills whoever has it, wherever that runs; blocking.
    pub fn end_holders(&self) -> Result<(), HolderError> {
        match end_all_of(self.uid)? {
            0 => {}
            ended => tracing::error!(
                uid = self.uid,
                ended,
                "processes outside of a slot had its uid, which should be impossible; they were killed"
            ),
        }
        Ok(())
    }
}

impl Drop for UidLease {
    fn drop(&mut self) {
        locked(&self.turn).used.remove(&self.uid);
    }
}

fn locked(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_go_round_the_whole_range_before_one_comes_back() {
        let uids = Uids::new(2_147_400_000, 5, Taken::Each);
        let first = uids.lease().unwrap();
        let round: BTreeSet<u32> = (0..4).map(|_| uids.lease().unwrap().uid()).collect();
        assert!(round.len() == 4 && !round.contains(&first.uid()), "{first:?} {round:?}");
        // The one that is in use is passed over.
        let again: Vec<u32> = (0..4).map(|_| uids.lease().unwrap().uid()).collect();
        assert!(!again.contains(&first.uid()), "{again:?}");
        let freed = first.uid();
        drop(first);
        assert!((0..5).any(|_| uids.lease().unwrap().uid() == freed));
    }

    #[test]
    fn no_more_are_leased_than_there_are() {
        let uids = Uids::new(2_147_410_000, 2, Taken::Each);
        let leases = [uids.lease().unwrap(), uids.lease().unwrap()];
        assert!(matches!(uids.lease(), Err(UidError::AllInUse(2))));
        drop(leases);
        uids.lease().unwrap();
    }

    #[test]
    fn the_daemons_and_the_others_are_apart_and_both_in_the_range() {
        let config = Config { uid_base: 2_147_420_000, uid_count: 1024, ..Config::default() };
        let (daemon, others) = (Uids::of_daemon(&config).unwrap(), Uids::of_others(&config));
        assert_eq!((daemon.base, daemon.count), (2_147_420_000, 768));
        assert_eq!((others.base, others.count), (2_147_420_768, 256));
        // Nobody else is the daemon meanwhile, and others have different ones at the same time.
        assert!(matches!(Uids::of_daemon(&config), Err(UidRangeError::Taken(_))));
        let more = Uids::of_others(&config);
        let leases: Vec<_> =
            [&others, &more].into_iter().cycle().take(256).map(|uids| uids.take_turn().unwrap()).collect();
        let uids: BTreeSet<u32> = leases.iter().flatten().map(UidLease::uid).collect();
        assert_eq!(uids.len(), 256);
    }
}
