//! Darling's launcher: how it must be started.

#![expect(unsafe_code, reason = "the personality is set between fork and exec")]

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::personality::{self, Persona};
use nix::unistd::Pid;

use super::{PREFIX, PREFIX_HOME, Plan};
use crate::slot::capabilities::OF_LAUNCHER;
use crate::slot::confinement::Identity;
use crate::slot::plan::BootPlan;
use crate::slot::supervisor::Supervisor;

/// Boots the prefix. The program named is never reached: the launcher is killed once the prefix is up.
///
/// Its real uid is what everything inside runs as, its effective one root's, which it insists on.
pub(super) fn boot(plan: &Plan, boot: &BootPlan, log: &File) -> io::Result<(Pid, Supervisor)> {
    let mut command = Command::new(&plan.launcher);
    command
        .args(["exec", "/usr/bin/true"])
        .env_clear()
        .env("DPREFIX", PREFIX)
        // The server insists on one; programs inside get a home of their own.
        .env("HOME", PREFIX_HOME)
        // The locale of the host means nothing inside.
        .env("LANG", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        // A file: the server keeps these open for as long as the prefix lives.
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    if plan.repairs.no_address_randomisation {
        // SAFETY: a plain system call between fork and exec.
        unsafe {
            // A randomised stack collides with Darling's commpage once in some thousands of execs (SIGFPE).
            command.pre_exec(|| Ok(personality::set(Persona::ADDR_NO_RANDOMIZE).map(drop)?));
        }
    }
    let identity = Identity::RootFor(boot.uid, OF_LAUNCHER);
    boot.confinement.start(command, identity, plan.questions(boot.login.is_some()))
}
