//! Darling's launcher: how it must be started.

#![expect(unsafe_code, reason = "ids and personality between fork and exec")]

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::personality::{self, Persona};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};

use super::{AGENT_NAME, PREFIX, PREFIX_HOME, SYSTEM_ROOT};
use crate::slot::root::AGENT_DIR;

/// Boots the prefix. The program named is never reached: the launcher is killed once the prefix is up.
pub(super) fn boot(launcher: &Path, uid: u32, log: &File) -> io::Result<Pid> {
    spawn(command(launcher, uid, log)?.args(["exec", "/usr/bin/true"]))
}

/// Starts the agent in a prefix that is up.
pub(super) fn start_agent(launcher: &Path, uid: u32, log: &File) -> io::Result<Pid> {
    spawn(
        command(launcher, uid, log)?
            // The launcher puts /Volumes/SystemRoot before it.
            .args(["exec", &format!("{AGENT_DIR}/{AGENT_NAME}")])
            .arg(format!("{SYSTEM_ROOT}{AGENT_DIR}/a")),
    )
}

fn spawn(command: &mut Command) -> io::Result<Pid> {
    Ok(Pid::from_raw(command.spawn()?.id() as i32))
}

fn command(launcher: &Path, uid: u32, log: &File) -> io::Result<Command> {
    let mut command = Command::new(launcher);
    command
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
    // SAFETY: plain system calls on local memory between fork and exec.
    unsafe {
        command.pre_exec(move || {
            setgroups(&[])?;
            // Real: what everything inside runs as. Effective: what the launcher insists on.
            setresgid(Gid::from_raw(uid), Gid::from_raw(0), Gid::from_raw(0))?;
            setresuid(Uid::from_raw(uid), Uid::from_raw(0), Uid::from_raw(0))?;
            // A randomised stack collides with Darling's commpage once in some thousands of execs (SIGFPE).
            personality::set(Persona::ADDR_NO_RANDOMIZE)?;
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    Ok(command)
}
