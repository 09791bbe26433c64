//! Which Nix this machine builds with.
//!
//! Where a Nix daemon runs, its version counts: it builds, with its own configuration. Else it is the Nix on `PATH` or in
//! one of the usual places.

use thiserror::Error;

use super::version::{NixVersion, VersionError};
use crate::nix::running_daemon;
use crate::nix::store_command::{NixProgram, StoreCommandError};

/// A Nix.
#[derive(Debug)]
pub struct Found {
    /// Its version.
    pub version: NixVersion,
    /// Where it was found, for the user.
    pub place: String,
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// It could not be asked.
    #[error("failed to find Nix: {0}; say --nix-version if it is to be installed later")]
    Ask(#[from] StoreCommandError),
    /// It gave a strange answer.
    #[error(transparent)]
    Version(#[from] VersionError),
}

/// Finds it.
pub fn find() -> Result<Found, DiscoverError> {
    for daemon in running_daemon::find() {
        let program = NixProgram::at(daemon.executable());
        // It may end meanwhile, or be another user's.
        if let Ok(answer) = program.version_text() {
            let place = format!("nix-daemon, process {}", daemon.pid);
            return Ok(Found { version: answer.parse()?, place });
        }
    }
    let program = NixProgram::on_path();
    let place = program.place("nix-store").display().to_string();
    Ok(Found { version: program.version_text()?.parse()?, place })
}

/// Whether a Nix daemon runs.
pub fn daemon_runs() -> bool {
    !running_daemon::find().is_empty()
}
