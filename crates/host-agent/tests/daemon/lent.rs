//! What is in a build directory that was given, while a builder has it and afterwards: nothing of the caller's changes hands,
//! and nothing of the builder's is where others can reach it before it is disarmed.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::external::{BUILDER, Done, Place, owner};
use crate::harness::{LIMIT, darling, skipped};

impl Place {
    /// A file of the caller's in the directory.
    fn put(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.tmp().join(name);
        fs::write(&path, "from Nix\n").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        chown(&path, Some(BUILDER), Some(BUILDER)).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.tmp()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn facts(path: impl AsRef<Path>) -> (u32, u32, u32, i64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode(), metadata.mtime())
}

/// What no builder can do by itself: the second wall is tried without the first.
fn arm(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o6777)).unwrap();
}

/// Waits until the builder has made this, which it can be told by.
const TOLD: &str = "touch ready; while [ ! -e $out.go ]; do sleep 0.05; done; rm $out.go;";

impl Place {
    /// The slot's build directory, once the builder waits in it.
    fn waiting(&self) -> PathBuf {
        let slots = self.daemon.state().join("slots");
        let find = || {
            let builds = fs::read_dir(&slots).unwrap().flatten().map(|slot| slot.path().join("build"));
            builds.into_iter().find(|build| build.join("ready").exists())
        };
        self.daemon.eventually(LIMIT, "builder waits", || find().is_some());
        find().unwrap()
    }

    /// Lets the builder go on.
    fn go(&self, build: &Path) {
        let view = build.with_file_name("store");
        fs::write(view.join(format!("{}.go", self.out().file_name().unwrap().display())), "").unwrap();
    }
}

#[test]
fn the_callers_files_never_change_hands_and_the_builders_are_behind_a_closed_door() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let file = place.put(".attr", 0o640);
    let before = facts(&file);
    let mut child = place.start(&place.json(&format!("cat .attr; cp /bin/sh s; {TOLD} exit 1")));
    let build = place.waiting();
    arm(&build.join("s"));
    arm(&build);
    assert_eq!((facts(&file), place.names()), (before, vec![".attr".to_owned()]));
    assert_eq!(owner(place.tmp()), BUILDER);
    let copy = facts(build.join(".attr"));
    assert!(copy.0 >= place.daemon.uid_base && copy.2 & 0o7777 == 0o640 && copy.3 == before.3, "{copy:?}");
    // Whatever the builder makes of modes: nobody gets to it.
    let closed = fs::metadata(build.parent().unwrap()).unwrap();
    assert_eq!((closed.uid(), closed.mode() & 0o7777), (0, 0o700));
    place.go(&build);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(place.names(), [".attr", "ready", "s"]);
    assert_eq!(facts(place.tmp().join("s")).2 & 0o7777, 0o755);
    assert_eq!(fs::metadata(place.tmp()).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn what_the_builder_leaves_replaces_what_was_there() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    place.put("deleted", 0o644);
    place.put("changed", 0o644);
    place
        .run(&place.json("rm deleted; echo new > changed; mkdir -p d/e; chmod 000 d/e; ln changed twice"))
        .succeeds();
    assert_eq!(place.names(), ["changed", "d", "twice"]);
    assert_eq!(fs::read(place.tmp().join("changed")).unwrap(), b"new\n");
    // Its owner can enter and remove it.
    assert_eq!(facts(place.tmp().join("d/e")).2 & 0o7777, 0o700);
    assert_eq!(fs::metadata(place.tmp().join("twice")).unwrap().nlink(), 2);
}

#[test]
fn a_file_with_several_names_is_refused_and_left_alone() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let file = place.put("prog", 0o755);
    let keep = place.top.join("keep");
    fs::hard_link(&file, &keep).unwrap();
    let before = facts(&keep);
    let refusal = place.run(&place.json("chmod 755 prog; rm prog")).refusal(&place);
    insta::assert_snapshot!(refusal, @"darling-builder: failed to lend what is in the build directory to the builder: 'prog' has 2 names (hard links), and only a file with one can be lent");
    assert_eq!((facts(&keep), facts(&file)), (before, before));
}

#[test]
fn a_name_that_the_caller_makes_meanwhile_leads_to_his_own_file_only() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let file = place.put("prog", 0o755);
    let before = facts(&file);
    let mut child = place.start(&place.json(&format!("{TOLD} chmod 755 prog; rm prog")));
    let build = place.waiting();
    let keep = place.top.join("keep");
    fs::hard_link(&file, &keep).unwrap();
    place.go(&build);
    assert!(child.wait().unwrap().success());
    assert_eq!(facts(&keep), before);
    assert!(!file.exists());
}

#[test]
fn what_is_not_the_callers_and_what_is_no_file_is_refused() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    let secret = place.daemon.directory.path().join("secret");
    fs::write(&secret, "root's").unwrap();
    let before = facts(&secret);
    fs::hard_link(&secret, place.tmp().join("linked")).unwrap();
    let refused = |name: &str| {
        let refusal = place.run(&place.json("cat *; touch here")).refusal(&place);
        fs::remove_file(place.tmp().join(name)).unwrap();
        refusal
    };
    insta::assert_snapshot!(refused("linked"), @"darling-builder: failed to lend what is in the build directory to the builder: 'linked' belongs to uid 0 instead of 31001; is it a hard link to a file from elsewhere?");
    assert_eq!(facts(&secret), before);
    let fifo = place.tmp().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    chown(&fifo, Some(BUILDER), Some(BUILDER)).unwrap();
    insta::assert_snapshot!(refused("fifo"), @"darling-builder: failed to lend what is in the build directory to the builder: 'fifo' is a fifo; only regular files, directories and symlinks can be taken");
    // A link is lent as a link.
    symlink(&secret, place.tmp().join("link")).unwrap();
    std::os::unix::fs::lchown(place.tmp().join("link"), Some(BUILDER), Some(BUILDER)).unwrap();
    let done = place.run(&place.json("cat link || echo it leads nowhere in here"));
    assert!(done.succeeds().log().contains("nowhere"), "{}", done.log());
    assert!(place.names().is_empty() || place.names() == ["link"]);
}

#[test]
fn roots_directory_is_lent_like_any_other() {
    if skipped() {
        return;
    }
    let place = Place::new("");
    chown(&place.top, Some(0), Some(0)).unwrap();
    chown(place.tmp(), Some(0), Some(0)).unwrap();
    fs::write(place.tmp().join(".attr"), "from Nix\n").unwrap();
    let done = place.run_as(&place.json("cat .attr; cp /bin/sh s; mkdir -p d; echo x > d/f"), 0);
    assert_eq!(done.succeeds().log(), "from Nix\n");
    assert_eq!(place.names(), [".attr", "d", "s"]);
    let (uid, gid, mode, _) = facts(place.tmp().join("s"));
    assert_eq!((uid, gid, mode & 0o7777), (0, 0, 0o755));
}

#[test]
fn a_directory_that_is_gone_when_its_build_ends_is_not_made_again() {
    if skipped() {
        return;
    }
    let place = Place::new("max-jobs = 1");
    place.put(".attr", 0o644);
    let mut child = place.start(&place.json(&format!("{TOLD} sleep 100")));
    place.waiting();
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir_all(place.tmp()).unwrap();
    place.daemon.eventually(LIMIT, "slot gone", || !place.busy());
    assert!(fs::read_dir(&place.top).unwrap().next().is_none());
    fs::create_dir(place.tmp()).unwrap();
    chown(place.tmp(), Some(BUILDER), Some(BUILDER)).unwrap();
    place.run(&place.json("true")).succeeds();
}

/// A file system of its own for the directory.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: &Path) -> Self {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn on_another_file_system_what_is_left_is_copied_back() {
    if skipped() || darling() {
        return;
    }
    let place = Place::new("");
    let mounted = Mounted::on(place.top.parent().unwrap());
    fs::create_dir_all(place.tmp()).unwrap();
    for path in [place.top.clone(), place.tmp()] {
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        chown(path, Some(BUILDER), Some(BUILDER)).unwrap();
    }
    place.put(".attr", 0o640);
    let script = "cat .attr; mkdir d; echo x > d/f; chmod 751 d/f; ln d/f d/twice; touch -d @1000 d/f d; mkfifo p; \
                  ln -s /etc/passwd l; dd if=/dev/zero of=holes bs=1 count=1 seek=1000000000 2>/dev/null; chmod 000 holes";
    let done = place.run(&place.json(script));
    assert_eq!(done.succeeds().log(), "from Nix\n");
    assert_eq!(place.names(), [".attr", "d", "holes", "l"]);
    // One of the names of a file, with its time.
    let names: Vec<_> = fs::read_dir(place.tmp().join("d")).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(facts(place.tmp().join("d/f")), (BUILDER, BUILDER, 0o100_751, 1000));
    assert_eq!(facts(place.tmp().join("d")).3, 1000);
    assert_eq!(facts(place.tmp().join(".attr")).2, 0o100_640);
    assert_eq!((owner(place.tmp().join("l")), owner("/etc/passwd")), (BUILDER, 0));
    let holes = fs::metadata(place.tmp().join("holes")).unwrap();
    assert_eq!((holes.len(), holes.mode() & 0o7777), (1_000_000_001, 0o400));
    assert!(holes.blocks() < 1000, "{} blocks", holes.blocks());
    drop(mounted);
}

#[test]
fn a_stall_leaves_no_trace_of_its_builder_in_the_directory() {
    if skipped() {
        return;
    }
    let place = Place::new("max-jobs = 1\nwarm-slots = 0\nretry-stalled = false");
    place.put(".attr", 0o644);
    let child = place.start(&place.json(&format!("cp /bin/sh s; {TOLD} sleep 100")));
    arm(&place.waiting().join("s"));
    place.daemon.stall();
    let done = Done(child.wait_with_output().unwrap());
    assert_eq!(done.0.status.code(), Some(1));
    assert!(done.log().contains("time stands still"), "{}", done.log());
    // Not built again, so what is left is for whoever asked, and harmless.
    assert_eq!(facts(place.tmp().join("s")).2 & 0o7777, 0o755);
    assert_eq!(owner(place.tmp().join(".attr")), BUILDER);
}
