//! Who may ask: root, members of Nix's build group, and uids named in the configuration.
//!
//! Root, named uids, and whoever has the build group as its group (as Nix's build users have) are judged at once. Whether
//! somebody else is a member is in the system's databases, and asking those (getgrouplist(3)) may wait for a network for
//! as long as it likes. So it is done on threads that may block, few at once and never two for one uid, and the answer is
//! kept for some seconds.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::sync::{Semaphore, watch};

use super::peer::Peer;
use crate::config::Config;

/// How long an answer counts.
const ANSWER_FOR: Duration = Duration::from_secs(10);

/// How long the build group's number counts. Every answer brings it along, so it is only ever this old where nobody asks.
const GROUP_FOR: Duration = Duration::from_secs(60);

/// Threads that ask at once. More than one, so that a uid whose answer does not come keeps no other waiting.
const ASKING_MAX: usize = 4;

/// Answers that are kept.
const ANSWERS_MAX: usize = 1024;

/// Asks the system's databases; blocking.
type Databases = dyn Fn(&str, u32) -> Membership + Send + Sync;

/// What they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership {
    /// Number of the build group, if there is one.
    group: Option<u32>,
    /// Whether the uid is a member of it.
    member: bool,
}

/// Judges peers.
pub(super) struct Admission {
    allowed_uids: Vec<u32>,
    build_group: String,
    databases: Box<Databases>,
    threads: Arc<Semaphore>,
    tables: Mutex<Tables>,
    /// There is another answer, or an end of asking.
    answered: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Tables {
    group: Option<(u32, Instant)>,
    answers: HashMap<u32, (bool, Instant)>,
    asked: HashSet<u32>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("tables", &self.tables).finish_non_exhaustive()
    }
}

impl Admission {
    pub(super) fn new(config: &Config) -> Self {
        Self::with(config, Box::new(membership))
    }

    fn with(config: &Config, databases: Box<Databases>) -> Self {
        let (answered, _) = watch::channel(());
        Self {
            allowed_uids: config.allowed_uids.clone(),
            build_group: config.build_group.clone(),
            databases,
            threads: Arc::new(Semaphore::new(ASKING_MAX)),
            tables: Mutex::default(),
            answered,
        }
    }

    /// Whether `peer` may ask, and the reason if not; `None` if that has to be [looked up](Self::look_up). Does not wait.
    pub(super) fn known(&self, peer: Peer) -> Option<Result<(), String>> {
        if peer.is_root() || self.allowed_uids.contains(&peer.uid) {
            return Some(Ok(()));
        }
        let tables = self.tables();
        if tables.group.is_some_and(|(group, at)| group == peer.gid && at.elapsed() < GROUP_FOR) {
            return Some(Ok(()));
        }
        let (member, _) = tables.answers.get(&peer.uid).filter(|(_, at)| at.elapsed() < ANSWER_FOR)?;
        Some(if *member { Ok(()) } else { Err(self.refusal(peer)) })
    }

    /// As [`known`](Self::known), for as long as it takes.
    pub(super) async fn look_up(self: &Arc<Self>, peer: Peer) -> Result<(), String> {
        loop {
            // Before the first look, so that no answer is missed.
            let mut answered = self.answered.subscribe();
            if let Some(verdict) = self.known(peer) {
                return verdict;
            }
            if !self.tables().asked.contains(&peer.uid) {
                let Ok(permit) = Arc::clone(&self.threads).acquire_owned().await else { continue };
                if self.known(peer).is_some() || !self.tables().asked.insert(peer.uid) {
                    continue;
                }
                let asking = Asking { admission: Arc::clone(self), uid: peer.uid };
                // Whoever waits for it may go: it ends when it can, and until then has one of the threads.
                tokio::task::spawn_blocking(move || {
                    asking.ask();
                    drop((asking, permit));
                });
            }
            let _ = answered.changed().await;
        }
    }

    fn refusal(&self, peer: Peer) -> String {
        format!(
            "uid {} is neither root nor a member of the group '{}'; add it to `allowed-uids` in the daemon's configuration \
             if it may build",
            peer.uid, self.build_group
        )
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A uid that is asked about, until this is dropped.
struct Asking {
    admission: Arc<Admission>,
    uid: u32,
}

impl Asking {
    fn ask(&self) {
        let Membership { group, member } = (self.admission.databases)(&self.admission.build_group, self.uid);
        let now = Instant::now();
        let mut tables = self.admission.tables();
        tables.group = group.map(|group| (group, now));
        if tables.answers.len() >= ANSWERS_MAX {
            tables.answers.retain(|_, (_, at)| at.elapsed() < ANSWER_FOR);
        }
        if tables.answers.len() >= ANSWERS_MAX {
            tables.answers.clear();
        }
        tables.answers.insert(self.uid, (member, now));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.admission.tables().asked.remove(&self.uid);
        self.admission.answered.send_replace(());
    }
}

fn membership(build_group: &str, uid: u32) -> Membership {
    let Some(group) = Group::from_name(build_group).ok().flatten() else {
        return Membership { group: None, member: false };
    };
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    // The group's own list first: where it is enough, no other database is asked.
    let member =
        user.is_some_and(|user| group.mem.contains(&user.name) || groups_of(user).contains(&group.gid));
    Membership { group: Some(group.gid.as_raw()), member }
}

fn groups_of(user: User) -> Vec<Gid> {
    let primary = user.gid;
    let groups = CString::new(user.name).ok().and_then(|name| getgrouplist(&name, primary).ok());
    groups.unwrap_or_else(|| vec![primary])
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LIMIT: Duration = Duration::from_secs(10);

    fn config() -> Config {
        Config { allowed_uids: vec![1234], build_group: "no-such-group-at-all".into(), ..Config::default() }
    }

    fn peer(uid: u32) -> Peer {
        Peer { uid, gid: 99 }
    }

    #[tokio::test]
    async fn root_and_named_uids_are_admitted_and_others_refused_with_what_to_do() {
        let admission = Arc::new(Admission::new(&config()));
        assert_eq!(admission.known(peer(0)), Some(Ok(())));
        assert_eq!(admission.known(peer(1234)), Some(Ok(())));
        assert_eq!(admission.known(peer(65534)), None);
        let refusal = admission.look_up(peer(65534)).await.unwrap_err();
        insta::assert_snapshot!(
            refusal,
            @"uid 65534 is neither root nor a member of the group 'no-such-group-at-all'; add it to `allowed-uids` in the daemon's configuration if it may build"
        );
        assert_eq!(admission.known(peer(65534)), Some(Err(refusal)), "the answer is kept");
    }

    #[tokio::test]
    async fn members_of_the_group_and_whoever_has_it_as_its_group_are_admitted() {
        let databases = |_: &str, uid| Membership { group: Some(30000), member: uid == 7 };
        let admission = Arc::new(Admission::with(&config(), Box::new(databases)));
        assert_eq!(admission.look_up(peer(7)).await, Ok(()));
        assert!(admission.look_up(peer(8)).await.is_err());
        // Known since then, of any uid.
        assert_eq!(admission.known(Peer { uid: 9, gid: 30000 }), Some(Ok(())));
        assert_eq!(admission.known(Peer { uid: 8, gid: 30000 }), Some(Ok(())));
    }

    #[test]
    fn membership_is_what_the_system_says() {
        let Some(group) = Group::from_gid(Gid::from_raw(0)).unwrap() else { return };
        assert_eq!(membership(&group.name, 0), Membership { group: Some(0), member: true });
        assert_eq!(membership(&group.name, 4_000_000), Membership { group: Some(0), member: false });
        assert_eq!(membership("no-such-group-at-all", 0), Membership { group: None, member: false });
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_holds_up_nobody_else_and_takes_one_thread_a_uid() {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Mutex::new(blocked);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let databases = move |_: &str, uid| {
            counted.fetch_add(1, Ordering::SeqCst);
            if uid == 13 {
                let _ = blocked.lock().unwrap().recv();
            }
            Membership { group: None, member: uid < 100 }
        };
        let admission = Arc::new(Admission::with(&config(), Box::new(databases)));
        for _ in 0..ASKING_MAX * 3 {
            assert!(timeout(SOON, admission.look_up(peer(13))).await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(timeout(LIMIT, admission.look_up(peer(14))).await.unwrap(), Ok(()));
        assert!(timeout(LIMIT, admission.look_up(peer(114))).await.unwrap().is_err());
        let waiting = admission.look_up(peer(13));
        release.send(()).unwrap();
        assert_eq!(timeout(LIMIT, waiting).await.unwrap(), Ok(()));
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn no_more_threads_ask_than_may_whoever_gives_up_waiting() {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Mutex::new(blocked);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let databases = move |_: &str, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = blocked.lock().unwrap().recv();
            Membership { group: None, member: true }
        };
        let admission = Arc::new(Admission::with(&config(), Box::new(databases)));
        for uid in 1..=20 {
            assert!(timeout(SOON, admission.look_up(peer(uid))).await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), ASKING_MAX);
        drop(release);
        assert_eq!(timeout(LIMIT, admission.look_up(peer(21))).await.unwrap(), Ok(()));
    }
}
