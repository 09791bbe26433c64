//! What makes a bare Debian tree a machine: accounts, Nix's settings, and the unit that starts the runner.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{EVENTS, PAYLOAD, SHARED, TARGET};
use crate::vm_test::darling_files::COPIES;
use crate::vm_test::payload::{PLAN, RUNNER};
use crate::vm_test::runner::RESET_WANTED;
use crate::world::accounts::USER;

/// Second serial port of a virtual machine: events.
const EVENT_PORT: &str = "/dev/ttyS1";

/// A machine without a network: nothing to substitute from, no names to look up.
const NIX_CONF: &str = "\nsubstituters =\n";

/// Not wanted in a machine that lives for minutes.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "ssh.service",
    "systemd-tmpfiles-clean.timer",
];

/// Everything that is written, by path.
fn files() -> Vec<(String, String)> {
    let start = format!(
        "events={SHARED}/{EVENTS}; [ -e $events ] || {{ events={EVENT_PORT}; stty -F $events raw -echo; }}; \
         [ ! -d {PAYLOAD}/{COPIES} ] || cp -a {PAYLOAD}/{COPIES}/. /; \
         {PAYLOAD}/{RUNNER} vm-stages --plan {PAYLOAD}/{PLAN} >> $events; \
         [ $? != {RESET_WANTED} ] || exec systemctl reboot --force --force"
    );
    let service = format!(
        "[Unit]\nDescription=Stages of darling-builder\nAfter=multi-user.target\nRequiresMountsFor={PAYLOAD}\n\n\
         [Service]\nEnvironment=HOME=/root\nExecStart=/bin/sh -c '{}'\n",
        // Two dollars: systemd replaces variables as well.
        start.replace('$', "$$")
    );
    let target = "[Unit]\nDescription=A machine whose stages run\nRequires=multi-user.target\nAfter=multi-user.target\n\
                  Wants=vm-test.service\n";
    let login = "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %I 115200 linux\n";
    let fstab = format!("LABEL=vm-root / ext4 defaults 0 0\nLABEL=vm-payload {PAYLOAD} ext4 ro,nofail 0 0\n");
    [
        ("etc/hostname", "vm-test\n".to_owned()),
        ("etc/hosts", "127.0.0.1 localhost vm-test\n::1 localhost\n".to_owned()),
        ("etc/fstab", fstab),
        ("etc/systemd/system/vm-test.service", service),
        (&format!("etc/systemd/system/{TARGET}"), target.to_owned()),
        // Only a virtual machine has such a port, and only whoever started it reaches it.
        ("etc/systemd/system/serial-getty@ttyS0.service.d/login.conf", login.to_owned()),
        (
            "etc/systemd/journald.conf.d/console.conf",
            "[Journal]\nForwardToConsole=yes\nMaxLevelConsole=warning\n".to_owned(),
        ),
    ]
    .map(|(path, text)| (path.to_owned(), text))
    .into()
}

/// From what it is made.
pub fn recipe() -> String {
    let files: String = files().into_iter().map(|(path, text)| format!("{path}\n{text}")).collect();
    format!("{files}{NIX_CONF}{MASKED:?}{USER}")
}

/// Makes it.
pub fn apply(tree: &Path) -> Result<()> {
    for (path, text) in files() {
        let file = tree.join(path);
        fs::create_dir_all(file.parent().context("no directory")?)?;
        fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))?;
    }
    let nix_conf = tree.join("etc/nix/nix.conf");
    fs::create_dir_all(tree.join("etc/nix"))?;
    let old = fs::read_to_string(&nix_conf).unwrap_or_default();
    fs::write(&nix_conf, old + NIX_CONF)?;
    for unit in MASKED {
        let link = tree.join("etc/systemd/system").join(unit);
        let _ = fs::remove_file(&link);
        symlink("/dev/null", link)?;
    }
    // A machine of its own at every first boot.
    fs::write(tree.join("etc/machine-id"), "")?;
    for directory in [PAYLOAD, SHARED] {
        fs::create_dir_all(tree.join(directory.trim_start_matches('/')))?;
    }
    // Debian lets only this group ask nix-daemon.
    inside(tree, &["useradd", "--create-home", "--shell", "/bin/bash", "--groups", "nix-users", USER])?;
    inside(tree, &["passwd", "--quiet", "--delete", "root"])?;
    // The lists and archives of apt are of no use without a network.
    inside(tree, &["apt-get", "clean"])
}

fn inside(tree: &Path, command: &[&str]) -> Result<()> {
    let status = Command::new("chroot").arg(tree).args(command).status().context("failed to run chroot")?;
    ensure!(status.success(), "{} failed in {}", command.join(" "), tree.display());
    Ok(())
}
