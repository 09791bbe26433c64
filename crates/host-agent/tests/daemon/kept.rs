//! Build directories of failed builds that are kept for whoever asked.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use host_agent::request::{BuildOutcome, BuildRequest};
use protocol::message::Exit;

use crate::harness::{Daemon, LIMIT, finish, skipped};

/// Somebody who may ask, and somebody else.
const USER: u32 = 31011;
const OTHER: u32 = 31012;

fn daemon() -> Daemon {
    let daemon = Daemon::start(&format!("allowed-uids = [{USER}]"));
    fs::set_permissions(daemon.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    daemon
}

fn failing(daemon: &Daemon, script: &str) -> BuildRequest {
    let mut request = daemon.request(&format!("{script}; exit 1"));
    request.keep_failed = true;
    request
}

/// Where it is.
fn kept(daemon: &Daemon, uid: u32, script: &str) -> PathBuf {
    let done = finish(daemon.submit_as(uid, &failing(daemon, script)));
    assert_eq!(done.report.outcome, BuildOutcome::BuilderFailed(Exit::Code(1)), "{:?}", done.report);
    done.report.kept.unwrap().as_path().to_owned()
}

fn can(uid: u32, program: &str, argument: &Path) -> bool {
    let mut command = Command::new(program);
    if program == "rm" {
        command.arg("-r");
    }
    let status = command.arg(argument).uid(uid).gid(uid).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.unwrap().success()
}

#[test]
fn a_user_gets_a_directory_that_is_closed_to_others_and_can_remove_it_himself() {
    if skipped() {
        return;
    }
    let daemon = daemon();
    let script =
        "umask 0; echo password > .netrc; mkdir d; cp .netrc d; chmod 555 d; mkdir -m 000 e; chmod 777 .";
    let path = kept(&daemon, USER, script);
    assert_eq!(path, daemon.state().join(format!("kept/{USER}/test-0")));
    for path in [&path, path.parent().unwrap()] {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (USER, USER, 0o700));
    }
    let netrc = path.join(".netrc");
    assert_eq!(fs::metadata(&netrc).unwrap().mode() & 0o7777, 0o644);
    assert!(
        can(USER, "cat", &netrc) && !can(OTHER, "cat", &netrc) && !can(OTHER, "ls", path.parent().unwrap())
    );
    assert!(!can(OTHER, "rm", &path) && path.exists());
    assert!(can(USER, "rm", &path) && !path.exists());
    // The next one takes the name that is free.
    assert_eq!(kept(&daemon, USER, "true"), path);
    assert_eq!(kept(&daemon, USER, "true").file_name().unwrap(), "test-1");
}

#[test]
fn roots_are_closed_to_others_as_well() {
    if skipped() {
        return;
    }
    let daemon = daemon();
    let path = kept(&daemon, 0, "echo x > f");
    assert_eq!(path.parent(), Some(daemon.state().join("kept/0").as_path()));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    assert!(!can(USER, "ls", &path));
}

#[test]
fn nothing_that_can_be_reached_is_ever_set_uid_or_a_slots() {
    if skipped() {
        return;
    }
    let daemon = daemon();
    // Many files before it, so that whoever disarms them where they can be seen takes a while to get there.
    let script = "mkdir a; cd a; seq 1 5000 | xargs touch; cd ..; cp /bin/sh zzz; touch ready; \
                  while [ -e ready ]; do sleep 0.05; done";
    let request = failing(&daemon, script);
    let directory = daemon.state().join("kept");
    let (over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let slots = daemon.uid_base..daemon.uid_base + 1000;
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for place in [directory.clone(), directory.join(USER.to_string())] {
                    let found = place.join("test-0");
                    for path in [found.clone(), found.join("zzz")] {
                        if let Ok(metadata) = fs::symlink_metadata(&path) {
                            looks.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(metadata.mode() & 0o6000, 0, "{}", path.display());
                            assert!(!slots.contains(&metadata.uid()), "{}", path.display());
                        }
                    }
                }
            }
        });
        let submitted = daemon.submit_as(USER, &request);
        let waiting = || {
            let slots = fs::read_dir(daemon.state().join("slots")).unwrap().flatten();
            slots.map(|slot| slot.path().join("build")).find(|build| build.join("ready").exists())
        };
        daemon.eventually(LIMIT, "builder waits", || waiting().is_some());
        let build = waiting().unwrap();
        // What no builder can do by itself: the second wall is tried without the first.
        fs::set_permissions(build.join("zzz"), PermissionsExt::from_mode(0o6755)).unwrap();
        fs::remove_file(build.join("ready")).unwrap();
        let done = finish(submitted);
        let path = done.report.kept.unwrap();
        daemon.eventually(LIMIT, "seen", || looks.load(Ordering::Relaxed) > 100 || looking.is_finished());
        over.store(true, Ordering::Relaxed);
        looking.join().unwrap();
        assert_eq!(fs::read_dir(path.as_path().join("a")).unwrap().count(), 5000);
    });
}

#[test]
fn a_directory_from_before_users_had_their_own_is_left_as_it_is_and_goes_with_the_rest() {
    if skipped() {
        return;
    }
    let mut daemon = daemon();
    let old = daemon.state().join("kept/hello-0");
    fs::create_dir_all(old.join("d")).unwrap();
    daemon.restart();
    let path = kept(&daemon, USER, "mkdir -m 555 d");
    assert!(old.join("d").exists());
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(host_agent::slot::directory::remove_state(&daemon.state()).unwrap());
    assert!(!path.exists() && !daemon.state().exists());
}
