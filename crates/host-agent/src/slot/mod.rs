//! A slot: one hermetic place for one build.
//!
//! Mount, pid, net, ipc and uts namespaces of its own, a minimal root, a store that shows the input closure only, a uid
//! that nobody else has. Its first process (`slot-init`) is its life: when that dies, for whatever reason, so does everything
//! inside. Nothing here knows what a derivation is.

pub mod capabilities;
pub mod confinement;
pub mod directory;
mod host_addresses;
pub mod host_listeners;
pub mod init;
pub mod kept;
mod keyring;
pub mod kill_everyone;
mod kill_uid;
pub mod lock;
mod loopback;
pub mod outside_network;
pub mod own_proc;
pub mod pasta;
pub mod plan;
pub mod questions;
pub mod refused_calls;
pub(crate) mod rights;
pub mod root;
pub mod spawn;
mod store_view;
pub mod stuck_report;
pub mod supervisor;
pub(crate) mod system_v;
mod tick;
pub mod uid_processes;
pub mod uid_range;
pub mod uids;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use protocol::frame::FrameError;
use protocol::hello::{Features, Identity};
use thiserror::Error;

use crate::config::Config;
use crate::guest::GuestPlan;
use crate::ssh::login::Login;
use crate::store_path::StoreName;
use directory::{DirectoryError, SlotDirectory, StateDirectory};
use outside_network::NetworkLease;
use own_proc::OwnProc;
use plan::{AgentGreeting, BootPlan, FromSlot, ToSlot};
use spawn::SlotInit;
use uid_processes::HolderError;
use uids::UidLease;

/// How long `slot-init` may take for one step. Longer than its own limit for booting, so that its reason is heard.
const STEP_LIMIT: Duration = Duration::from_secs(40);

/// Store names in each message to `slot-init`; a name has at most 244 bytes.
const NAMES_A_MESSAGE: usize = 2048;

/// A booted slot.
///
/// Dropping it kills everything inside and waits for that.
#[derive(Debug)]
pub struct Slot {
    /// Number, unique while the daemon runs.
    pub id: u32,
    /// Uid of everything inside; kept from others until the slot is gone.
    pub uid: UidLease,
    /// Directories on the host.
    pub directory: SlotDirectory,
    /// What of the network it has; kept from others until the slot is gone.
    _network: NetworkLease,
    /// From start to the agent's handshake.
    pub boot: Duration,
    /// What the agent said then.
    pub greeting: AgentGreeting,
    init: SlotInit,
    proc: Option<OwnProc>,
    agent: Option<UnixStream>,
}

/// What is left of a slot.
#[derive(Debug)]
pub struct Stopped {
    /// Its directories.
    pub directory: SlotDirectory,
    /// Its uid.
    pub uid: UidLease,
    /// Whether that uid is nobody's now. If it is somebody's, what the slot has left is not to be trusted.
    pub alone: Result<(), HolderError>,
}

/// Why there is no slot, or no longer.
#[derive(Debug, Error)]
pub enum SlotError {
    /// The kernel refused namespaces.
    #[error(
        "failed to make the slot's namespaces: {0}; the daemon must run as root (CAP_SYS_ADMIN), outside of containers \
         that forbid namespaces, on a kernel with mount, pid, net, ipc and uts namespaces"
    )]
    Namespaces(io::Error),
    /// No uid.
    #[error(transparent)]
    Uid(#[from] uids::UidError),
    /// No directories.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A step in the slot failed; the text says which.
    #[error("{0}")]
    Step(String),
    /// The slot's first process is gone.
    #[error("the slot's first process ended unexpectedly; see {log}")]
    Ended {
        /// What the guest printed.
        log: String,
    },
    /// It did not answer.
    #[error("the slot did not answer within {} s", STEP_LIMIT.as_secs())]
    NoAnswer,
    /// The socket to it broke.
    #[error("failed to talk to the slot's first process: {0}")]
    Frame(FrameError),
}

impl Slot {
    /// Boots a slot, one that can be logged into if there are keys, and waits for its agent; blocking.
    pub fn boot(
        config: &Config,
        state: &StateDirectory,
        guest: GuestPlan,
        id: u32,
        uid: UidLease,
        network: NetworkLease,
        login: Option<Login>,
    ) -> Result<Self, SlotError> {
        let started = Instant::now();
        let directory = state.new_slot(id, uid.uid())?;
        let plan = BootPlan {
            uid: uid.uid(),
            mountpoint: state.mountpoint(),
            view: directory.view(),
            build: directory.build(),
            store: config.store_directory.clone(),
            log: directory.log(),
            tmpfs_bytes: config.limits.tmpfs_bytes,
            network: network.plan(),
            guest,
            login,
            confinement: config.confinement(),
        };
        let init = spawn::slot_init(network.namespace()).map_err(SlotError::Namespaces)?;
        init.socket.set_read_timeout(Some(STEP_LIMIT)).map_err(|error| SlotError::Frame(error.into()))?;
        let greeting =
            AgentGreeting { identity: Identity::made_of(""), version: 0, features: Features::default() };
        let mut slot = Self {
            id,
            uid,
            directory,
            _network: network,
            boot: Duration::ZERO,
            greeting,
            init,
            proc: None,
            agent: None,
        };
        slot.say(&ToSlot::Boot(Box::new(plan)))?;
        match slot.hear()? {
            (FromSlot::Booted(greeting), attached) => {
                let [agent, proc] = <[OwnedFd; 2]>::try_from(attached).map_err(|_| out_of_turn())?;
                slot.greeting = greeting;
                slot.agent = Some(agent.into());
                let proc = OwnProc::new(proc).map_err(|error| {
                    SlotError::Step(format!("failed to take up the slot's /proc: {error}"))
                })?;
                slot.proc = Some(proc);
            }
            (FromSlot::Failed(reason), _) => return Err(SlotError::Step(reason)),
            _ => return Err(out_of_turn()),
        }
        slot.boot = started.elapsed();
        Ok(slot)
    }

    /// Shows store objects inside; blocking.
    pub fn show(&self, inputs: &[StoreName]) -> Result<(), SlotError> {
        for names in inputs.chunks(NAMES_A_MESSAGE) {
            self.say(&ToSlot::Show(names.to_vec()))?;
        }
        self.say(&ToSlot::ShowEnd)?;
        loop {
            match self.hear()? {
                (FromSlot::Shown, _) => return Ok(()),
                (FromSlot::Failed(reason), _) => return Err(SlotError::Step(reason)),
                (FromSlot::Stalled(late), _) => return Err(SlotError::Step(stalled(late))),
                (FromSlot::Booted(_), _) => {}
            }
        }
    }

    /// Has a connection, of a number of its own, served by an `sshd`, which logs to `log`. Both are stream sockets
    /// that end when it does.
    pub fn log_in(
        &self,
        number: u32,
        connection: BorrowedFd<'_>,
        log: BorrowedFd<'_>,
    ) -> Result<(), SlotError> {
        rights::send(&self.init.socket, &ToSlot::Login(number), &[connection, log])
            .map_err(|error| self.broken(error))
    }

    /// Ends the `sshd` of that number, if it has not ended.
    pub fn end_login(&self, number: u32) -> Result<(), SlotError> {
        self.say(&ToSlot::EndLogin(number))
    }

    /// The agent's control connection; once.
    pub fn take_agent(&mut self) -> Option<UnixStream> {
        self.agent.take()
    }

    /// A second descriptor of the socket to `slot-init`, to listen on while a build runs.
    pub fn listen(&self) -> io::Result<UnixStream> {
        self.init.socket.try_clone()
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.init.pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    /// Its processes.
    pub fn proc(&self) -> Option<OwnProc> {
        self.proc.clone()
    }

    /// Ends everything inside, and whoever else has its uid, and waits until it is dead; blocking.
    pub fn stop(self) -> Stopped {
        self.init.kill();
        if let Err(error) = self.init.wait() {
            tracing::error!(slot = self.id, %error, "failed to wait for the slot's end");
        }
        let alone = self.uid.end_holders();
        if let Err(error) = &alone {
            tracing::error!(slot = self.id, %error, "somebody may still change what the slot has left");
        }
        Stopped { directory: self.directory, uid: self.uid, alone }
    }

    fn say(&self, message: &ToSlot) -> Result<(), SlotError> {
        rights::send(&self.init.socket, message, &[]).map_err(|error| self.broken(error))
    }

    fn hear(&self) -> Result<(FromSlot, Vec<OwnedFd>), SlotError> {
        match rights::receive(&self.init.socket) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.ended()),
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(SlotError::NoAnswer)
            }
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: FrameError) -> SlotError {
        match error {
            FrameError::Io(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.ended()
            }
            error => SlotError::Frame(error),
        }
    }

    fn ended(&self) -> SlotError {
        SlotError::Ended { log: self.directory.log_tail() }
    }
}

fn out_of_turn() -> SlotError {
    SlotError::Step("the slot's first process answered out of turn".into())
}

/// What a stall is called everywhere.
pub fn stalled(late_millis: u64) -> String {
    format!("time stands still in the slot: a tick was not answered for {late_millis} ms")
}
