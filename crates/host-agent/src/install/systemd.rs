//! systemd, through systemctl.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::Step;
use super::units::{SERVICE, SOCKET};

const NIX_DAEMON: &str = "nix-daemon.service";

/// systemctl did not do it.
#[derive(Debug, Error)]
pub enum SystemdError {
    /// It can't be started.
    #[error("failed to start systemctl: {0}")]
    Start(#[from] io::Error),
    /// It failed.
    #[error("`systemctl {words}` failed: {said}")]
    Failed {
        /// Its arguments.
        words: String,
        /// What it printed.
        said: String,
    },
}

/// What systemd knows of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Socket and service are enabled.
    pub enabled: bool,
    /// Both are up.
    pub active: bool,
    /// nix-daemon is up.
    pub nix_daemon: bool,
}

/// Whether this machine was booted with it (sd_booted(3)).
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

impl State {
    /// As it is.
    pub fn now() -> Self {
        let both = |word| says(&[word, "--quiet", SOCKET]) && says(&[word, "--quiet", SERVICE]);
        Self {
            enabled: both("is-enabled"),
            active: both("is-active"),
            nix_daemon: says(&["is-active", "--quiet", NIX_DAEMON]),
        }
    }

    /// What a change of Nix's settings asks for. Running builds go on: each has a process of nix-daemon's of its own.
    pub(super) fn nix_daemon_steps(self, units_changed: bool) -> Vec<Step> {
        let reload = units_changed.then(|| vec!["daemon-reload"]);
        let restart = self.nix_daemon.then(|| vec!["try-restart", NIX_DAEMON]);
        reload.into_iter().chain(restart).map(Step::Systemctl).collect()
    }
}

fn says(words: &[&str]) -> bool {
    command(words).status().is_ok_and(|status| status.success())
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs systemctl to its end. Starting the daemon takes until it is ready.
pub fn run(words: &[&str]) -> Result<(), SystemdError> {
    let output = command(words).stderr(Stdio::piped()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(SystemdError::Failed {
            words: words.join(" "),
            said: String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', "\n    "),
        }),
    }
}

/// Forgets failures of units that are gone; that there were none is no failure.
pub fn forget_failures() {
    for unit in [SERVICE, SOCKET] {
        let _ = run(&["reset-failed", unit]);
    }
}

/// Has the daemon finish its builds and end. Returns when a new one is ready, calling `waiting` once if that is not at once;
/// `false` if it was still busy after `limit`.
pub fn drain(limit: Option<Duration>, waiting: impl FnOnce()) -> Result<bool, SystemdError> {
    let old = main_pid();
    run(&["reload", SERVICE])?;
    let start = Instant::now();
    let mut waiting = Some(waiting);
    loop {
        let now = main_pid();
        if now != old && now.is_some() && says(&["is-active", "--quiet", SERVICE]) {
            return Ok(true);
        }
        if says(&["is-failed", "--quiet", SERVICE]) {
            let said = "the new daemon does not start; see `journalctl -u darling-builder`".into();
            return Err(SystemdError::Failed { words: format!("reload {SERVICE}"), said });
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            return Ok(false);
        }
        if start.elapsed() > Duration::from_secs(3)
            && let Some(waiting) = waiting.take()
        {
            waiting();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Process of the running daemon.
fn main_pid() -> Option<u32> {
    let output = Command::new("systemctl")
        .args(["show", "--property=MainPID", "--value", SERVICE])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|&pid| pid != 0)
}
