//! `host-agent --check`: can builds work on this machine, and if not, what is to be done.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, ConfigError};
use crate::control::client::Client;
use crate::guest::GuestPlan;
use crate::request::Network;
use crate::slot::spawn;

/// How bad a finding is; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Fine,
    Warning,
    Broken,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    severity: Severity,
    /// What was found.
    detail: String,
    /// What to do about it.
    hint: &'static str,
}

impl Finding {
    fn fine(what: &'static str, detail: impl Display) -> Self {
        Self { what, severity: Severity::Fine, detail: detail.to_string(), hint: "" }
    }

    fn warning(what: &'static str, detail: impl Display, hint: &'static str) -> Self {
        Self { what, severity: Severity::Warning, detail: detail.to_string(), hint }
    }

    fn broken(what: &'static str, detail: impl Display, hint: &'static str) -> Self {
        Self { what, severity: Severity::Broken, detail: detail.to_string(), hint }
    }
}

/// Prints every finding with its hint. Exit status 0 when builds can work (warnings included), 1 when they can't.
pub(super) fn run(config: Result<Config, ConfigError>) -> ExitCode {
    let findings = match config {
        Ok(config) => look(&config),
        Err(error) => {
            vec![Finding::broken("configuration", error, "mend the file, or point --config at another")]
        }
    };
    let mut worst = Severity::Fine;
    for finding in &findings {
        worst = worst.max(finding.severity);
        println!("{}", render(finding));
    }
    if worst == Severity::Broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn render(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Fine => "ok     ",
        Severity::Warning => "warning",
        Severity::Broken => "BROKEN ",
    };
    let mut text = format!("{mark}  {}: {}", finding.what, finding.detail);
    if !finding.hint.is_empty() {
        text.push_str("\n         → ");
        text.push_str(finding.hint);
    }
    text
}

fn look(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::fine("configuration", "understood"), kernel(), rights()];
    findings.push(match GuestPlan::new(config) {
        Ok(_) => Finding::fine("guest", config.guest.as_str()),
        Err(error) => Finding::broken(
            "guest",
            error,
            "install the agent beside host-agent, and Darling for `guest = \"darling\"`",
        ),
    });
    findings.extend([namespaces(), file_systems(config), home(), daemon(config)]);
    findings
}

fn kernel() -> Finding {
    let release = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 12) {
        Finding::fine("kernel", release)
    } else {
        Finding::broken(
            "kernel",
            release,
            "Linux 5.12 or later is needed (open_tree, move_mount, mount_setattr)",
        )
    }
}

fn rights() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::fine("rights", "root")
    } else {
        Finding::warning(
            "rights",
            "not root: what the daemon can do is not tested",
            "run `host-agent --check` as root to test all of it",
        )
    }
}

fn namespaces() -> Finding {
    const WHAT: &str = "namespaces";
    if !nix::unistd::geteuid().is_root() {
        return Finding::warning(WHAT, "not tried", "run `host-agent --check` as root");
    }
    // It ends by itself, as its socket closes at once.
    match spawn::slot_init(Network::Loopback) {
        Ok(_) => Finding::fine(WHAT, "mount, pid, net, ipc and uts can be made"),
        Err(error) => Finding::broken(
            WHAT,
            error,
            "run outside of containers that forbid namespaces; see /proc/sys/user/max_*_namespaces",
        ),
    }
}

fn file_systems(config: &Config) -> Finding {
    const WHAT: &str = "store and state directory";
    use std::os::unix::fs::MetadataExt;
    let store = match std::fs::metadata(&config.store_directory) {
        Ok(store) => store,
        Err(error) => {
            return Finding::broken(
                WHAT,
                format!("{}: {error}", config.store_directory.display()),
                "install Nix, or set `store-directory`",
            );
        }
    };
    // It is made by the daemon; until then what counts is where it will be.
    let state = config.state_directory.ancestors().find_map(|path| std::fs::metadata(path).ok());
    if state.is_some_and(|state| state.dev() == store.dev()) {
        Finding::fine(WHAT, "on one file system: outputs are renamed, not copied")
    } else {
        Finding::warning(
            WHAT,
            "on different file systems: every output is copied",
            "set `state-directory` to a place on the store's file system",
        )
    }
}

fn home() -> Finding {
    if Path::new("/homeless-shelter").exists() {
        Finding::warning(
            "/homeless-shelter",
            "exists on this host",
            "Nix refuses local builds while it does: remove it",
        )
    } else {
        Finding::fine("/homeless-shelter", "does not exist, as it should")
    }
}

fn daemon(config: &Config) -> Finding {
    const WHAT: &str = "daemon";
    match Client::connect(&config.socket, "check").and_then(|mut client| client.status()) {
        Ok(report) => Finding::fine(
            WHAT,
            format!(
                "answers on {}, version {}, {} slots",
                config.socket.display(),
                report.version,
                report.slots.len()
            ),
        ),
        Err(error) => {
            Finding::broken(WHAT, error, "start it, and see its log for the reason if it does not stay")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_hint_on_a_line_of_its_own() {
        insta::assert_snapshot!(render(&Finding::broken("kernel", "4.19", "get a newer one")), @r"
        BROKEN   kernel: 4.19
                 → get a newer one
        ");
    }
}
