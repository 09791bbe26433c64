//! A slot's uid is the slot's alone: it comes back late, and nobody has it when it does or when the slot has ended.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use host_agent::slot::uids::NOT_THE_DAEMONS;

use crate::attack::{Attacker, Outside, ROUNDS, skipped};
use crate::harness::{Daemon, UIDS};

/// In every way in which a process can have it.
const WAYS: [&str; 9] =
    ["all", "real", "effective", "saved", "file-system", "group", "further-group", "thread", "hopping"];

/// The one that is given out after this one.
fn next(daemon: &Daemon, uid: u32) -> u32 {
    daemon.uid_base + (uid - daemon.uid_base + 1) % (UIDS - NOT_THE_DAEMONS)
}

/// Builds something, and the uid that did it.
fn build(attacker: &Attacker<'_>) -> u32 {
    let told = attacker.run("id -u; echo > $out");
    assert!(told.is_built(), "{:?}", told.done.report);
    told.log().lines().find_map(|line| line.parse().ok()).unwrap()
}

fn start(way: &str, uid: u32) -> Outside {
    Outside::start(0, &["hold", way, &uid.to_string()], "holds")
}

/// Processes on the machine that have it in some way.
pub fn holders(uid: u32) -> Vec<String> {
    let uid = uid.to_string();
    let status = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |pid: &String| {
        let status = status(pid);
        let ids = status
            .lines()
            .filter(|line| ["Uid:", "Gid:", "Groups:"].iter().any(|name| line.starts_with(name)));
        !status.contains("State:\tZ") && ids.flat_map(str::split_ascii_whitespace).any(|id| id == uid)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(has).collect()
}

/// Also of one that is another process every moment.
fn nobody_has(uid: u32) -> bool {
    (0..20).all(|_| holders(uid).is_empty())
}

#[test]
fn uids_come_back_only_when_all_others_have_had_their_turn() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let attacker = Attacker::new(&daemon);
    let uids: Vec<u32> = (0..ROUNDS).map(|_| build(&attacker)).collect();
    assert_eq!(uids.iter().collect::<BTreeSet<_>>().len(), ROUNDS, "{uids:?}");
    assert!(uids.windows(2).all(|pair| pair[1] == next(&daemon, pair[0])), "{uids:?}");
}

#[test]
fn whoever_has_a_uid_is_killed_before_a_slot_gets_it() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let attacker = Attacker::new(&daemon);
    let mut uid = build(&attacker);
    for way in WAYS {
        uid = next(&daemon, uid);
        let mut holder = start(way, uid);
        assert_eq!(build(&attacker), uid, "{way}");
        assert!(way == "hopping" || holder.was_killed(), "{way}");
        assert!(nobody_has(uid), "{way}");
    }
}

#[test]
fn whoever_has_a_uid_is_killed_when_its_slot_ends() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let attacker = Attacker::new(&daemon);
    for way in WAYS {
        let request =
            attacker.request("id -u; echo told; while [ ! -e /build/go ]; do sleep 0.02; done; echo > $out");
        let running = attacker.run_until(&request, "told");
        let uid = running.log().lines().find_map(|line| line.parse().ok()).unwrap();
        let mut holder = start(way, uid);
        let slots = std::fs::read_dir(daemon.state().join("slots")).unwrap().flatten();
        let builds: Vec<_> = slots
            .map(|slot| slot.path().join("build"))
            .filter(|build| build.metadata().is_ok_and(|build| build.uid() == uid))
            .collect();
        std::fs::write(builds[0].join("go"), "").unwrap();
        let told = running.finish();
        assert!(told.is_built(), "{way}: {:?}", told.done.report);
        assert!(way == "hopping" || holder.was_killed(), "{way}");
        assert!(nobody_has(uid), "{way}");
    }
}

#[test]
fn a_daemon_that_starts_kills_whoever_has_a_uid_of_its_slots() {
    if skipped() {
        return;
    }
    let mut daemon = Daemon::start("");
    let mut holders = ["saved", "further-group"].map(|way| start(way, daemon.uid_base + 7));
    let mut not_the_daemons = start("all", daemon.uid_base + UIDS - NOT_THE_DAEMONS);
    daemon.restart();
    assert!(holders.iter_mut().all(Outside::was_killed));
    assert!(not_the_daemons.child.try_wait().unwrap().is_none());
}

#[test]
fn a_process_left_with_a_uid_changes_no_later_build_of_that_uid() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\nmax-jobs = 1");
    let attacker = Attacker::new(&daemon);
    let mut uid = build(&attacker);
    for round in 0..ROUNDS {
        uid = next(&daemon, uid);
        let words = ["hold", "leftover", &uid.to_string(), "-out"];
        let mut leftover = Outside::start(0, &words, "holds");
        let told = attacker.run("id -u; echo honest > $out; sleep 0.2");
        assert_eq!(told.log().trim(), uid.to_string(), "round {round}");
        assert_eq!(std::fs::read_to_string(told.output()).unwrap(), "honest\n", "round {round}");
        assert!(leftover.was_killed(), "round {round}");
        assert_eq!(std::fs::read_to_string(told.output()).unwrap(), "honest\n", "round {round}");
    }
}
