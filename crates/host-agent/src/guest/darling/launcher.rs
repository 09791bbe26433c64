//! Darling's launcher: how it must be started.

#![expect(unsafe_code, reason = "ids and personality between fork and exec")]

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::personality::{self, Persona};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};

use super::seccomp::{self, Listener, Questions};
use super::supervisor::Supervisor;
use super::{PREFIX, PREFIX_HOME, Repairs};
use crate::slot::rights;

/// Boots the prefix. The program named is never reached: the launcher is killed once the prefix is up.
pub(super) fn boot(
    launcher: &Path,
    uid: u32,
    repairs: Repairs,
    questions: Option<Questions>,
    log: &File,
) -> io::Result<(Pid, Option<Supervisor>)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = command(launcher, log)?;
    command.args(["exec", "/usr/bin/true"]);
    // SAFETY: single-threaded parent; plain system calls on local memory between fork and exec.
    unsafe {
        command.pre_exec(move || {
            if repairs.no_address_randomisation {
                // A randomised stack collides with Darling's commpage once in some thousands of execs (SIGFPE).
                personality::set(Persona::ADDR_NO_RANDOMIZE)?;
            }
            if let Some(questions) = questions {
                rights::pass(&theirs, &seccomp::install(questions)?)?;
            }
            become_launcher(uid)
        });
    }
    let child = command.spawn()?;
    let supervisor = match questions {
        Some(_) => Some(Supervisor::new(Listener::from(rights::take(&ours)?))),
        None => None,
    };
    Ok((Pid::from_raw(child.id() as i32), supervisor))
}

fn command(launcher: &Path, log: &File) -> io::Result<Command> {
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
    Ok(command)
}

fn become_launcher(uid: u32) -> io::Result<()> {
    setgroups(&[])?;
    // Real: what everything inside runs as. Effective: what the launcher insists on.
    setresgid(Gid::from_raw(uid), Gid::from_raw(0), Gid::from_raw(0))?;
    setresuid(Uid::from_raw(uid), Uid::from_raw(0), Uid::from_raw(0))?;
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}
