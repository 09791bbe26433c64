//! Places: how many builds may run, how many may wait, and whose turn it is.
//!
//! A place is reserved before its build is known, because a hook must answer Nix at once. Turns go by order of reservation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    jobs: u32,
    limit: u32,
    running: Arc<Semaphore>,
    taken: Arc<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: AtomicU32,
    freed: Notify,
}

/// One reserved place; given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// Reserved before this one and not yet given up, beyond those that may run.
    pub(super) ahead: u32,
    turn: JoinHandle<Option<OwnedSemaphorePermit>>,
    taken: Arc<Taken>,
}

impl Places {
    pub(super) fn new(jobs: u32, queue: u32) -> Self {
        Self {
            jobs,
            limit: jobs.saturating_add(queue),
            running: Arc::new(Semaphore::new(jobs as usize)),
            taken: Arc::default(),
        }
    }

    /// A place, or `None` when as many as allowed are taken.
    pub(super) fn reserve(&self) -> Option<Place> {
        let before = self
            .taken
            .count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
                (count < self.limit).then_some(count + 1)
            })
            .ok()?;
        let running = Arc::clone(&self.running);
        // A task of its own, so that the place queues from now on and not from when its build first asks.
        let turn = tokio::spawn(async move { running.acquire_owned().await.ok() });
        let ahead = (before + 1).saturating_sub(self.jobs);
        Some(Place { ahead, turn, taken: Arc::clone(&self.taken) })
    }

    /// Waits until no place is taken.
    pub(super) async fn idle(&self) {
        loop {
            let freed = self.taken.freed.notified();
            if self.taken.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Place {
    /// Waits for its turn; it lasts until the permit is dropped.
    pub(super) async fn turn(&mut self) -> Option<OwnedSemaphorePermit> {
        (&mut self.turn).await.ok().flatten()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turn.abort();
        self.taken.count.fetch_sub(1, Ordering::SeqCst);
        self.taken.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_go_by_order_of_reservation_and_no_more_places_than_allowed_are_given() {
        let places = Places::new(1, 2);
        let mut first = places.reserve().unwrap();
        let mut second = places.reserve().unwrap();
        let mut third = places.reserve().unwrap();
        assert_eq!([first.ahead, second.ahead, third.ahead], [0, 1, 2]);
        assert!(places.reserve().is_none());
        let running = first.turn().await.unwrap();
        tokio::select! {
            _ = third.turn() => panic!("the third ran before the second"),
            _ = second.turn() => panic!("two ran at once"),
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
        }
        drop((running, first));
        let running = second.turn().await.unwrap();
        drop((running, second));
        assert!(third.turn().await.is_some());
    }

    #[tokio::test]
    async fn a_place_given_up_while_it_waits_is_free_again() {
        let places = Places::new(1, 0);
        let first = places.reserve().unwrap();
        assert!(places.reserve().is_none());
        drop(first);
        let mut second = places.reserve().unwrap();
        assert!(second.turn().await.is_some());
        drop(second);
        tokio::time::timeout(std::time::Duration::from_secs(5), places.idle()).await.unwrap();
    }
}
