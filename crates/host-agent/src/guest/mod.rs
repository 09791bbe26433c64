//! What runs inside a slot: Darling, or the stand-in for machines without it.
//!
//! The daemon makes a [`GuestPlan`] from the configuration; `slot-init` asks it what the root must hold, starts it, and
//! from then on knows only the agent. A guest knows nothing of builds, and a slot nothing of Darling.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{Config, GuestKind};
use crate::slot::own_proc::OwnProc;
use crate::slot::plan::BootPlan;
use crate::slot::root::{Root, RootError};
use crate::slot::stuck_report::Process;
use login_streams::LoginStreams;

pub mod agent_file;
pub mod darling;
pub mod linux;
pub mod login_streams;

/// What is needed to run a guest in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestPlan {
    /// The stand-in.
    Linux(linux::Plan),
    /// The real thing.
    Darling(darling::Plan),
}

/// Why a guest can't be had.
#[derive(Debug, Error)]
pub enum GuestError {
    /// No agent.
    #[error(transparent)]
    Agent(#[from] agent_file::AgentFileError),
    /// No Darling.
    #[error(transparent)]
    Darling(#[from] darling::DarlingError),
}

impl GuestPlan {
    /// The guest that the configuration names, if this machine has what it needs.
    pub fn new(config: &Config) -> Result<Self, GuestError> {
        match config.guest {
            GuestKind::Linux => Ok(GuestPlan::Linux(linux::Plan::new(config)?)),
            GuestKind::Darling => Ok(GuestPlan::Darling(darling::Plan::new(config)?)),
        }
    }

    /// Host paths that the guest needs at the same place, if the host has them.
    pub fn host_paths(&self) -> Vec<PathBuf> {
        match self {
            GuestPlan::Linux(_) => linux::host_paths(),
            GuestPlan::Darling(plan) => plan.host_paths(),
        }
    }

    /// Puts what else it needs into the new root.
    pub fn furnish(&self, root: &Root<'_>, plan: &BootPlan) -> Result<(), RootError> {
        match self {
            GuestPlan::Linux(guest) => guest.furnish(root),
            GuestPlan::Darling(guest) => guest.furnish(root, plan),
        }
    }

    /// Starts it, in the slot's root. What its own programs print goes to `log`.
    pub fn launch(&self, plan: &BootPlan, log: &File) -> io::Result<Launched> {
        match self {
            GuestPlan::Linux(guest) => guest.launch(plan, log).map(Launched::Linux),
            GuestPlan::Darling(guest) => guest.launch(plan, log).map(Box::new).map(Launched::Darling),
        }
    }

    /// What the guest itself can tell of a slot that hangs, of which this is the procfs.
    pub fn diagnose(&self, proc: &OwnProc, processes: &[Process]) -> Vec<String> {
        match self {
            GuestPlan::Linux(_) => Vec::new(),
            GuestPlan::Darling(plan) => plan.diagnose(proc, processes),
        }
    }

    /// Whether the slot is to tick ([`crate::slot::tick`]).
    pub fn ticks(&self) -> bool {
        match self {
            GuestPlan::Linux(_) => true,
            GuestPlan::Darling(plan) => plan.ticks(),
        }
    }
}

/// A guest that runs, or is on its way to.
#[derive(Debug)]
pub enum Launched {
    /// Nothing but the agent itself, and what runs beside it.
    Linux(linux::Running),
    /// A prefix, and then the agent.
    Darling(Box<darling::Boot>),
}

impl Launched {
    /// One of the slot's processes has ended. An error when that is the guest's end.
    pub fn ended(&mut self, pid: Pid, status: &WaitStatus) -> Result<(), String> {
        match self {
            Launched::Linux(running) => running.ended(pid, status),
            Launched::Darling(boot) => boot.ended(pid, status),
        }
    }

    /// The agent has connected, from this process.
    pub fn agent_is(&mut self, pid: Pid) {
        match self {
            Launched::Linux(running) => running.agent_is(pid),
            Launched::Darling(boot) => boot.agent_is(pid),
        }
    }

    /// Has a connection served by an `sshd` of its own.
    pub fn log_in(&mut self, number: u32, streams: LoginStreams) {
        match self {
            Launched::Linux(running) => running.log_in(number, streams),
            Launched::Darling(boot) => boot.log_in(number, streams),
        }
    }

    /// Ends the `sshd` of that number, if it has not ended.
    pub fn end_login(&mut self, number: u32) {
        match self {
            Launched::Linux(running) => running.end_login(number),
            Launched::Darling(boot) => boot.end_login(number),
        }
    }

    /// When one of these is readable, [`proceed`](Self::proceed) is due.
    pub fn watched(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Launched::Linux(running) => running.watched().collect(),
            Launched::Darling(boot) => boot.watched(),
        }
    }

    /// Does what can be done now. An error is the guest's end.
    pub fn proceed(&mut self) -> Result<(), String> {
        match self {
            Launched::Linux(running) => running.proceed(),
            Launched::Darling(boot) => boot.proceed(),
        }
    }

    /// How long to wait for an event before [`proceed`](Self::proceed) is worth another try.
    pub fn patience(&self, left: Duration) -> PollTimeout {
        let own = match self {
            Launched::Linux(_) => None,
            Launched::Darling(boot) => boot.patience(),
        };
        PollTimeout::try_from(own.unwrap_or(left).min(left)).unwrap_or(PollTimeout::MAX)
    }

    /// How far it has come, for an error message.
    pub fn describe(&self) -> String {
        match self {
            Launched::Linux(running) => running.describe(),
            Launched::Darling(boot) => boot.describe(),
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
}

/// A wait status in words that follow the name of a process.
fn how_it_ended(status: &WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("ended with exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        status => format!("ended ({status:?})"),
    }
}
