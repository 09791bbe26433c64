//! The daemon and the sockets.

use std::os::unix::ffi::OsStrExt;

use super::Finding;
use crate::config::Config;
use crate::control::client::{Client, ClientError};
use crate::control::message::StatusReport;
use crate::slot::root::AGENT_DIR;

/// `sun_path` of Linux (unix(7)) and of macOS, each without the final NUL.
const LINUX_PATH: usize = 107;
const DARWIN_PATH: usize = 103;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    vec![socket_paths(config), daemon(config)]
}

/// The daemon's is checked with the configuration; the agent's is fixed and seen from inside Darling.
fn socket_paths(config: &Config) -> Finding {
    const NAME: &str = "socket-paths";
    let daemon = config.socket.as_os_str().as_bytes().len();
    let agent = format!("/Volumes/SystemRoot{AGENT_DIR}/a").len();
    let detail = format!("daemon's {daemon} of {LINUX_PATH} bytes, agent's {agent} of {DARWIN_PATH}");
    if daemon <= LINUX_PATH && agent <= DARWIN_PATH {
        Finding::fine(NAME, detail)
    } else {
        Finding::broken(NAME, detail, "set a shorter `socket`")
    }
}

fn daemon(config: &Config) -> Finding {
    const NAME: &str = "daemon";
    match Client::connect(&config.socket, "doctor").and_then(|mut client| client.status()) {
        Ok(report) => judge(config, &report),
        Err(error @ ClientError::Refused(_)) => {
            Finding::warning(NAME, error, "ask as root or as a user that may build")
        }
        Err(error) => Finding::broken(
            NAME,
            error,
            "start it, and see its log (`journalctl -u darling-builder`) if it does not stay",
        ),
    }
}

fn judge(config: &Config, report: &StatusReport) -> Finding {
    const NAME: &str = "daemon";
    const RESTART: &str = "systemctl reload darling-builder";
    const WAIT: &str = "wait: it ends with its last build, and systemd starts a new one";
    let detail = format!(
        "answers on {}: version {}, guest {}, {} slots, {} builds",
        config.socket.display(),
        report.version,
        report.guest,
        report.slots.len(),
        report.builds.len()
    );
    if report.version != env!("CARGO_PKG_VERSION") {
        Finding::warning(NAME, format!("{detail}; this program is {}", env!("CARGO_PKG_VERSION")), RESTART)
    } else if report.guest != config.guest.as_str() {
        Finding::warning(NAME, format!("{detail}; configured is {}", config.guest.as_str()), RESTART)
    } else if report.draining {
        Finding::warning(NAME, format!("{detail}; draining, it takes nothing new"), WAIT)
    } else {
        Finding::fine(NAME, detail)
    }
}
