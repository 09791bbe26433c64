//! `host-agent doctor` and `--check`, beside a daemon and without one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Daemon, darling, skipped};
use crate::ssh::SshDaemon;

fn run(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-agent"));
    // Its own: another test's doctor has a directory to throw away at the same time.
    command.env("TMPDIR", config.parent().unwrap());
    command.arg("--config").arg(config).args(args).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn severity<'a>(report: &'a Value, name: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["name"] == name);
    finding.unwrap_or_else(|| panic!("no finding {name}: {report:#}"))["severity"].as_str().unwrap()
}

#[test]
fn beside_a_daemon_it_tries_everything_and_leaves_nothing() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("");
    let config = daemon.directory.path().join("config.toml");
    let before = std::fs::read_dir(daemon.directory.path()).unwrap().flatten().filter(is_scratch).count();
    let output = run(&config, &["doctor", "--json"]);
    let report = report(&output);
    for name in [
        "kernel",
        "namespaces",
        "mount-calls",
        "agent",
        "slot",
        "agent-handshake",
        "build-directory",
        "store-view",
        "signals",
        "daemon",
        "leftovers",
    ] {
        assert_eq!(severity(&report, name), "fine", "{name}: {report:#}");
    }
    assert_eq!(severity(&report, "guest-system"), if darling() { "fine" } else { "warning" });
    // As the machine has pasta and what that needs, or not: builds work with either.
    assert_ne!(severity(&report, "fixed-output-network"), "broken", "{report:#}");
    // Whatever Nix this machine has or has not, the status is that of the worst.
    assert_eq!(output.status.code(), Some(i32::from(report["worst"] == "broken")));
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["fix"].is_null(), finding["severity"] == "fine", "{finding:#}");
    }
    let after = std::fs::read_dir(daemon.directory.path()).unwrap().flatten().filter(is_scratch).count();
    assert!(after <= before, "a directory was left");

    let long = run(&config, &["doctor"]).stdout;
    let short = run(&config, &["--check"]).stdout;
    let (long, short) = (String::from_utf8(long).unwrap(), String::from_utf8(short).unwrap());
    assert!(long.contains("ok       kernel "), "{long}");
    assert!(!short.lines().any(|line| line.starts_with("ok ")), "{short}");
    assert_eq!(long.lines().last(), short.lines().last());
}

fn is_scratch(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("host-agent-doctor.")
}

#[test]
fn it_tells_whether_one_can_log_in() {
    if crate::ssh::skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let config = ssh.daemon.directory.path().join("config.toml");
    let examined = || report(&run(&config, &["doctor", "--json"]));
    let found = examined();
    for name in ["ssh", "ssh-keys"] {
        assert_eq!(severity(&found, name), "fine", "{name}: {found:#}");
    }
    std::fs::set_permissions(ssh.file("client_ed25519"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(severity(&examined(), "ssh-keys"), "warning");
}

#[test]
fn without_a_daemon_or_an_agent_it_says_what_is_broken_and_fails() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    std::fs::write(
        &config,
        "guest = \"linux\"\nsocket = \"/no/such/socket\"\nagent = \"/bin/sh\"\nstore-directory = \"/no/store\"\n",
    )
    .unwrap();
    let output = run(&config, &["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    for name in ["daemon", "store", "slot"] {
        assert_eq!(severity(&report, name), "broken", "{name}: {report:#}");
    }
    std::fs::write(&config, "max-jobs = 0\n").unwrap();
    let output = run(&config, &["--check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("BROKEN   configuration  failed to understand the configuration"), "{text}");
}

#[test]
fn without_root_it_says_what_it_did_not_try_and_uses_a_slot_of_the_daemons() {
    if skipped() {
        return;
    }
    const UID: u32 = 1_234_568;
    let daemon = Daemon::start(&format!("allowed-uids = [{UID}]"));
    let as_uid = |uid| report(&daemon.program_as(uid).args(["doctor", "--json"]).output().unwrap());
    let allowed = as_uid(UID);
    for name in ["rights", "namespaces", "mount-calls", "leftovers"] {
        assert_eq!(severity(&allowed, name), "warning", "{name}");
    }
    assert_eq!(severity(&allowed, "slot"), "fine");
    assert_eq!(severity(&allowed, "build-directory"), "fine");
    let other = as_uid(UID + 1);
    assert_eq!(severity(&other, "slot"), "warning");
    assert_eq!(severity(&other, "daemon"), "warning");
}
