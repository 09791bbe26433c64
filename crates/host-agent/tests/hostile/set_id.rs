//! No file gives whoever executes it another uid: none can be made, and one that is there has no effect.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::attack::{Attacker, Outside, builders_root, host, mounts, skipped};
use crate::harness::{Daemon, copy_program, darling, name};

/// What root finds of files with such a bit that are not root's, wherever the builder can write.
fn found(daemon: &Daemon) -> String {
    let root = builders_root(daemon, "echo tried");
    let places = ["build", "tmp", "dev/shm", "var/d"].map(|place| format!("{}/{place}", root.display()));
    let slots = daemon.state().join("slots").display().to_string();
    let store = daemon.store().display().to_string();
    let mut arguments: Vec<&str> = vec![&slots, &store];
    arguments.extend(places.iter().map(String::as_str).filter(|place| Path::new(place).exists()));
    arguments.extend(["-perm", "/6000", "-not", "-user", "0", "-not", "-type", "l"]);
    host("find", &arguments)
}

#[test]
fn no_call_makes_a_set_uid_file_wherever_a_builder_can_write() {
    if skipped() {
        return;
    }
    for extra in ["", "\nallow-user-namespaces = true"] {
        let daemon = Daemon::start(&format!("warm-slots = 0{extra}"));
        let attacker = Attacker::new(&daemon);
        let script = "mkdir $out; $attacker set-id make /build /tmp /dev/shm $out; echo tried; sleep 60";
        let running = attacker.run_until(&attacker.request(script), "tried");
        let told = running.told();
        assert_eq!(told.len(), 4 * 20, "{}", running.log());
        assert!(told.iter().all(|attempt| attempt.came != "set"), "{told:?}");
        // What can do it at all.
        let refused =
            |way: &str| told.iter().any(|one| one.what == format!("{way}-in-/build") && one.came == "EPERM");
        for way in
            ["chmod", "fchmod", "fchmodat", "open", "openat", "temporary", "creat", "mknod", "capabilities"]
        {
            assert!(refused(way), "{way}: {told:?}");
        }
        assert_eq!(found(&daemon), "");
    }
}

#[test]
fn programs_that_copy_modes_make_no_set_uid_file() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    let attacker = Attacker::new(&daemon);
    let script = "$attacker set-id archive a.tar; tar -xpf a.tar; \
                  cp -p /usr/bin/passwd copied; cp -a /usr/bin/chsh archived; \
                  cp /bin/sh shell; chmod 6755 shell; chmod u+s shell; install -m 4755 /bin/sh installed; \
                  mkdir -m 2755 directory; (umask 0; mkdir -m 6777 open); \
                  ls -l; echo tried; sleep 60";
    let running = attacker.run_until(&attacker.request(script), "tried");
    assert!(running.log().contains("set-id-archived"), "{}", running.log());
    assert_eq!(found(&daemon), "", "{}", running.log());
}

#[test]
fn an_overlay_in_a_user_namespace_copies_no_set_uid_file() {
    if skipped() {
        return;
    }
    let theirs = host("find", &["/usr/bin", "-perm", "-4000", "-type", "f"]);
    let Some(theirs) = theirs.lines().next() else {
        eprintln!("skipped: no set-uid program in /usr/bin");
        return;
    };
    let daemon = Daemon::start("warm-slots = 0\nallow-user-namespaces = true");
    let attacker = Attacker::new(&daemon);
    let script = format!("mkdir /tmp/o; $attacker set-id copy-up {theirs} /tmp/o; echo tried; sleep 60");
    let running = attacker.run_until(&attacker.request(&script), "tried");
    // 2: it was mounted, and nothing of it was possible; 1: it was not mounted.
    assert!(["exit-1", "exit-2"].contains(&&*running.told()[0].came), "{}", running.log());
    assert_eq!(found(&daemon), "");
}

/// A copy of the attacker, as root's set-uid program with every capability.
fn plant(path: &Path) {
    copy_program(&crate::attack::program(), path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o6755)).unwrap();
}

#[test]
fn a_set_uid_program_of_roots_gives_a_builder_nothing_wherever_it_lies() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    let attacker = Attacker::new(&daemon);
    let (input, capable) = (name("set-uid"), name("capable"));
    plant(&input.in_store(&daemon.store()));
    let capable_file = capable.in_store(&daemon.store());
    copy_program(&crate::attack::program(), &capable_file);
    let capable_path = capable_file.to_str().unwrap();
    Outside::start(0, &["set-id", "capable", capable_path], "attempt capable done");
    let mut request = attacker.request(
        "echo ready; while [ ! -e /build/go ]; do sleep 0.05; done; cd /build; \
         for one in $input $capable /build/planted /tmp/planted /dev/shm/planted; do \
         echo \"of $one\"; $attacker set-id run $one; rm -f link-to-run hard-link-to-run; done; id -u; echo > $out",
    );
    for (variable, input) in [("input", &input), ("capable", &capable)] {
        request.env.push((variable.into(), input.in_store(&daemon.store()).as_path().into()));
        request.inputs.push(input.clone());
    }
    let running = attacker.run_until(&request, "ready");
    let root = builders_root(&daemon, "/build/go");
    for place in ["build", "tmp", "dev/shm"] {
        plant(&root.join(place).join("planted"));
    }
    std::fs::write(root.join("build/go"), "").unwrap();
    let told = running.finish();
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
    let log = told.log();
    let uid = log.lines().rev().find(|line| line.parse::<u32>().is_ok()).unwrap();
    let who: Vec<_> = told.attempts.iter().filter(|attempt| attempt.what.starts_with("who-by-")).collect();
    let nobody = format!("{}+{}", [uid; 6].join("/"), ["0000000000000000"; 4].join("/"));
    assert!(who.iter().all(|attempt| attempt.came == nobody), "{uid}: {log}");
    // Each was executed: by its path, by a descriptor, and by a link at the least.
    assert!(who.len() >= 5 * 4, "{log}");
}

#[test]
fn no_mount_of_a_slot_heeds_set_uid_bits_and_none_that_can_be_written_has_devices() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    let attacker = Attacker::new(&daemon);
    let told = attacker.run("$attacker inputs mounts; echo > $out");
    let all = mounts(&told.log());
    assert!(all.len() > 10, "{}", told.log());
    for mount in &all {
        let has = |option: &str| mount.options.split(',').any(|one| one == option);
        assert!(has("nosuid"), "{mount:?}");
        let device = mount.point.starts_with("/dev/") && mount.kind != "tmpfs";
        // Darling's prefix, whose lower layer is the host's own.
        let prefix = darling() && mount.kind == "overlay";
        assert!(has("nodev") || has("ro") || device || prefix || mount.kind == "proc", "{mount:?}");
    }
}
