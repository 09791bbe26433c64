//! What fixed-output builds have for a network: one of their own with a way out, or the host's.

use std::path::{Path, PathBuf};

use super::host_listeners::HostListeners;
use super::pasta::PastaPlan;
use super::plan::{FromSlot, SlotNetwork, ToSlot};
use super::spawn::{self, NetworkNamespace};
use super::uids::{UidError, UidLease, Uids};
use super::{SlotError, rights};
use crate::config::{Config, FixedOutputNetwork};

/// The one that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideNetwork {
    /// The host's own. Its abstract sockets and what listens on its loopback can be reached.
    Host,
    /// One of the slot's own, which this pasta(1) joins to the host's.
    Pasta(PathBuf),
}

impl OutsideNetwork {
    /// What the configuration asks for. By itself it takes pasta where that is installed and works, which is tried; blocking. The
    /// text says why it does not, where it could have.
    pub fn decide(config: &Config, uids: &Uids) -> Result<(Self, Option<String>), SlotError> {
        let program = config.pasta.clone().or_else(on_path);
        match (config.fixed_output_network, program) {
            (FixedOutputNetwork::Host, _) | (FixedOutputNetwork::Auto, None) => Ok((Self::Host, None)),
            (FixedOutputNetwork::Pasta, None) => Err(SlotError::Step(
                "failed to find `pasta` on PATH: install passt, or set `pasta` or `fixed-output-network`"
                    .into(),
            )),
            (FixedOutputNetwork::Pasta, Some(program)) => {
                try_pasta(&program, uids)?;
                Ok((Self::Pasta(program), None))
            }
            (FixedOutputNetwork::Auto, Some(program)) => Ok(match try_pasta(&program, uids) {
                Ok(()) => (Self::Pasta(program), None),
                Err(error) => (Self::Host, Some(error.to_string())),
            }),
        }
    }
}

/// What of the network a slot has while it lives.
#[derive(Debug)]
pub enum NetworkLease {
    /// A loopback interface of its own.
    Loopback,
    /// The host's.
    Host,
    /// One of its own, joined to the host's.
    Pasta {
        /// The program.
        program: PathBuf,
        /// Its uid.
        uid: UidLease,
    },
}

impl OutsideNetwork {
    /// For one slot.
    pub fn lease(&self, uids: &Uids) -> Result<NetworkLease, UidError> {
        match self {
            Self::Host => Ok(NetworkLease::Host),
            Self::Pasta(program) => Ok(NetworkLease::Pasta { program: program.clone(), uid: uids.lease()? }),
        }
    }
}

impl NetworkLease {
    pub(super) fn plan(&self) -> SlotNetwork {
        match self {
            Self::Loopback => SlotNetwork::Loopback,
            Self::Host => SlotNetwork::Host,
            Self::Pasta { program, uid } => {
                SlotNetwork::Pasta(PastaPlan { program: program.clone(), uid: uid.uid() })
            }
        }
    }

    /// Where the slot's first process begins. pasta is to be started in the host's.
    pub(super) fn namespace(&self) -> NetworkNamespace {
        match self {
            Self::Loopback => NetworkNamespace::Own,
            Self::Host | Self::Pasta { .. } => NetworkNamespace::Hosts,
        }
    }
}

/// Whether a slot could be given a network by it that keeps this machine out of reach; blocking.
fn try_pasta(program: &Path, uids: &Uids) -> Result<(), SlotError> {
    let lease = uids.lease()?;
    let init = spawn::slot_init(NetworkNamespace::Hosts).map_err(SlotError::Namespaces)?;
    let plan = PastaPlan { program: program.to_owned(), uid: lease.uid() };
    let host = HostListeners::new().map_err(|error| {
        SlotError::Step(format!("failed to listen, to try what pasta's network reaches: {error}"))
    })?;
    let question = ToSlot::TryPasta(plan, host.targets().clone());
    rights::send(&init.socket, &question, &[]).map_err(SlotError::Frame)?;
    init.socket.set_read_timeout(Some(super::STEP_LIMIT)).map_err(|error| SlotError::Frame(error.into()))?;
    match rights::receive(&init.socket).map_err(SlotError::Frame)? {
        Some((FromSlot::Shown, _)) => Ok(()),
        Some((FromSlot::Failed(reason), _)) => Err(SlotError::Step(reason)),
        _ => Err(SlotError::Step("the process that tried pasta ended unexpectedly".into())),
    }
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("pasta")).find(|file| file.is_file())
}
