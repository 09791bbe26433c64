//! Deadlines of a conversation, with a clock that runs ahead whenever nobody does anything.

use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::config::{Config, GuestKind};
use crate::control::message::REQUESTS_MAX;
use crate::daemon::door::Door;
use crate::daemon::places::Places;
use crate::daemon::pool::Pool;
use crate::daemon::registry::Registry;
use crate::daemon::shares::Shares;
use crate::guest::GuestPlan;
use crate::slot::directory::StateDirectory;
use crate::slot::uids::Uids;

const MINUTE: Duration = Duration::from_secs(60);

/// A daemon with one job and two places that boots no slots.
fn daemon() -> (tempfile::TempDir, Arc<Daemon>) {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        guest: GuestKind::Linux,
        agent: Some("/proc/self/exe".into()),
        max_jobs: std::num::NonZeroU32::new(1),
        queue_limit: 1,
        state_directory: directory.path().join("state"),
        ..Config::default()
    };
    let state = Arc::new(StateDirectory::open(&config.state_directory).unwrap());
    let registry = Arc::new(Registry::new());
    let guest = GuestPlan::new(&config).unwrap();
    let daemon = Daemon {
        // None is ever taken: several of these daemons are there at once.
        pool: Pool::new(
            config.clone(),
            Arc::clone(&state),
            guest,
            Uids::of_others(&config),
            Arc::clone(&registry),
        ),
        door: Door::new(&config, 1024),
        places: Places::new(1, 1),
        requests: Shares::new(REQUESTS_MAX, REQUESTS_MAX),
        config,
        state,
        registry,
        status_turn: tokio::sync::Mutex::default(),
        ssh: None,
        mode: tokio::sync::watch::channel(Mode::Running).0,
    };
    (directory, Arc::new(daemon))
}

/// The other end of a conversation.
struct Talker {
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    served: JoinHandle<()>,
}

impl Talker {
    fn new(daemon: &Arc<Daemon>, uid: u32) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let daemon = Arc::clone(daemon);
        let served = tokio::spawn(async move { serve(&daemon, theirs, Peer { uid, gid: uid }).await });
        let (reader, writer) = ours.into_split();
        Self { reader: FrameReader::new(reader), writer, served }
    }

    async fn greeted(daemon: &Arc<Daemon>, uid: u32) -> Self {
        let mut talker = Self::new(daemon, uid);
        let front_end = FrontEndName::parse("test").unwrap();
        talker.say(&ToDaemon::Hello { version: CONTROL_VERSION, front_end }).await;
        assert!(matches!(talker.hear().await, Some(FromDaemon::Hello { .. })));
        talker
    }

    async fn with_place(daemon: &Arc<Daemon>, uid: u32) -> Self {
        let mut talker = Self::greeted(daemon, uid).await;
        talker.say(&ToDaemon::Reserve).await;
        assert!(matches!(talker.hear().await, Some(FromDaemon::Reserved { .. })));
        talker
    }

    async fn say(&mut self, message: &ToDaemon) {
        send(&mut self.writer, message).await.unwrap();
    }

    async fn hear(&mut self) -> Option<FromDaemon> {
        self.reader.next().await.unwrap()
    }

    /// Waits for the end of the conversation; what was said last, and after which time.
    async fn refused(mut self) -> (String, Duration) {
        let since = Instant::now();
        let Some(FromDaemon::Refused(reason)) = self.hear().await else { panic!() };
        // What was said and not read any more makes the end a reset.
        match self.reader.next::<FromDaemon>().await {
            Ok(None) => {}
            Err(error) if is_gone(&error) => {}
            said => panic!("{said:?}"),
        }
        self.served.await.unwrap();
        (reason, since.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_say_who_it_is_is_soon_let_go() {
    let (_directory, daemon) = daemon();
    for uid in [0, 1234] {
        let (reason, after) = Talker::new(&daemon, uid).refused().await;
        assert_eq!(reason, "no greeting came within 5s");
        assert_eq!(after, GREETING_LIMIT);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_place_may_not_be_silent_for_long() {
    let (_directory, daemon) = daemon();
    let mut talker = Talker::greeted(&daemon, 0).await;
    // Whoever asks now and then is not silent.
    for _ in 0..3 {
        tokio::time::sleep(SILENCE_LIMIT / 2).await;
        talker.say(&ToDaemon::Status).await;
        assert!(matches!(talker.hear().await, Some(FromDaemon::Status(_))));
    }
    let (reason, after) = talker.refused().await;
    assert_eq!(reason, "nothing was said for 60s");
    assert_eq!(after, SILENCE_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_begun_must_end() {
    let (_directory, daemon) = daemon();
    for mut talker in [Talker::greeted(&daemon, 0).await, Talker::with_place(&daemon, 0).await] {
        talker.writer.write_all(b"\x04\0").await.unwrap();
        let (reason, after) = talker.refused().await;
        assert_eq!(reason, "malformed frame: the rest of it did not come within 10s");
        assert_eq!(after, MESSAGE_LIMIT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_answers_is_let_go() {
    let (_directory, daemon) = daemon();
    let mut talker = Talker::greeted(&daemon, 0).await;
    // Until no more fits into either direction.
    while tokio::time::timeout(ANSWER_LIMIT / 2, send(&mut talker.writer, &ToDaemon::Status)).await.is_ok() {}
    tokio::time::timeout(ANSWER_LIMIT, talker.served).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reservation_lapses_when_its_time_is_over_and_somebody_needs_it() {
    let (_directory, daemon) = daemon();
    let first = Talker::with_place(&daemon, 1).await;
    let mut others = Talker::greeted(&daemon, 2).await;
    let _second = Talker::with_place(&daemon, 3).await;
    let shown = daemon.registry.builds();
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(|build| build.phase == "reserved" && build.derivation.is_none()), "{shown:?}");
    let since = Instant::now();
    let lapsed = tokio::spawn(first.refused());
    let mut asked = 0;
    let taken = loop {
        tokio::time::sleep(MINUTE / 2).await;
        asked += 1;
        others.say(&ToDaemon::Reserve).await;
        match others.hear().await {
            Some(FromDaemon::Full(_)) => {}
            said => break said,
        }
    };
    assert!(matches!(taken, Some(FromDaemon::Reserved { .. })), "{taken:?}");
    assert!(
        since.elapsed() > RESERVED_FOR && since.elapsed() <= RESERVED_FOR + MINUTE,
        "asked {asked} times"
    );
    let (reason, _) = lapsed.await.unwrap();
    assert!(reason.contains("reserved for 5 minutes"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_nobody_needs_stays() {
    let (_directory, daemon) = daemon();
    let talker = Talker::with_place(&daemon, 1).await;
    tokio::time::sleep(RESERVED_FOR * 100).await;
    assert!(!talker.served.is_finished());
    daemon.mode.send_replace(Mode::Stopping);
    assert_eq!(talker.refused().await.0, "the daemon was stopped");
}

#[tokio::test(start_paused = true)]
async fn a_place_comes_before_everything_that_needs_one_and_one_is_enough() {
    let (_directory, daemon) = daemon();
    let part = ToDaemon::RequestPart(vec![0; 100].into());
    for message in [&part, &ToDaemon::RequestEnd] {
        let mut talker = Talker::greeted(&daemon, 0).await;
        talker.say(message).await;
        assert_eq!(talker.refused().await.0, "a place must be reserved first");
    }
    let mut talker = Talker::greeted(&daemon, 0).await;
    let _ = send(&mut talker.writer, &ToDaemon::RequestPart(vec![0; REQUEST_PART].into())).await;
    assert!(talker.refused().await.0.contains("where 1024 are the most"));
    let mut talker = Talker::with_place(&daemon, 0).await;
    talker.say(&ToDaemon::Reserve).await;
    assert_eq!(talker.refused().await.0, "one place is enough for one connection");
}

#[tokio::test(start_paused = true)]
async fn requests_of_all_uids_but_root_share_their_memory() {
    let (_directory, daemon) = daemon();
    let part = ToDaemon::RequestPart(vec![0; REQUEST_PART].into());
    let share = REQUESTS_MAX / 2 / REQUEST_PART;
    let mut first = Talker::with_place(&daemon, 1).await;
    for _ in 0..share {
        first.say(&part).await;
    }
    first.say(&part).await;
    assert!(first.refused().await.0.contains("too large"));
    // Given back with the connection.
    let mut again = Talker::with_place(&daemon, 1).await;
    for _ in 0..share {
        again.say(&part).await;
    }
    again.say(&ToDaemon::Status).await;
    assert!(matches!(again.hear().await, Some(FromDaemon::Status(_))));
    drop(again);
    let mut root = Talker::with_place(&daemon, 0).await;
    for _ in 0..share + 1 {
        root.say(&part).await;
    }
    root.say(&ToDaemon::Status).await;
    assert!(matches!(root.hear().await, Some(FromDaemon::Status(_))));
}
