//! What a builder can see and do.

use host_agent::request::BuildOutcome;

use crate::harness::{Daemon, UIDS, darling, finish, name, skipped};

#[test]
fn only_the_closure_the_build_directory_and_the_guests_runtime_can_be_seen() {
    if skipped() || darling() {
        return;
    }
    let daemon = Daemon::start("");
    let (shown, hidden, file, link) = (name("shown"), name("hidden"), name("file"), name("link"));
    for name in [&shown, &hidden] {
        std::fs::create_dir(name.in_store(&daemon.store())).unwrap();
    }
    std::fs::write(file.in_store(&daemon.store()), "a file").unwrap();
    std::os::unix::fs::symlink("/somewhere/else", link.in_store(&daemon.store())).unwrap();
    let mut request = daemon.request(
        "ls $NIX_STORE; cat $file; readlink $link; ls -A / /build /tmp /run; id -u; cat /proc/net/dev | grep -c :; \
         ls /root /home /work /etc/shadow 2>&1; for p in /proc/[0-9]*; do cat $p/comm; done; hostname",
    );
    for (key, name) in [("file", &file), ("link", &link)] {
        request.env.push((key.into(), name.in_store(&daemon.store()).as_path().into()));
    }
    request.env.push(("NIX_STORE".into(), daemon.store().as_path().into()));
    request.inputs = vec![shown.clone(), file.clone(), link.clone()];
    let done = daemon.build(&request);
    let log = String::from_utf8_lossy(&done.log).into_owned();
    for name in [&shown, &file, &link] {
        assert!(log.contains(name.as_str()), "{log}");
    }
    assert!(!log.contains(hidden.as_str()), "{log}");
    assert!(log.contains("a file"), "{log}");
    assert!(log.contains("/somewhere/else"), "{log}");
    let lines: Vec<&str> = log.lines().collect();
    let uids = daemon.uid_base..daemon.uid_base + UIDS;
    let own_uid_and_one_interface =
        lines.windows(2).any(|pair| pair[0].parse().is_ok_and(|uid| uids.contains(&uid)) && pair[1] == "1");
    assert!(own_uid_and_one_interface, "{log}");
    for absent in ["/root", "/home", "/etc/shadow"] {
        assert!(log.contains(&format!("'{absent}': No such file")), "{absent}: {log}");
    }
    assert!(log.ends_with("localhost\n"), "{log}");
}

#[test]
fn a_closure_of_two_thousand_inputs_is_shown_whole() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let inputs: Vec<_> = (0..2000).map(|number| name(&format!("input-{number}"))).collect();
    for (number, input) in inputs.iter().enumerate() {
        let path = input.in_store(&daemon.store());
        match number % 10 {
            0 => std::os::unix::fs::symlink("/somewhere/else", path).unwrap(),
            1..=4 => std::fs::write(path, format!("{number:4}")).unwrap(),
            _ => {
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join("inside"), "").unwrap();
            }
        }
    }
    let mut request = daemon.request(
        "cd $store; echo *-input-*/inside | wc -w; find . -type l | wc -l; \
         for f in *; do test -L $f || test -d $f || cat $f; done | wc -c; test $(cat *-input-1234) = 1234",
    );
    request.env.push(("store".into(), daemon.store().as_path().into()));
    request.inputs = inputs;
    let done = daemon.build(&request);
    let counted: Vec<usize> =
        String::from_utf8_lossy(&done.log).split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert_eq!(counted, [1000, 200, 800 * 4], "{:?}", done.report);
    assert!(matches!(done.report.outcome, BuildOutcome::MissingOutputs(_)), "{:?}", done.report);
}

#[test]
fn inputs_can_be_neither_written_nor_removed_nor_replaced() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let (dir, file, link) = (name("dir"), name("file"), name("link"));
    // World-writable on purpose: the mount must hold, not only the mode.
    std::fs::create_dir(dir.in_store(&daemon.store())).unwrap();
    std::fs::write(file.in_store(&daemon.store()), "original").unwrap();
    for path in [&dir, &file] {
        use std::os::unix::fs::PermissionsExt;
        let all = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(path.in_store(&daemon.store()), all).unwrap();
    }
    std::os::unix::fs::symlink("target", link.in_store(&daemon.store())).unwrap();
    let mut request = daemon.request(
        "touch $dir/new; echo changed > $file; rm -rf $dir $file $link; mv $link $link.moved; chmod 700 $dir; \
         ls -d $dir $file; readlink $link; cat $file",
    );
    for (key, name) in [("dir", &dir), ("file", &file), ("link", &link)] {
        request.env.push((key.into(), name.in_store(&daemon.store()).as_path().into()));
    }
    request.inputs = vec![dir.clone(), file.clone(), link.clone()];
    let done = daemon.build(&request);
    let log = String::from_utf8_lossy(&done.log).into_owned();
    assert!(log.ends_with("target\noriginal"), "{log}");
    assert_eq!(std::fs::read_dir(dir.in_store(&daemon.store())).unwrap().count(), 0);
    assert_eq!(std::fs::read(file.in_store(&daemon.store())).unwrap(), b"original");
}

#[test]
fn builds_at_the_same_time_have_different_uids_and_do_not_see_each_other() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 4");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            daemon.submit(
                &daemon
                    .request("id -u; sleep 0.5; ls /Volumes/SystemRoot/proc | grep -c '^[0-9]'; echo > $out"),
            )
        })
        .collect();
    let logs: Vec<String> =
        clients.into_iter().map(|client| String::from_utf8_lossy(&finish(client).log).into_owned()).collect();
    let mut uids: Vec<&str> = logs.iter().filter_map(|log| log.lines().next()).collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), 4, "{logs:?}");
    for log in &logs {
        // slot-init, the guest's own (in Darling nine), the shell, ls and grep.
        let processes: u32 = log.lines().nth(1).unwrap().parse().unwrap();
        assert!(processes <= if darling() { 14 } else { 6 }, "{log}");
    }
}

#[test]
fn a_slot_is_used_once() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1");
    let script = "ls -A /build /tmp; touch /build/trace /tmp/trace; echo > $out";
    for _ in 0..3 {
        let done = daemon.build(&daemon.request(script));
        assert!(!String::from_utf8_lossy(&done.log).contains("trace"));
        assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
    }
}
