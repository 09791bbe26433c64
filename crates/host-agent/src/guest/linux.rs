//! The stand-in: the host's own `/usr`, and the agent compiled for Linux.
//!
//! It runs Linux builders that merely say `x86_64-darwin`, in the same slot and through the same agent as Darling does,
//! for tests, demonstrations and machines without Darling.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::agent_file::{self, AgentFileError};
use super::login_streams::LoginStreams;
use super::{how_it_ended, is_ready};
use crate::config::Config;
use crate::mount::Attributes;
use crate::slot::confinement::{Confinement, Identity};
use crate::slot::plan::BootPlan;
use crate::slot::questions::{Answer, Questions};
use crate::slot::root::{AGENT_DIR, Root, RootError};
use crate::slot::supervisor::Supervisor;
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

    pub(super) fn launch(&self, plan: &BootPlan, log: &File) -> io::Result<Running> {
        let mut command = Command::new(format!("{AGENT_DIR}/{AGENT_NAME}"));
        command
            // Nothing else in a build's slot has this uid: the agent may kill all that it can signal.
            .arg("--exclusive-uid")
            .arg(format!("/Volumes/SystemRoot{AGENT_DIR}/a"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?);
        let (uid, confinement) = (plan.uid, plan.confinement);
        let (agent, supervisor) = start(command, uid, confinement)?;
        Ok(Running { agent, supervisor, uid, confinement, logins: BTreeMap::new() })
    }
}

/// The agent, and what runs beside it.
#[derive(Debug)]
pub struct Running {
    agent: Pid,
    supervisor: Supervisor,
    uid: u32,
    confinement: Confinement,
    /// Each connection's `sshd`.
    logins: BTreeMap<u32, Sshd>,
}

#[derive(Debug)]
struct Sshd {
    pid: Pid,
    supervisor: Supervisor,
    /// Cut off with it.
    _streams: LoginStreams,
}

impl Running {
    pub(super) fn ended(&mut self, pid: Pid, status: &WaitStatus) -> Result<(), String> {
        self.logins.retain(|_, sshd| sshd.pid != pid);
        if pid == self.agent { Err(format!("the agent {}", how_it_ended(status))) } else { Ok(()) }
    }

    pub(super) fn describe(&self) -> String {
        format!("it was started as process {}", self.agent)
    }

    pub(super) fn agent_is(&mut self, agent: Pid) {
        self.supervisor.agent_is(agent);
    }

    /// When one of these is readable, [`proceed`](Self::proceed) is due.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.supervisors().map(Supervisor::listener)
    }

    /// Answers calls that wait.
    pub(super) fn proceed(&mut self) -> Result<(), String> {
        self.supervisors()
            .filter(|supervisor| is_ready(supervisor.listener()))
            .try_for_each(|supervisor| supervisor.answer(|_, _| Answer::LetHappen))
            .map_err(|error| format!("failed to supervise signals in the slot: {error}"))
    }

    fn supervisors(&self) -> impl Iterator<Item = &Supervisor> {
        std::iter::once(&self.supervisor).chain(self.logins.values().map(|sshd| &sshd.supervisor))
    }

    pub(super) fn log_in(&mut self, number: u32, streams: LoginStreams) {
        match start_sshd(&streams, self.uid, self.confinement) {
            Ok((pid, mut supervisor)) => {
                supervisor.agent_is(self.agent);
                self.logins.insert(number, Sshd { pid, supervisor, _streams: streams });
            }
            Err(error) => streams.say(&error),
        }
    }

    pub(super) fn end_login(&mut self, number: u32) {
        // Not reaped yet, or it would not be here: the number is still its own.
        if let Some(sshd) = self.logins.remove(&number) {
            let _ = kill(sshd.pid, Signal::SIGKILL);
        }
    }
}

fn start_sshd(streams: &LoginStreams, uid: u32, confinement: Confinement) -> io::Result<(Pid, Supervisor)> {
    let [input, output, error] = streams.standard();
    let mut command = Command::new(login::SSHD);
    command
        .args(login::SSHD_ARGUMENTS)
        // Not an option of Darling's `sshd`, and elsewhere it would ask for root's rights.
        .args(["-o", "UsePAM=no"])
        .stdin(input.try_clone_to_owned()?)
        .stdout(output.try_clone_to_owned()?)
        .stderr(error.try_clone_to_owned()?);
    start(command, uid, confinement)
}

/// Starts a program as this uid, with nothing of ours but its standard streams.
fn start(mut command: Command, uid: u32, confinement: Confinement) -> io::Result<(Pid, Supervisor)> {
    command.env_clear().current_dir("/");
    confinement.start(command, Identity::Slot(uid), Questions::default())
}
