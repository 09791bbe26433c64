//! The settings of Nix as a part of an installation: what [`crate::nix::conf`] does, foreseen and done.

use std::path::{Path, PathBuf};

use crate::nix::conf::install::{Done, Foreseen, InstallError, Installation};
use crate::nix::conf::proposal::Proposal;

/// Where Nix looks for `nix.conf` unless this names another directory.
pub const NIX_CONF_DIR: &str = "NIX_CONF_DIR";

/// The directory of `nix.conf`.
pub fn directory() -> PathBuf {
    std::env::var_os(NIX_CONF_DIR).map_or_else(|| "/etc/nix".into(), PathBuf::from)
}

/// Settings to be put in place, or to be taken away.
#[derive(Debug, Clone)]
pub struct NixSettings {
    root: PathBuf,
    directory: PathBuf,
    proposal: Option<Proposal>,
}

impl NixSettings {
    /// To be put in place.
    pub fn told(root: &Path, directory: &Path, proposal: Proposal) -> Self {
        Self { root: root.into(), directory: directory.into(), proposal: Some(proposal) }
    }

    /// To be taken away.
    pub fn forgotten(root: &Path, directory: &Path) -> Self {
        Self { root: root.into(), directory: directory.into(), proposal: None }
    }

    fn installation(&self) -> Installation {
        Installation::new(self.root.clone(), &self.directory)
    }

    /// What would be done.
    pub fn foresee(&self) -> Result<Foreseen, InstallError> {
        match &self.proposal {
            Some(proposal) => self.installation().preview(proposal),
            None => self.installation().preview_removal(),
        }
    }

    /// Does it.
    pub fn carry_out(&self) -> Result<Done, InstallError> {
        match &self.proposal {
            Some(proposal) => self.installation().apply(proposal),
            None => self.installation().remove(),
        }
    }
}
