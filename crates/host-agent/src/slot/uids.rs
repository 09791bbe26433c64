//! Uids of slots: one for each, never shared while anything of a slot is left.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Most slots at once; with `uid-base` this bounds the range that must be free of other accounts.
pub const UIDS: u32 = 1 << 16;

/// The uids that are in use.
#[derive(Debug, Clone)]
pub struct Uids {
    base: u32,
    used: Arc<Mutex<BTreeSet<u32>>>,
}

/// A uid that is one slot's alone; free again when dropped.
#[derive(Debug)]
pub struct UidLease {
    uid: u32,
    used: Arc<Mutex<BTreeSet<u32>>>,
}

impl Uids {
    /// The range that starts at `base`.
    pub fn new(base: u32) -> Self {
        Self { base, used: Arc::default() }
    }

    /// The lowest uid that is free, or `None` when all [`UIDS`] are taken.
    pub fn lease(&self) -> Option<UidLease> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = (self.base..self.base + UIDS).find(|uid| !used.contains(uid))?;
        used.insert(uid);
        Some(UidLease { uid, used: Arc::clone(&self.used) })
    }
}

impl UidLease {
    /// The number.
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

impl Drop for UidLease {
    fn drop(&mut self) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_leased_once_and_free_again_after_its_lease() {
        let uids = Uids::new(5000);
        let first = uids.lease().unwrap();
        let second = uids.lease().unwrap();
        assert_eq!((first.uid(), second.uid()), (5000, 5001));
        drop(first);
        assert_eq!(uids.lease().unwrap().uid(), 5000);
    }
}
