//! Which Nix this machine builds with.
//!
//! Where a Nix daemon runs, its version counts: it builds, with its own configuration. Else it is the Nix on `PATH` or in
//! one of the usual places.

use std::fs;
use std::path::PathBuf;

use thiserror::Error;

use super::version::{NixVersion, VersionError};
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
    for pid in daemons() {
        let program = NixProgram::at(PathBuf::from(format!("/proc/{pid}/exe")));
        // It may end meanwhile, or be another user's.
        if let Ok(answer) = program.version_text() {
            return Ok(Found { version: answer.parse()?, place: format!("nix-daemon, process {pid}") });
        }
    }
    let program = NixProgram::on_path();
    let place = program.place("nix-store").display().to_string();
    Ok(Found { version: program.version_text()?.parse()?, place })
}

/// Processes called nix-daemon, lowest first.
fn daemons() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries
        .filter(|entry| fs::read(entry.path().join("comm")).is_ok_and(|comm| comm == b"nix-daemon\n"))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// Whether one runs.
pub fn daemon_runs() -> bool {
    !daemons().is_empty()
}
