//! Places: how many builds may run, how many may wait, and whose turn it is.
//!
//! A place is reserved before its build is known, because a hook must answer Nix at once. It asks for its turn when its
//! build is known: a reservation that nothing comes of holds up nobody's build. Turns go round the uids that wait, and
//! within one uid by order of reservation.
//!
//! Root has as many places as there are, whatever others hold. All others share them ([`may_take`]), not counting what
//! runs. Two kinds of holders are left alone as long as nobody needs what they hold, since it may be a Nix that its user
//! has stopped for a while: who has reserved and sends no build, and who does not read what its build says.

mod tables;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::peer::ROOT;
use super::shares::may_take;
use tables::Tables;

/// Time in which the build must have come for which a place was reserved; afterwards the place is given up as soon as
/// somebody is refused one, or the daemon drains. The hook needs some milliseconds for it, and seconds where it asks Nix for
/// a large references graph.
pub(super) const RESERVED_FOR: Duration = Duration::from_secs(300);

/// Time for which a front end may take nothing of what its build says; afterwards the build is ended as soon as another one
/// waits for its turn.
pub(super) const UNREAD_FOR: Duration = Duration::from_secs(60);

/// All places.
#[derive(Debug)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    jobs: usize,
    limit: usize,
    tables: Mutex<Tables>,
    /// Something is different in the tables.
    changed: watch::Sender<()>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// As many are taken as there are.
    All,
    /// This uid has its share.
    Share {
        /// Of so many places whose builds do not run.
        held: usize,
    },
}

/// One reserved place; given up when dropped, with its turn.
#[derive(Debug)]
pub(super) struct Place {
    /// Reserved before this one and not yet given up, beyond those that may run.
    pub(super) ahead: u32,
    id: u64,
    since: Instant,
    shared: Arc<Shared>,
}

/// How long a place's front end may let its build wait.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    id: u64,
    shared: Arc<Shared>,
}

impl Places {
    pub(super) fn new(jobs: u32, queue: u32) -> Self {
        let limit = jobs.saturating_add(queue) as usize;
        let (changed, _) = watch::channel(());
        Self(Arc::new(Shared { jobs: jobs as usize, limit, tables: Mutex::default(), changed }))
    }

    /// A place for this uid, if there is one.
    pub(super) fn reserve(&self, uid: u32) -> Result<Place, Full> {
        self.0.change(|tables| {
            let full = self.0.full(tables, uid);
            if let Some(full) = full {
                tables.refusals += 1;
                return Err(full);
            }
            let ahead = (tables.taken() + 1).saturating_sub(self.0.jobs) as u32;
            let id = tables.reserve(uid);
            Ok(Place { ahead, id, since: Instant::now(), shared: Arc::clone(&self.0) })
        })
    }

    /// Reservations that nothing comes of are not to hold up the daemon's end.
    pub(super) fn close(&self) {
        self.0.change(|tables| tables.closing = true);
    }

    /// Waits until no place is taken.
    pub(super) async fn idle(&self) {
        self.0.until(|tables| tables.taken() == 0).await;
    }
}

impl Shared {
    fn full(&self, tables: &Tables, uid: u32) -> Option<Full> {
        if uid == ROOT {
            return (tables.taken_by(ROOT) >= self.limit).then_some(Full::All);
        }
        let left = self.limit.saturating_sub(tables.taken());
        let held = tables.not_running(uid);
        match left {
            0 => Some(Full::All),
            _ if may_take(held, 1, left) => None,
            _ => Some(Full::Share { held }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        let mut tables = self.lock();
        let result = change(&mut tables);
        tables.give_turns(self.jobs);
        drop(tables);
        self.changed.send_replace(());
        result
    }

    /// Waits until `done` says so; it is asked at least whenever something has changed.
    async fn until(&self, mut done: impl FnMut(&mut Tables) -> bool) {
        // Before the first look, so that no change is missed.
        let mut changed = self.changed.subscribe();
        loop {
            if done(&mut self.lock()) {
                return;
            }
            // Can't fail: the sender is ours.
            let _ = changed.changed().await;
        }
    }
}

impl Place {
    /// Asks for its turn: its build is known. Returns how many turns come before it; 0: it has its turn.
    pub(super) fn ask(&mut self) -> u32 {
        self.shared.change(|tables| tables.ask(self.id));
        self.shared.lock().ahead(self.id) as u32
    }

    /// Waits for the turn that was asked for. It lasts until the place is dropped.
    pub(super) async fn turn(&mut self) {
        let id = self.id;
        self.shared.until(|tables| tables.runs(id)).await;
    }

    /// Returns when nothing has come of the reservation for too long and the place is needed.
    pub(super) async fn lapsed(&self) {
        sleep_until(self.since + RESERVED_FOR).await;
        let before = self.shared.lock().refusals;
        self.shared.until(|tables| tables.closing || tables.refusals > before).await;
    }

    /// For whoever has to be told what the build says.
    pub(super) fn patience(&self) -> Patience {
        Patience { id: self.id, shared: Arc::clone(&self.shared) }
    }
}

impl Patience {
    /// Returns when the front end has taken nothing for too long and another build waits for the turn that this one has. One
    /// build that waits ends one that is not read. `taken`: when it has last taken something.
    pub(super) async fn ends(&self, mut taken: impl FnMut() -> Instant) {
        loop {
            sleep_until(taken() + UNREAD_FOR).await;
            self.shared.until(|tables| tables.is_needed(self.id)).await;
            // Others may have waited for a long time, in which it could have gone on.
            if taken() + UNREAD_FOR <= Instant::now() && self.shared.change(|tables| tables.yields(self.id)) {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.change(|tables| tables.give_up(self.id));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    async fn has_turn(place: &mut Place) -> bool {
        timeout(SOON, place.turn()).await.is_ok()
    }

    fn asking(places: &Places, uid: u32) -> Place {
        let mut place = places.reserve(uid).unwrap();
        place.ask();
        place
    }

    #[tokio::test(start_paused = true)]
    async fn turns_go_by_order_of_reservation_and_no_more_places_than_allowed_are_given() {
        let places = Places::new(1, 2);
        let mut first = places.reserve(0).unwrap();
        let mut second = places.reserve(0).unwrap();
        let mut third = places.reserve(0).unwrap();
        assert_eq!([first.ahead, second.ahead, third.ahead], [0, 1, 2]);
        assert_eq!(places.reserve(0).unwrap_err(), Full::All);
        assert_eq!(first.ask(), 0);
        // The third asks first, and has reserved later.
        assert_eq!([third.ask(), second.ask(), third.ask()], [1, 1, 2]);
        assert!(has_turn(&mut first).await && !has_turn(&mut third).await && !has_turn(&mut second).await);
        drop(first);
        assert!(has_turn(&mut second).await && !has_turn(&mut third).await);
        drop(second);
        assert!(has_turn(&mut third).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_given_up_while_it_waits_is_free_again() {
        let places = Places::new(1, 0);
        let first = places.reserve(0).unwrap();
        assert!(places.reserve(0).is_err());
        drop(first);
        let mut second = asking(&places, 0);
        assert!(has_turn(&mut second).await);
        drop(second);
        timeout(SOON, places.idle()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn turns_go_round_the_uids_that_wait() {
        let places = Places::new(1, 99);
        let mut running = asking(&places, 1);
        let mut waiting: Vec<(u32, Place)> =
            [1, 1, 1, 1, 2, 2, 0].map(|uid| (uid, asking(&places, uid))).into();
        let ahead: Vec<u32> = waiting.iter_mut().map(|(_, place)| place.ask()).collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(running);
            let mut next = None;
            for (index, (_, place)) in waiting.iter_mut().enumerate() {
                if has_turn(place).await {
                    assert!(next.replace(index).is_none(), "two at once");
                }
            }
            let (uid, place) = waiting.remove(next.unwrap());
            order.push(uid);
            running = place;
        }
        assert_eq!(order, [2, 0, 1, 2, 1, 1, 1]);
        assert_eq!(ahead, [3, 5, 6, 7, 1, 4, 2], "as many turns as were foretold");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_back_after_each_build_gets_no_more_turns_than_those_who_wait() {
        let places = Places::new(1, 99);
        let mut running = asking(&places, 1);
        let queued = [2, 2, 2, 3, 3, 3].map(|uid| (uid, asking(&places, uid)));
        let mut waiting: Vec<(u32, Place)> = queued.into();
        let mut order = Vec::new();
        while order.len() < 9 {
            if waiting.iter().all(|(uid, _)| *uid != 1) {
                waiting.push((1, asking(&places, 1)));
            }
            drop(running);
            let index = waiting.iter().position(|(_, place)| places.0.lock().runs(place.id)).unwrap();
            let (uid, place) = waiting.remove(index);
            order.push(uid);
            running = place;
        }
        assert_eq!(order, [2, 3, 1, 2, 3, 1, 2, 3, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn reservations_that_nothing_comes_of_hold_up_no_build() {
        let places = Places::new(2, 6);
        let _silent = [places.reserve(1).unwrap(), places.reserve(1).unwrap(), places.reserve(2).unwrap()];
        let mut first = asking(&places, 3);
        let mut second = asking(&places, 3);
        assert!(has_turn(&mut first).await && has_turn(&mut second).await);
    }

    #[tokio::test(start_paused = true)]
    async fn no_uid_reserves_everything_and_root_always_finds_a_place() {
        let places = Places::new(1, 7);
        let reserve_all = |uid| std::iter::from_fn(|| places.reserve(uid).ok()).collect::<Vec<_>>();
        let hoards: Vec<_> = (1..=4).map(reserve_all).collect();
        assert_eq!(hoards.iter().map(Vec::len).collect::<Vec<_>>(), [4, 2, 1, 1]);
        assert_eq!(places.reserve(1).unwrap_err(), Full::All);
        let of_root = reserve_all(0);
        assert_eq!(of_root.len(), 8);
        drop(hoards);
        assert_eq!(places.reserve(1).unwrap_err(), Full::All, "all of root's are in use");
        drop(of_root);
        let _held = [places.reserve(1).unwrap(), places.reserve(1).unwrap(), places.reserve(1).unwrap()];
        let fourth = places.reserve(1).unwrap();
        assert_eq!(places.reserve(1).unwrap_err(), Full::Share { held: 4 });
        drop(fourth);
        assert!(places.reserve(1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_not_counted_as_a_share_of_what_waits() {
        let places = Places::new(4, 0);
        let running: Vec<_> = (0..4).map(|_| asking(&places, 1)).collect();
        assert_eq!(running.len(), 4);
        assert_eq!(places.reserve(1).unwrap_err(), Full::All);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reservation_is_kept_for_its_time_and_then_until_somebody_needs_it() {
        let places = Places::new(1, 0);
        let place = places.reserve(1).unwrap();
        let lapses = |within| timeout(within, place.lapsed());
        assert!(places.reserve(2).is_err());
        assert!(
            lapses(RESERVED_FOR + SOON).await.is_err(),
            "whoever was refused before its time comes again"
        );
        assert!(lapses(RESERVED_FOR * 100).await.is_err(), "nobody needs it");
        let needing = async {
            tokio::time::sleep(SOON / 2).await;
            assert!(places.reserve(2).is_err());
        };
        assert!(tokio::join!(lapses(SOON), needing).0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reservation_does_not_hold_up_the_daemons_end() {
        let places = Places::new(1, 0);
        let place = places.reserve(1).unwrap();
        places.close();
        assert!(timeout(RESERVED_FOR - SOON, place.lapsed()).await.is_err());
        assert!(timeout(SOON * 2, place.lapsed()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_build_that_waits_ends_one_that_is_not_read() {
        let places = Places::new(2, 9);
        let [mut first, second] = [asking(&places, 1), asking(&places, 1)];
        let since = Instant::now();
        let (one, other) = (first.patience(), second.patience());
        let ends = |patience: &Patience, within| {
            let patience = patience.clone();
            async move { timeout(within, patience.ends(|| since)).await.is_ok() }
        };
        assert!(!ends(&one, UNREAD_FOR * 100).await, "it harms nobody");
        let _reserved = places.reserve(2).unwrap();
        assert!(!ends(&one, SOON).await, "nobody waits for a turn yet");
        let mut waiting = asking(&places, 2);
        assert!(ends(&one, SOON).await);
        assert!(!ends(&other, SOON).await, "the turn of the first is enough");
        assert!(has_turn(&mut first).await && !has_turn(&mut waiting).await, "it ends in its own time");
        drop(first);
        assert!(has_turn(&mut waiting).await);
        assert!(!ends(&other, SOON).await);
        let _third = asking(&places, 3);
        assert!(ends(&other, SOON).await);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_again_before_another_build_waits_has_its_time_again() {
        let places = Places::new(1, 9);
        let first = asking(&places, 1);
        let taken = std::cell::Cell::new(Instant::now());
        let patience = first.patience();
        let ends = patience.ends(|| taken.get());
        tokio::pin!(ends);
        assert!(timeout(UNREAD_FOR * 9, &mut ends).await.is_err());
        taken.set(Instant::now());
        let _waiting = asking(&places, 2);
        assert!(timeout(UNREAD_FOR - SOON, &mut ends).await.is_err());
        assert!(timeout(SOON * 2, &mut ends).await.is_ok());
    }
}
