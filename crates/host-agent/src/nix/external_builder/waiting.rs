//! Coming by a place with the daemon: it may be starting, or have as many builds as it takes.
//!
//! Nix has given this build one of its own places already, so there is nobody to pass it on to: it waits, or fails.

use std::io;
use std::time::{Duration, Instant};

use crate::config::{Config, WhenUnavailable};
use crate::control::client::{Client, ClientError, Place};

/// How the external builder introduces itself to the daemon.
const FRONT_END: &str = "external-builder";

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// What is in the way for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Absent,
    Busy,
}

/// Connects and reserves a place; `tell` gets one line whenever there is another reason to wait. An error is the line
/// to fail with.
pub fn reserve(config: &Config, mut tell: impl FnMut(&str) -> io::Result<()>) -> Result<Client, String> {
    let mut waiting: Option<(Obstacle, Instant)> = None;
    loop {
        let (obstacle, reason) = match attempt(config) {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(reason)) => (Obstacle::Busy, format!("the daemon takes no more builds for now: {reason}")),
            Err(error) if is_absent(&error) => (Obstacle::Absent, error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let settings = &config.external_builder;
        let (when, limit, key) = match obstacle {
            Obstacle::Absent => (settings.when_absent, settings.absent_wait_seconds, "when-absent"),
            Obstacle::Busy => (settings.when_busy, settings.busy_wait_seconds, "when-busy"),
        };
        if when == WhenUnavailable::Fail {
            return Err(format!("{reason} (and `{key}` is \"fail\")"));
        }
        let since = match waiting {
            Some((known, since)) if known == obstacle => since,
            _ => {
                let until = match limit {
                    0 => String::new(),
                    limit => format!(", up to {limit} s"),
                };
                tell(&format!("waiting{until}: {reason}"))
                    .map_err(|error| format!("failed to write to Nix: {error}"))?;
                let since = Instant::now();
                waiting = Some((obstacle, since));
                since
            }
        };
        if limit > 0 && since.elapsed() >= Duration::from_secs(limit) {
            return Err(format!("gave up after {limit} s: {reason}"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// `Err` inside: no place, and why.
fn attempt(config: &Config) -> Result<Result<Client, String>, ClientError> {
    let mut client = Client::connect(&config.socket, FRONT_END)?;
    Ok(match client.reserve()? {
        Place::Reserved { .. } => Ok(client),
        Place::Full(reason) => Err(reason),
    })
}

/// Whether nobody listens; a socket that may not be used is another matter.
fn is_absent(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { error, .. } => {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        }
        ClientError::Closed => true,
        _ => false,
    }
}
