//! The one checker: can builds work on this machine, what is in the way, and how is that mended.
//!
//! One module an area, each a list of [`Finding`]s. Things are found out by trying them: namespaces are made, a slot is
//! booted and a script run in it. Nothing is changed; what is made to try something is gone afterwards. What can't be tried
//! without root is said to be untried, never guessed.

mod agent;
mod answers;
mod confinement;
mod daemon;
mod darling;
mod kernel;
mod machine;
mod network;
mod nix;
mod program;
mod report;
mod slot;
mod ssh;
mod store;

pub use report::{json, short, text};

use std::fmt::Display;

use serde::Serialize;

use crate::config::{Config, ConfigError, GuestKind};

/// How bad a finding is; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Builds work, but not as well as they could, or it could not be tried.
    Warning,
    /// Builds can't work.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at. Names stay the same from release to release.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    fn fine(name: &'static str, detail: impl Display) -> Self {
        Self { name, severity: Severity::Fine, detail: detail.to_string(), fix: None }
    }

    fn warning(name: &'static str, detail: impl Display, fix: impl Display) -> Self {
        Self { name, severity: Severity::Warning, detail: detail.to_string(), fix: Some(fix.to_string()) }
    }

    fn broken(name: &'static str, detail: impl Display, fix: impl Display) -> Self {
        Self { name, severity: Severity::Broken, detail: detail.to_string(), fix: Some(fix.to_string()) }
    }

    /// Something that only root can try.
    fn untried(name: &'static str) -> Self {
        Self::warning(name, "not tried: that takes root", "run this as root")
    }
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Program version.
    pub version: &'static str,
    /// The worst severity.
    pub worst: Severity,
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Fine);
        Self { version: env!("CARGO_PKG_VERSION"), worst, findings }
    }
}

/// Looks at everything.
pub fn examine(config: Result<Config, ConfigError>) -> Report {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            return Report::new(vec![Finding::broken(
                "configuration",
                error,
                "mend the file, or point --config at another",
            )]);
        }
    };
    let mut findings = vec![
        Finding::fine("configuration", format!("understood; guest {}", config.guest.as_str())),
        machine::rights(),
    ];
    findings.extend(kernel::findings(&config));
    findings.extend(machine::findings(&config));
    findings.extend(store::findings(&config));
    findings.push(agent::finding(&config));
    if config.guest == GuestKind::Darling {
        findings.extend(darling::findings(&config));
    }
    findings.extend(slot::findings(&config));
    findings.push(network::finding(&config));
    findings.extend(daemon::findings(&config));
    findings.extend(ssh::findings(&config));
    findings.extend(nix::findings(&config));
    Report::new(findings)
}

fn is_root() -> bool {
    ::nix::unistd::geteuid().is_root()
}

/// Bytes as people say them.
fn human(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{} MiB", bytes >> 20),
        1..10 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        gib => format!("{gib} GiB"),
    }
}
