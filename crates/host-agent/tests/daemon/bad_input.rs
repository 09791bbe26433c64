//! Wrong peers, frames and configurations get one clear error, and the daemon goes on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use host_agent::control::message::{CONTROL_VERSION, FromDaemon, ToDaemon};
use host_agent::request::BuildOutcome;
use protocol::frame;

use crate::harness::{Daemon, copy_program, finish, skipped};

fn host_agent(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_host-agent"))
        .args(args)
        .env_remove("DARLING_BUILDER_CONFIG")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn with_config(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    host_agent(&["--config", path.to_str().unwrap(), "status"])
        .replace(directory.path().to_str().unwrap(), "DIR")
}

#[test]
fn a_wrong_configuration_is_an_error_that_names_the_key() {
    insta::assert_snapshot!(with_config("max-job = 3\n"), @"
    host-agent: failed to understand the configuration DIR/config.toml:
    TOML parse error at line 1, column 1
      |
    1 | max-job = 3
      | ^^^^^^^
    unknown field `max-job`, expected one of `socket`, `systems`, `guest`, `max-jobs`, `warm-slots`, `idle-timeout-seconds`, `retry-stalled`, `queue-limit`, `state-directory`, `store-directory`, `supported-features`, `mandatory-features`, `speed-factor`, `build-group`, `allowed-uids`, `uid-base`, `uid-count`, `allow-user-namespaces`, `fixed-output-network`, `pasta`, `agent`, `limits`, `external-builder`, `darling`, `ssh`
    ");
    insta::assert_snapshot!(with_config("max-jobs = 0\n"), @"
    host-agent: failed to understand the configuration DIR/config.toml:
    TOML parse error at line 1, column 12
      |
    1 | max-jobs = 0
      |            ^
    invalid value: integer `0`, expected a nonzero u32
    ");
    insta::assert_snapshot!(with_config("guest = \"wine\"\n"), @r#"
    host-agent: failed to understand the configuration DIR/config.toml:
    TOML parse error at line 1, column 9
      |
    1 | guest = "wine"
      |         ^^^^^^
    unknown variant `wine`, expected `darling` or `linux`
    "#);
    insta::assert_snapshot!(with_config(&format!("socket = \"/{}\"\n", "x".repeat(120))), @"host-agent: failed to accept the configuration DIR/config.toml: `socket` is 121 bytes long; the address of a Unix socket holds 107");
    insta::assert_snapshot!(host_agent(&["--config", "/no/such/file", "status"]), @"host-agent: failed to read the configuration /no/such/file: No such file or directory (os error 2)");
}

#[test]
fn a_dead_daemon_is_an_error_that_says_how_to_start_it() {
    insta::assert_snapshot!(with_config("socket = \"/no/such/socket\"\n"), @"host-agent: failed to reach the darling-builder daemon at /no/such/socket: No such file or directory (os error 2); start it with `systemctl start darling-builder` (or run `host-agent daemon` as root)");
}

#[test]
fn garbage_truncation_and_wrong_versions_are_refused_and_the_daemon_goes_on() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let refused = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(crate::harness::LIMIT)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        while let Ok(Some(answer)) = frame::read::<FromDaemon>(&mut stream) {
            answers.push(answer);
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        answers
    };
    let hello =
        frame::encode(&ToDaemon::Hello { version: CONTROL_VERSION, front_end: "test".into() }).unwrap();
    let reason = |answers: Vec<FromDaemon>| match answers.into_iter().last() {
        Some(FromDaemon::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(refused(b"\xff\xff\xff\xffgarbage")).contains("exceeds the limit"));
    assert!(reason(refused(b"\x04\x00\x00\x00\xff\xff\xff\xff")).contains("malformed"));
    assert!(refused(&hello[..7]).is_empty());
    let old = frame::encode(&ToDaemon::Hello { version: 99, front_end: "test".into() }).unwrap();
    assert!(matches!(refused(&old)[..], [FromDaemon::Hello { version: CONTROL_VERSION, .. }]));
    let end = frame::encode(&ToDaemon::RequestEnd).unwrap();
    assert!(reason(refused(&[&hello[..], &end].concat())).contains("reserved first"));
    let reserve = frame::encode(&ToDaemon::Reserve).unwrap();
    assert!(reason(refused(&[&hello[..], &reserve, &end].concat())).contains("understand the request"));
    assert_eq!(daemon.status().builds, []);
}

#[test]
fn a_stranger_is_refused_with_what_to_do() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let output = daemon.program_as(65534).arg("status").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("uid 65534 is neither root nor a member of the group 'nixbld'"), "{stderr}");
    assert!(stderr.contains("allowed-uids"), "{stderr}");
}

#[test]
fn a_daemon_without_rights_says_which_it_needs() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let config = directory.path().join("config.toml");
    let text = format!(
        "socket = \"{path}/s\"\nguest = \"linux\"\nstate-directory = \"{path}/state\"\nstore-directory = \"{path}\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let program = directory.path().join("host-agent");
    let original = Path::new(env!("CARGO_BIN_EXE_host-agent"));
    copy_program(original, &program);
    copy_program(&original.with_file_name("darwin-agent"), &directory.path().join("darwin-agent"));
    let daemon = |wrapper: &[&str]| {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(&program)
            .arg("--config")
            .arg(&config)
            .arg("daemon")
            .env("RUST_LOG", "off");
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let not_root = daemon(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    insta::assert_snapshot!(not_root, @"host-agent: failed to start: the daemon makes namespaces and mounts and must run as root");
    let no_namespaces = daemon(&["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    insta::assert_snapshot!(no_namespaces, @"host-agent: failed to boot a first slot: failed to make the slot's namespaces: Operation not permitted (os error 1); the daemon must run as root (CAP_SYS_ADMIN), outside of containers that forbid namespaces, on a kernel with mount, pid, net, ipc and uts namespaces");
    assert_eq!(std::fs::read_dir(directory.path().join("state/slots")).unwrap().count(), 0);
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let config = daemon.directory.path().join("config.toml");
    let stderr = host_agent(&["--config", config.to_str().unwrap(), "daemon"]);
    assert!(stderr.contains("another darling-builder daemon runs"), "{stderr}");
    assert!(daemon.connect().status().is_ok());
}

#[test]
fn a_second_daemon_with_some_of_the_same_uids_is_refused_and_nothing_of_the_first_is_killed() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("max-jobs = 1");
    let build = daemon.submit(&daemon.request("sleep 1; echo > $out"));
    let second = daemon.directory.path().join("second.toml");
    let first = std::fs::read_to_string(daemon.directory.path().join("config.toml")).unwrap();
    let uids = format!("uid-base = {}", daemon.uid_base);
    assert!(first.contains(&uids));
    let other = first.replace("/s\"", "/t\"").replace("/state\"", "/other\"");
    std::fs::write(&second, other.replace(&uids, &format!("uid-base = {}", daemon.uid_base + 100))).unwrap();
    let stderr = host_agent(&["--config", second.to_str().unwrap(), "daemon"]);
    assert!(stderr.contains("another darling-builder daemon of this machine has some of them"), "{stderr}");
    let done = finish(build);
    assert!(matches!(done.report.outcome, BuildOutcome::Built(_)), "{:?}", done.report);
}
