//! Running the commands of the very Nix that is building.
//!
//! A daemon's `PATH` may have no Nix in it, or another version. All of Nix's commands are one program that looks at the
//! base name of `argv[0]`, so the parent's own executable under another name is the right one. Their standard streams
//! must never be ours: file descriptors 1 and 2 carry the hook's replies.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

/// Where Nix is installed if it is not on `PATH`.
const USUAL_PLACES: [&str; 3] =
    ["/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin", "/usr/bin"];

/// The Nix whose commands are run.
#[derive(Debug, Clone)]
pub struct NixProgram {
    /// The building Nix's executable; `None` if the parent is something else.
    executable: Option<PathBuf>,
}

/// Why a command gave no answer.
#[derive(Debug, Error)]
pub enum StoreCommandError {
    /// It could not be started.
    #[error("failed to start `{command}`: {error}; put Nix's commands on the PATH of the Nix daemon")]
    Start {
        /// The command's name.
        command: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// It failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command's name.
        command: &'static str,
        /// Exit status or signal.
        status: String,
        /// What it printed to its standard error.
        stderr: String,
    },
    /// Its answer is not understood.
    #[error("failed to understand the answer of `{command}`: {problem}")]
    Answer {
        /// The command's name.
        command: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl NixProgram {
    /// The parent process if that is Nix, else whatever is on `PATH`.
    pub fn of_parent() -> Self {
        let link = PathBuf::from(format!("/proc/{}/exe", std::os::unix::process::parent_id()));
        // The link still works after an upgrade has deleted the file; its text then ends in " (deleted)".
        let is_nix = |target: PathBuf| target.file_name().is_some_and(is_nix_name);
        let executable = std::fs::read_link(&link).is_ok_and(is_nix).then_some(link);
        Self { executable }
    }

    /// Whatever is on `PATH`, or in one of the usual places.
    pub fn on_path() -> Self {
        Self { executable: None }
    }

    /// Nix's executable under whatever name.
    pub fn at(executable: PathBuf) -> Self {
        Self { executable: Some(executable) }
    }

    /// Where the command `name` is taken from.
    pub fn place(&self, name: &str) -> PathBuf {
        self.executable.clone().unwrap_or_else(|| on_path(name))
    }

    /// A command of this Nix, with this process's environment and no standard streams.
    pub fn command(&self, name: &str) -> Command {
        let mut command = match &self.executable {
            Some(executable) => {
                let mut command = Command::new(executable);
                command.arg0(name);
                command
            }
            None => Command::new(on_path(name)),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Nix's own build hook. The executable takes that name from 2.3 to 2.35, wherever a version's `libexec` is.
    pub fn remote_build_hook(&self) -> Command {
        let mut command = Command::new(self.executable.clone().unwrap_or_else(|| on_path("nix")));
        command.arg0("build-remote");
        command
    }

    /// What `nix-store` prints for these arguments, operating on the local store directly.
    pub fn ask_store(&self, arguments: &[OsString]) -> Result<Vec<u8>, StoreCommandError> {
        let mut command = self.command("nix-store");
        command.args(["--store", "local"]).args(arguments);
        answer("nix-store", command)
    }

    /// Major and minor version, from `nix-store --version`.
    pub fn version(&self) -> Result<(u32, u32), StoreCommandError> {
        let text = self.version_text()?;
        parse_version(text.as_bytes()).ok_or_else(|| StoreCommandError::Answer {
            command: "nix-store",
            problem: format!("no version in '{text}'"),
        })
    }

    /// What `nix-store --version` prints.
    pub fn version_text(&self) -> Result<String, StoreCommandError> {
        let mut command = self.command("nix-store");
        command.arg("--version");
        let text = answer("nix-store", command)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Runs a command to its end. Returns what it has printed.
pub fn answer(name: &'static str, mut command: Command) -> Result<Vec<u8>, StoreCommandError> {
    command.stdout(Stdio::piped());
    run(name, command).map(|output| output.stdout)
}

/// Runs a command to its end, whatever it prints.
pub fn succeed(name: &'static str, mut command: Command) -> Result<(), StoreCommandError> {
    command.stdout(Stdio::null());
    run(name, command).map(drop)
}

fn run(name: &'static str, mut command: Command) -> Result<Output, StoreCommandError> {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| StoreCommandError::Start { command: name, error })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(StoreCommandError::Failed {
        command: name,
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn is_nix_name(name: &OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let name = name.as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    name == b"nix" || name.starts_with(b"nix-")
}

fn on_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(USUAL_PLACES.iter().map(PathBuf::from));
    places
        .map(|place| place.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| Path::new(name).into())
}

fn parse_version(text: &[u8]) -> Option<(u32, u32)> {
    let text = String::from_utf8_lossy(text);
    let version = text.trim().rsplit(' ').next()?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_nix_even_after_an_upgrade_has_replaced_it() {
        for name in ["nix", "nix (deleted)", "nix-daemon", "nix-store"] {
            assert!(is_nix_name(OsStr::new(name)), "{name}");
        }
        for name in ["bash", "hydra-queue-runner", "nixos"] {
            assert!(!is_nix_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn reads_versions_of_releases_and_snapshots() {
        assert_eq!(parse_version(b"nix-store (Nix) 2.8.0\n"), Some((2, 8)));
        assert_eq!(parse_version(b"nix-store (Nix) 2.36pre20260822_88b09c6\n"), Some((2, 36)));
        assert_eq!(parse_version(b"nix-store (Lix, like Nix) 2.93.1\n"), Some((2, 93)));
        assert_eq!(parse_version(b"what?\n"), None);
    }

    #[test]
    fn a_failing_command_is_reported_with_its_words() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let error = answer("nix-store", command).unwrap_err();
        insta::assert_snapshot!(error, @"`nix-store` failed (exit status: 3): why");
    }
}
