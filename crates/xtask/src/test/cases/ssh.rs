//! Logging in to a slot with stock OpenSSH on both sides. What there is to it is tested with the daemon's own tests, wherever
//! the guest has an `sshd`; here there is always one.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::cases;
use crate::world::limited;
use crate::world::session::Session;

const PORT: u16 = 2225;
const KEYS: &str = "/nix/var/darling-builder/ssh";
const LIMIT: Duration = Duration::from_secs(60);

cases! {
    SingleUser: the_key_logs_in_and_nothing_else_does;
}

fn the_key_logs_in_and_nothing_else_does(session: &mut Session) -> Result<()> {
    session.restart_daemon(&format!("[ssh]\nenable = true\nport = {PORT}\n"))?;
    let result = logs_in().and_then(|()| is_refused());
    session.restart_daemon("")?;
    // Keys stay, whatever the daemon does.
    fs::remove_dir_all(KEYS)?;
    result
}

fn logs_in() -> Result<()> {
    for user in ["builder", "root"] {
        let finished = ssh(&["-i", &format!("{KEYS}/client_ed25519")], user)?.must_succeed()?;
        ensure!(finished.stdout == b"ok\n", "{}", finished.describe());
    }
    Ok(())
}

fn is_refused() -> Result<()> {
    for options in [
        &["-o", "PubkeyAuthentication=no"][..],
        // A key, but of the host.
        &["-i", &format!("{KEYS}/host_ed25519")],
    ] {
        let finished = ssh(options, "builder")?;
        let said = String::from_utf8_lossy(&finished.stderr).into_owned();
        let refused = finished.status.code() == Some(255) && said.contains("Permission denied (publickey)");
        ensure!(refused, "{}", finished.describe());
    }
    Ok(())
}

fn ssh(options: &[&str], user: &str) -> Result<limited::Finished> {
    let mut command = Command::new("ssh");
    command.args(["-F", "/dev/null", "-p", &PORT.to_string()]);
    for option in [
        "BatchMode=yes".into(),
        "IdentitiesOnly=yes".into(),
        "StrictHostKeyChecking=yes".into(),
        format!("UserKnownHostsFile={KEYS}/known_hosts"),
    ] {
        command.args(["-o", &option]);
    }
    command.args(options).args([&format!("{user}@127.0.0.1"), "echo ok"]);
    limited::run(&mut command, LIMIT)
}
