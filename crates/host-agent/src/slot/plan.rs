//! What the daemon and a slot's first process say to each other: a plan to boot by, then store objects to show.

use std::path::PathBuf;

use protocol::hello::{Features, Identity};
use serde::{Deserialize, Serialize};

use super::confinement::Confinement;
use super::host_listeners::HostTargets;
use super::pasta::PastaPlan;
use crate::guest::GuestPlan;
use crate::ssh::login::Login;
use crate::store_path::StoreName;

/// Everything that `slot-init` needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// Uid and gid of everything that the guest runs.
    pub uid: u32,
    /// An existing host directory to mount the new root on; only this slot's mount namespace sees what is mounted.
    pub mountpoint: PathBuf,
    /// Host directory that becomes the store view.
    pub view: PathBuf,
    /// Host directory that becomes `/build`.
    pub build: PathBuf,
    /// The store on the host, and the path under which the slot sees its view.
    pub store: PathBuf,
    /// Host file for what the guest's own programs print.
    pub log: PathBuf,
    /// Size of `/tmp`, bytes.
    pub tmpfs_bytes: u64,
    /// What of the network there is.
    pub network: SlotNetwork,
    /// What runs in it.
    pub guest: GuestPlan,
    /// Under what the guest is started.
    pub confinement: Confinement,
    /// The keys, if it can be logged into.
    pub login: Option<Login>,
}

/// What of the network a slot has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotNetwork {
    /// A loopback interface of its own.
    Loopback,
    /// The host's.
    Host,
    /// One of its own, joined to the host's.
    Pasta(PastaPlan),
}

/// To `slot-init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSlot {
    /// First message: boot.
    Boot(Box<BootPlan>),
    /// First message instead: only try whether this gives a network, from which the host can't be reached. Answered by `Shown` or
    /// `Failed`.
    TryPasta(PastaPlan, HostTargets),
    /// Show these store objects.
    Show(Vec<StoreName>),
    /// Serve this connection, of this number, with an `sshd` of its own. Two stream sockets come with it, that one and
    /// one for what `sshd` logs; both end when it does. Never answered.
    Login(u32),
    /// End the `sshd` of this number, if it has not ended.
    EndLogin(u32),
    /// All are named: answer `Shown` when they are there.
    ShowEnd,
}

/// What was agreed with the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentGreeting {
    /// Program, version and system, in its own words.
    pub identity: Identity,
    /// Version of the agent's protocol that is spoken.
    pub version: u32,
    /// What both sides can do.
    pub features: Features,
}

/// From `slot-init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSlot {
    /// The agent is connected; its control connection comes with this message, and the slot's /proc.
    Booted(AgentGreeting),
    /// The store view is complete.
    Shown,
    /// This went wrong; the slot is of no use.
    Failed(String),
    /// A tick was not answered for so many milliseconds: time stands still inside.
    Stalled(u64),
}
