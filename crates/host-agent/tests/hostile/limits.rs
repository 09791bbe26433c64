//! A builder takes what a slot has, and not what the machine has.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::attack::{Attacker, Told, mounts, skipped};
use crate::harness::{Daemon, darling};

/// How many were taken, and what ended that.
fn taken(came: &str) -> (u64, &str) {
    let (count, error) = came.split_once(':').unwrap_or_else(|| panic!("{came}"));
    (count.parse().unwrap(), error)
}

fn is_limited(told: &Told, what: &str, error: &str, most: u64) {
    let (count, ended) = taken(told.came_of(what));
    assert_eq!(ended, error, "{what}: {count}: {}", told.log());
    assert!(count <= most && count >= most / 2, "{what}: {count}, {most} at most: {}", told.log());
}

#[test]
fn processes_of_a_slot_have_a_limit_and_neither_host_nor_other_slots_feel_it() {
    if skipped() {
        return;
    }
    for (extra, attack) in
        [("", "processes"), ("allow-user-namespaces = true\n", "processes-in-user-namespace")]
    {
        let daemon =
            Daemon::start(&format!("warm-slots = 0\nmax-jobs = 2\n{extra}[limits]\nprocesses = 200"));
        let attacker = Attacker::new(&daemon);
        let running = attacker
            .run_until(&attacker.request(&format!("$attacker limits {attack}")), "attempt processes ");
        let came = running.came_of("processes");
        let (count, error) = taken(&came);
        assert!(error == "EAGAIN" && (150..200).contains(&count), "{count} {error}");
        let all = daemon.slot_processes().len();
        assert!((150..=200).contains(&all), "{all}");
        // Another slot begins and ends while this one has all that it can have.
        let started = Instant::now();
        let other = attacker.run("for i in 1 2 3 4 5; do (sleep 0.01) & done; wait; echo > $out");
        assert!(other.is_built(), "{:?}", other.done.report);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(Command::new("true").status().unwrap().success());
        drop(running);
        daemon.eventually(Duration::from_secs(10), "all of them dead", || daemon.slot_processes().is_empty());
    }
}

#[test]
fn threads_count_as_processes() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0\n[limits]\nprocesses = 200");
    let told = Attacker::new(&daemon).run("$attacker limits threads; echo > $out");
    is_limited(&told, "threads", "EAGAIN", 200);
}

#[test]
fn terminals_files_and_memory_that_is_no_processs_have_limits() {
    if skipped() {
        return;
    }
    const BYTES: u64 = 32 << 20;
    let daemon = Daemon::start(&format!("warm-slots = 0\n[limits]\ntmpfs-bytes = {BYTES}"));
    let prefix = if darling() { "$attacker limits files /var/d/p/private/tmp;" } else { "" };
    let script = format!(
        "for what in terminals 'files /tmp' 'files /dev/shm' shared-memory semaphores messages; do \
         $attacker limits $what; done; {prefix} echo > $out"
    );
    let told = Attacker::new(&daemon).run(&script);
    is_limited(&told, "terminals", "ENOSPC", 256);
    is_limited(&told, "files-in-/tmp", "ENOSPC", BYTES / 4096);
    is_limited(&told, "files-in-/dev/shm", "ENOSPC", (64 << 20) / 4096);
    is_limited(&told, "shared-memory", "ENOSPC", BYTES >> 20);
    // As many as macOS has: a thousand at a time, and queues.
    is_limited(&told, "semaphores", "ENOSPC", 87);
    is_limited(&told, "messages", "ENOSPC", 40);
    if darling() {
        is_limited(&told, "files-in-/var/d/p/private/tmp", "ENOSPC", BYTES / 4096);
    }
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
}

#[test]
fn every_tmpfs_of_a_slot_says_how_many_files_it_holds() {
    if skipped() {
        return;
    }
    const BYTES: u64 = 32 << 20;
    let daemon = Daemon::start(&format!("warm-slots = 0\n[limits]\ntmpfs-bytes = {BYTES}"));
    let told = Attacker::new(&daemon).run("$attacker inputs mounts; echo > $out");
    let all = mounts(&told.log());
    let tmpfs: Vec<_> = all.iter().filter(|mount| mount.kind == "tmpfs").collect();
    assert!(tmpfs.len() >= 4, "{all:?}");
    for mount in tmpfs {
        let files = mount.of_file_system.split(',').find_map(|option| option.strip_prefix("nr_inodes="));
        let files = files.and_then(parse_size).unwrap_or(u64::MAX);
        assert!(files <= (64 << 20) / 4096, "{mount:?}");
    }
}

/// As tmpfs(5) shows it: with `k` for 1024 where that divides it.
fn parse_size(text: &str) -> Option<u64> {
    match text.strip_suffix('k') {
        Some(text) => Some(text.parse::<u64>().ok()? << 10),
        None => text.parse().ok(),
    }
}

#[test]
fn a_builder_makes_no_tmpfs_of_its_own() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    let told = Attacker::new(&daemon).run("$attacker limits tmpfs; echo > $out");
    for (what, error) in [
        ("mount", "EPERM"),
        ("unshared", "exit-1"),
        ("clone", "EPERM"),
        ("clone3", "ENOSYS"),
        ("fsopen", "EPERM"),
    ] {
        assert_eq!(told.came_of(what), error, "{what}: {}", told.log());
    }
}
