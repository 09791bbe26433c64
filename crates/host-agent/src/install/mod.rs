//! `host-agent install` and `uninstall`: this program set up on a machine with systemd and Nix, and taken away again.
//!
//! What is to be done is worked out first, as a list of [`Step`]s, then shown or carried out: a dry run and a real one can't
//! differ. What was done is recorded, and undone from the record.
//!
//! - [`layout`]: where programs go.
//! - [`units`], [`config_file`], [`nix_settings`]: what else there is.
//! - [`files`], [`record`]: putting files in place, and knowing which are ours.
//! - [`plan`], [`removal`]: the steps of installing, and of uninstalling.
//! - [`package`]: only the files, for those who make packages.
//! - [`show`], [`carry_out`]: telling them, and doing them.
//! - [`systemd`], [`builds`]: the running daemon.

pub mod builds;
pub mod carry_out;
pub mod config_file;
pub mod files;
pub mod layout;
pub mod nix_settings;
pub mod package;
pub mod plan;
pub mod record;
pub mod removal;
pub mod show;
pub mod systemd;
pub mod units;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::ConfigError;
use crate::nix::conf::install::{Foreseen, InstallError as NixError};
use files::{Contents, FileError, Files};
use nix_settings::NixSettings;
use record::Record;

/// Where programs are put by default.
pub const PREFIX: &str = "/usr/local";

/// Why nothing, or not all, was done.
#[derive(Debug, Error)]
pub enum InstallError {
    /// Not root.
    #[error("failed to {0}: this takes root; `--dry-run` shows what would be done")]
    NotRoot(&'static str),
    /// It has another way.
    #[error(
        "failed to install: this is NixOS, which would undo it; set `services.darling-builder.enable = true` in the system's \
         configuration instead"
    )]
    NixOs,
    /// No systemd.
    #[error(
        "failed to install: this machine was not booted with systemd; `--no-start` puts the files in place, and \
         `host-agent daemon` is what has to be kept running"
    )]
    NoSystemd,
    /// No Nix, or a strange one.
    #[error("{0}")]
    Nix(String),
    /// No Darling.
    #[error("{0} (`host-agent install --guest linux`)")]
    NoDarling(String),
    /// The user's file says otherwise.
    #[error("failed to choose the guest: {file} is there and says `{says}`; change it there", file = file.display())]
    Guest {
        /// The configuration.
        file: PathBuf,
        /// Its guest.
        says: &'static str,
    },
    /// Half a program.
    #[error(
        "failed to find the agent `{name}` beside {running} or in ../libexec/darling-builder; install from the archive or the \
         package, which have it", running = running.display()
    )]
    NoAgent {
        /// File name of the agent.
        name: &'static str,
        /// This program.
        running: PathBuf,
    },
    /// A package without the link.
    #[error("failed to find {hook}, a link to host-agent that the package should have", hook = .0.display())]
    NoHook(PathBuf),
    /// Somebody else's file.
    #[error("failed to write {file}: it is there and was not written by this program; move it away", file = .0.display())]
    Foreign(PathBuf),
    /// The record.
    #[error(
        "failed to understand {file}, which says what is installed: {problem}; move it away, and what it names is left alone",
        file = record::PATH
    )]
    Record {
        /// What is wrong.
        problem: String,
    },
    /// Builds run.
    #[error(
        "failed to uninstall: builds that run or wait: {0}; `--drain` lets them finish first, `--force` ends them with the reason \
         that the daemon stops"
    )]
    Busy(usize),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A unit.
    #[error(transparent)]
    Unit(#[from] units::UnitError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A setting of Nix's.
    #[error(transparent)]
    NixSettings(#[from] NixError),
    /// A command of systemd's.
    #[error(transparent)]
    Systemd(#[from] systemd::SystemdError),
    /// The daemon's directory.
    #[error(transparent)]
    State(#[from] crate::slot::directory::DirectoryError),
}

/// One thing to do.
#[derive(Debug)]
pub enum Step {
    /// Put a file in place.
    Write {
        /// Where.
        path: PathBuf,
        /// What.
        contents: Contents,
        /// What is there now, if that is a text; `None` also if nothing is.
        before: Option<String>,
        /// Whether anything is there now.
        replaces: bool,
    },
    /// Take a file of ours away.
    Remove(PathBuf),
    /// Take the daemon's directory away.
    RemoveState(PathBuf),
    /// Change Nix's settings.
    Nix(NixSettings, Foreseen),
    /// Run systemctl with these words.
    Systemctl(Vec<&'static str>),
    /// Have the running daemon finish its builds; what runs after that is a new daemon without builds.
    Drain,
}

/// All of it.
#[derive(Debug)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// What the user should know besides.
    pub notes: Vec<String>,
    /// What is recorded before.
    before: Record,
    /// What is recorded afterwards; `None`: nothing is installed then.
    after: Option<Record>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.after.as_ref() == Some(&self.before)
    }
}

/// What is recorded; `None` if nothing is installed.
fn recorded(files: &Files) -> Result<Option<Record>, InstallError> {
    let bytes = files.read(Path::new(record::PATH))?;
    let record = bytes.map(|bytes| Record::parse(&bytes)).transpose();
    record.map_err(|problem| InstallError::Record { problem })
}
