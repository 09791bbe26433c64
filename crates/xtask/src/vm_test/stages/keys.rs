//! 2: the keys for ssh are root's alone, were made on this machine, and stay when everything is set up again.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::vm_test::machine::Machine;
use crate::vm_test::stage::{Need, Sabotage, Stage};

/// The stage.
pub const STAGE: Stage = Stage {
    number: 2,
    name: "keys",
    purpose: "the ssh keys are mode 0600, made on this machine, never made again over existing ones",
    needs: &[Need::Ssh],
    limit: 240,
    run,
    across_reset: None,
    sabotage: Sabotage { what: "everyone may read the client's key", act: sabotage },
};

/// Made when a machine is first booted: what is older was not made on it.
const MACHINE_ID: &str = "/etc/machine-id";

fn run(machine: &mut Machine) -> Result<()> {
    let ssh = machine.ssh()?.context("ssh is not switched on")?;
    machine.wait(60, "the client's key is there", || Ok(ssh.client_key.exists()))?;
    let keys = private_keys(&ssh.directory, &ssh.client_key)?;
    ensure!(keys.len() >= 2, "expected the client's key and the host's, found {keys:?}");
    for key in &keys {
        let metadata = fs::metadata(key).with_context(|| format!("failed to look at {}", key.display()))?;
        let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
        ensure!(mode == 0o600, "{} has mode {mode:04o}, not 0600", key.display());
        ensure!(uid == 0, "{} belongs to uid {uid}, not to root", key.display());
        let kind = machine.must(machine.root("ssh-keygen").arg("-l").arg("-f").arg(key))?;
        let kind = String::from_utf8_lossy(&kind.stdout).trim().to_owned();
        ensure!(kind.ends_with("(ED25519)"), "{} is no ed25519 key: {kind}", key.display());
        machine.say(format!("{}: {mode:04o}, {kind}", key.display()));
        if let Ok(first_boot) = fs::metadata(MACHINE_ID) {
            ensure!(metadata.mtime() >= first_boot.mtime(), "{} is older than this machine", key.display());
        }
    }
    let before = contents(&keys)?;
    machine.restart_daemon()?;
    ensure!(contents(&keys)? == before, "a restart of the daemon has changed the keys");
    machine.say("a restart leaves them as they are");
    if machine.plan.install {
        machine.install()?;
        machine.daemon_answers(120)?;
        ensure!(contents(&keys)? == before, "installing again has changed the keys");
        machine.say("so does installing again");
    }
    Ok(())
}

/// The client's key, and every other file of the directory that holds a private key.
fn private_keys(directory: &Path, client_key: &Path) -> Result<Vec<PathBuf>> {
    let mut keys = vec![client_key.to_owned()];
    for entry in fs::read_dir(directory).with_context(|| format!("failed to list {}", directory.display()))? {
        let path = entry?.path();
        let text = fs::read(&path).unwrap_or_default();
        if text.starts_with(b"-----BEGIN OPENSSH PRIVATE KEY") && path != client_key {
            keys.push(path);
        }
    }
    Ok(keys)
}

fn contents(keys: &[PathBuf]) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    keys.iter().map(|key| Ok((key.clone(), fs::read(key)?))).collect()
}

fn sabotage(machine: &mut Machine) -> Result<()> {
    let ssh = machine.ssh()?.context("ssh is not switched on")?;
    machine.wait(60, "the client's key is there", || Ok(ssh.client_key.exists()))?;
    Ok(fs::set_permissions(&ssh.client_key, Permissions::from_mode(0o644))?)
}
