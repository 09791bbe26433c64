//! What stock Darling does to those who log in, and that it is repaired from outside.

use std::process::Stdio;

use crate::darling::darling_is_missing;
use crate::ssh::{SshDaemon, skipped};

#[test]
fn without_the_remark_repair_every_command_begins_with_a_remark() {
    if darling_is_missing() || skipped() {
        return;
    }
    let ssh = SshDaemon::start("[darling]\nremark-repair = false");
    let said = ssh.says("echo ok");
    assert!(said.ends_with("ok\n") && said != "ok\n", "Darling no longer has this fault: {said}");
}

#[test]
fn nothing_else_is_kept_out_of_what_a_command_prints() {
    if darling_is_missing() || skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    // As long as the remark; the remark itself, elsewhere.
    let line = "sys_proc_info(): Unsupported pidinfo flavor: ";
    let output = ssh.ssh(&["builder@127.0.0.1", &format!("echo '{line}2'; echo '{line}1' >&2")]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{line}2\n"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{line}1\n"));
}

#[test]
fn without_names_for_terminals_nobody_gets_one() {
    if darling_is_missing() || skipped() {
        return;
    }
    let ssh = SshDaemon::start("[darling]\nterminal-names = false");
    let mut client = ssh.client(&["-tt", "builder@127.0.0.1", "echo ok"]);
    let output = client.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(255), "Darling no longer has this fault: {output:?}");
    assert_eq!(ssh.says("echo ok"), "ok\n");
}

#[test]
fn a_terminal_has_the_name_that_macos_gives_it() {
    if darling_is_missing() || skipped() {
        return;
    }
    let ssh = SshDaemon::start("");
    let output = ssh.ssh(&["-tt", "builder@127.0.0.1", "tty"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/dev/ttys000\r\n", "{output:?}");
}
