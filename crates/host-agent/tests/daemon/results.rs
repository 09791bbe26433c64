//! What a build gets and what it leaves.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use host_agent::request::{BuildFile, BuildOutcome, OutputRequest};
use protocol::message::Exit;

use crate::harness::{Daemon, name, skipped};

#[test]
fn an_output_is_staged_in_canonical_form_with_its_references() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let dep = name("dep");
    std::fs::create_dir(dep.in_store(&daemon.store())).unwrap();
    std::fs::write(dep.in_store(&daemon.store()).join("data"), "hello").unwrap();
    let mut request =
        daemon.request("mkdir $out; cat $dep/data > $out/copy; echo $dep > $out/ref; echo $out >> $out/ref");
    request.env.push(("dep".into(), dep.in_store(&daemon.store()).as_path().into()));
    request.inputs.push(dep.clone());
    let done = daemon.build(&request);
    let BuildOutcome::Built(outputs) = &done.report.outcome else { panic!("{:?}", done.report) };
    let out = &request.outputs[0].path;
    let mut expected = vec![dep, out.clone()];
    expected.sort();
    assert_eq!(outputs[0].references, expected);
    let staged = outputs[0].staged.as_path();
    assert_eq!(std::fs::read(staged.join("copy")).unwrap(), b"hello");
    let copy = staged.join("copy").metadata().unwrap();
    assert_eq!((copy.permissions().mode() & 0o7777, copy.mtime(), copy.uid()), (0o444, 1, 0));
    let staged = staged.to_owned();
    drop(done);
    daemon.eventually(std::time::Duration::from_secs(5), "results removed", || !staged.exists());
}

#[test]
fn the_log_is_relayed_in_order_and_whole() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let done = daemon.build(&daemon.request("seq 1 200000; echo done > $out"));
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(done.log == expected.as_bytes(), "{} bytes instead of {}", done.log.len(), expected.len());
    assert_eq!(done.report.log_bytes, expected.len() as u64);
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)));
}

#[test]
fn exit_codes_signals_and_programs_that_do_not_exist_are_told_apart() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let outcome = |script: &str| daemon.build(&daemon.request(script)).report.outcome;
    assert_eq!(outcome("exit 7"), BuildOutcome::BuilderFailed(Exit::Code(7)));
    assert_eq!(outcome("kill -SEGV $$"), BuildOutcome::BuilderFailed(Exit::Signal(11)));
    assert_eq!(outcome("true"), BuildOutcome::MissingOutputs(vec!["out".into()]));
    let mut request = daemon.request("");
    request.program = "/no/such/builder".into();
    let outcome = daemon.build(&request).report.outcome;
    let BuildOutcome::BuilderFailed(Exit::SpawnFailed { errno, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(errno, libc::ENOENT);
}

#[test]
fn files_lie_in_the_build_directory_and_a_failed_one_is_kept_when_asked() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let mut request = daemon.request("pwd; cat .attr; echo made > made; exit 1");
    request.files.push(BuildFile { name: ".attr".into(), contents: b"\xffbytes\n".into() });
    request.keep_failed = true;
    let done = daemon.build(&request);
    assert_eq!(done.log, b"/build\n\xffbytes\n");
    let kept = done.report.kept.unwrap();
    let kept = kept.as_path();
    assert_eq!(std::fs::read(kept.join("made")).unwrap(), b"made\n");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(kept.join("made").metadata().unwrap().uid(), 0);
}

#[test]
fn an_output_that_is_valid_already_is_made_again_and_thrown_away() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let dev = name("out-dev");
    let valid = dev.in_store(&daemon.store());
    std::fs::write(&valid, "valid").unwrap();
    let mut request = daemon.request("echo out > $out; echo other > $dev");
    request.env.push(("dev".into(), valid.as_path().into()));
    request.outputs.push(OutputRequest { name: "dev".into(), path: dev, wanted: false, digest: None });
    let BuildOutcome::Built(outputs) = daemon.build(&request).report.outcome else { panic!() };
    assert_eq!(outputs.len(), 1);
    assert_eq!(std::fs::read(valid).unwrap(), b"valid");
}

#[test]
fn a_hard_link_to_a_file_of_root_is_refused_and_the_file_untouched() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let secret = daemon.directory.path().join("secret");
    std::fs::write(&secret, "root's").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Planted while the builder waits; a builder itself can't link across its mounts.
    let mut client =
        daemon.submit(&daemon.request("mkdir $out; while [ ! -e $out/secret ]; do sleep 0.01; done"));
    let out = name("out");
    let planted = || {
        let slots = std::fs::read_dir(daemon.state().join("slots")).unwrap().flatten();
        slots.map(|slot| slot.path().join("store").join(out.as_str())).find(|path| path.is_dir())
    };
    daemon.eventually(crate::harness::LIMIT, "output made", || planted().is_some());
    std::fs::hard_link(&secret, planted().unwrap().join("secret")).unwrap();
    let report = loop {
        if let host_agent::control::client::BuildEvent::Finished(report) = client.next_event().unwrap() {
            break report;
        }
    };
    let BuildOutcome::OutputRejected { reason, .. } = report.outcome else { panic!("{report:?}") };
    assert!(reason.contains("secret"), "{reason}");
    let after = secret.metadata().unwrap();
    assert_eq!((after.permissions().mode() & 0o7777, after.uid()), (0o600, 0));
    assert_ne!(after.mtime(), 1);
}
