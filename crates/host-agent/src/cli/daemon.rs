//! `host-agent daemon`.

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use super::daemon_log::PlainLines;
use super::fail;
use crate::config::Config;

/// Runs the daemon; its log goes to stderr, filtered by `RUST_LOG` (default `info`).
pub(super) fn run(config: Config) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(PlainLines(std::io::stderr))
        .with_ansi(false);
    // The journal has its own clock.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init()
    } else {
        log.init()
    }
    match crate::daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}
