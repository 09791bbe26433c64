//! Things of which there is a limited amount, shared by uids: connections, places, bytes of requests.
//!
//! One rule for all of them: **no uid holds more than it leaves**. Whoever comes when little is left gets little, and as long
//! as few uids take all they can, there is something for the next: of 64 the first can hold 32, the second 16, and so on. Where
//! nobody else is, half of everything is enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether a uid that holds `held` may take `more` where `left` are left.
pub(super) fn may_take(held: usize, more: usize, left: usize) -> bool {
    held.saturating_add(more) <= left
}

/// An amount of something.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    total: usize,
    /// Most that one uid may hold, however much is left.
    each: usize,
    held: Arc<Mutex<HashMap<u32, usize>>>,
}

/// What one uid holds of it, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    uid: u32,
    amount: usize,
    of: Shares,
}

impl Shares {
    pub(super) fn new(total: usize, each: usize) -> Self {
        Self { total, each, held: Arc::default() }
    }

    /// Takes `amount`; `None` if that is more than the uid's share.
    pub(super) fn take(&self, uid: u32, amount: usize) -> Option<Share> {
        let mut share = self.nothing_yet(uid);
        share.grow(amount).then_some(share)
    }

    /// For a uid that will take more and more.
    pub(super) fn nothing_yet(&self, uid: u32) -> Share {
        Share { uid, amount: 0, of: self.clone() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes more; whether that was possible.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let mut held = self.of.held();
        let left = self.of.total - held.values().sum::<usize>();
        let mine = held.get(&self.uid).copied().unwrap_or(0);
        let granted = may_take(mine, more, left) && mine + more <= self.of.each;
        if granted {
            held.insert(self.uid, mine + more);
            self.amount += more;
        }
        granted
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held();
        if let Some(mine) = held.get_mut(&self.uid) {
            *mine -= self.amount;
            if *mine == 0 {
                held.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(shares: &Shares, uid: u32) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(uid, 1)).collect()
    }

    #[test]
    fn no_uid_holds_more_than_it_leaves() {
        let shares = Shares::new(64, 64);
        let hoards: Vec<_> = (1..=8).map(|uid| take_all(&shares, uid)).collect();
        let held: Vec<usize> = hoards.iter().map(Vec::len).collect();
        assert_eq!(held, [32, 16, 8, 4, 2, 1, 1, 0]);
        drop(hoards);
        assert!(shares.held().is_empty());
        assert_eq!(take_all(&Shares::new(1, 1), 7).len(), 1, "the only one there is can be had");
    }

    #[test]
    fn a_cap_for_each_holds_where_much_is_left() {
        let shares = Shares::new(64, 4);
        let hoard = take_all(&shares, 1);
        assert_eq!(hoard.len(), 4);
        assert_eq!(take_all(&shares, 2).len(), 4);
    }

    #[test]
    fn what_grows_is_counted_and_given_back_whole() {
        let shares = Shares::new(100, 100);
        let mut first = shares.nothing_yet(1);
        assert!(first.grow(30) && first.grow(20));
        assert!(!first.grow(1));
        let second = shares.nothing_yet(1);
        assert!(!shares.nothing_yet(1).grow(1), "the same uid through another connection");
        assert!(shares.take(2, 25).is_some());
        drop(first);
        assert!(shares.take(1, 50).is_some());
        drop(second);
        assert!(shares.held().is_empty());
    }
}
