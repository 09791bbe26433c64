//! The stand-in: the host's own `/usr`, and the agent compiled for Linux.
//!
//! It runs Linux builders that merely say `x86_64-darwin`, in the same slot and through the same agent as Darling does,
//! for tests, demonstrations and machines without Darling.

#![expect(unsafe_code, reason = "prctl between fork and exec")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::agent_file::{self, AgentFileError};
use super::how_it_ended;
use super::login_streams::LoginStreams;
use crate::config::Config;
use crate::mount::Attributes;
use crate::slot::root::{AGENT_DIR, Root, RootError};
use crate::ssh::login;

/// File name of the agent for this guest.
pub const AGENT_NAME: &str = "darwin-agent";

/// What the stand-in needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The agent on the host.
    agent: PathBuf,
}

/// The host's programs and libraries.
pub(super) fn host_paths() -> Vec<PathBuf> {
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"]
        .map(PathBuf::from)
        .into()
}

impl Plan {
    /// With the agent that the configuration names or that is installed.
    pub fn new(config: &Config) -> Result<Self, AgentFileError> {
        Ok(Self { agent: agent_file::find(config.agent.as_deref(), AGENT_NAME)? })
    }

    pub(super) fn furnish(&self, root: &Root<'_>) -> Result<(), RootError> {
        // The agent reaches its socket by the path that it would have in Darling.
        root.link("Volumes/SystemRoot", "/")?;
        root.bind(
            &self.agent,
            format!("{}/{AGENT_NAME}", &AGENT_DIR[1..]),
            Attributes { read_only: true, no_suid: true, no_dev: true, ..Attributes::default() },
        )
    }

    pub(super) fn launch(&self, uid: u32, log: &File) -> io::Result<Running> {
        let mut command = Command::new(format!("{AGENT_DIR}/{AGENT_NAME}"));
        command
            // Nothing else in a build's slot has this uid: the agent may kill all that it can signal.
            .arg("--exclusive-uid")
            .arg(format!("/Volumes/SystemRoot{AGENT_DIR}/a"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?);
        Ok(Running { agent: start(command, uid)?, uid, logins: BTreeMap::new() })
    }
}

/// The agent, and what runs beside it.
#[derive(Debug)]
pub struct Running {
    agent: Pid,
    uid: u32,
    /// Each connection's `sshd`.
    logins: BTreeMap<u32, (Pid, LoginStreams)>,
}

impl Running {
    pub(super) fn ended(&mut self, pid: Pid, status: &WaitStatus) -> Result<(), String> {
        self.logins.retain(|_, (sshd, _)| *sshd != pid);
        if pid == self.agent { Err(format!("the agent {}", how_it_ended(status))) } else { Ok(()) }
    }

    pub(super) fn describe(&self) -> String {
        format!("it was started as process {}", self.agent)
    }

    pub(super) fn log_in(&mut self, number: u32, streams: LoginStreams) {
        match start_sshd(&streams, self.uid) {
            Ok(sshd) => drop(self.logins.insert(number, (sshd, streams))),
            Err(error) => streams.say(&error),
        }
    }

    pub(super) fn end_login(&mut self, number: u32) {
        // Not reaped yet, or it would not be here: the number is still its own.
        if let Some((sshd, _)) = self.logins.remove(&number) {
            let _ = kill(sshd, Signal::SIGKILL);
        }
    }
}

fn start_sshd(streams: &LoginStreams, uid: u32) -> io::Result<Pid> {
    let [input, output, error] = streams.standard();
    let mut command = Command::new(login::SSHD);
    command
        .args(login::SSHD_ARGUMENTS)
        // Not an option of Darling's `sshd`, and elsewhere it would ask for root's rights.
        .args(["-o", "UsePAM=no"])
        .stdin(input.try_clone_to_owned()?)
        .stdout(output.try_clone_to_owned()?)
        .stderr(error.try_clone_to_owned()?);
    start(command, uid)
}

/// Starts a program as this uid, with nothing of ours but its standard streams.
fn start(mut command: Command, uid: u32) -> io::Result<Pid> {
    command.env_clear().current_dir("/").uid(uid).gid(uid);
    // SAFETY: plain system calls on local memory between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // As Nix does for its own builders (`allow-new-privileges = false`).
            nix::sys::prctl::set_no_new_privs()?;
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    Ok(Pid::from_raw(child.id() as i32))
}
