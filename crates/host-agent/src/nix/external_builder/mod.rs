//! The external builder: Nix (2.32 and later) starts it for one build, and registers what it leaves.
//!
//! Nix waits for the start marker before it does anything else, and takes a missing one as the end of its whole run. So
//! the marker comes first, and everything that can go wrong is a failed build. Nix may kill this process at any time
//! without warning; the daemon then sees the connection close, kills the slot and gives the build directory back.

mod build_json;
mod fixed_output;
mod process;
mod request;
mod waiting;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use protocol::message::Exit;

pub use build_json::{BuildJson, BuildJsonError};
pub use fixed_output::FixedOutput;
pub use process::close_inherited;
pub use request::{Refusal, build_request};

use super::activity;
use super::descriptors::BuildLog;
use super::failure::describe_errno;
use super::take;
use crate::config::{Config, ConfigError};
use crate::control::client::{BuildEvent, Client};
use crate::request::{BuildLimits, BuildOutcome, BuildPhase, BuildReport, BuildRequest, HandedOutput};

/// Ends Nix's wait for the build environment (Nix `src/libstore/unix/build/derivation-builder.cc`).
const START_MARKER: &[u8] = b"\x02\n";

/// Exit status when there is none of the builder's to pass on.
const FAILED: u8 = 1;

/// Why a build came to nothing, if its builder has not said so itself.
enum Ended {
    /// With this line for the log.
    Failed(String),
    /// Nobody reads the log any more.
    NixIsGone,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Ended::NixIsGone
    }
}

/// To be called before anything else is done: says to Nix that the build has begun. `false`: Nix is gone.
pub fn begin() -> bool {
    close_inherited();
    io::stdout().write_all(START_MARKER).and_then(|()| io::stdout().flush()).is_ok()
}

/// Builds what `description` describes. Returns the exit status, unless a signal ended the builder: then it ends this
/// process as well.
pub fn run(config: Result<Config, ConfigError>, description: &Path) -> u8 {
    let Ok(output) = io::stdout().as_fd().try_clone_to_owned() else { return FAILED };
    let mut log = BuildLog::to(File::from(output));
    match config.map_err(|error| one_line(&error)).map_err(Ended::Failed).and_then(|config| {
        let exit = build(&config, description, &mut log)?;
        Ok((config, exit))
    }) {
        Ok((_, Exit::Code(code))) => u8::try_from(code).unwrap_or(FAILED),
        Ok((config, Exit::Signal(signal))) => {
            process::die_of(signal, config.guest);
            u8::try_from(128 + signal).unwrap_or(FAILED)
        }
        Ok(_) | Err(Ended::NixIsGone) => FAILED,
        Err(Ended::Failed(line)) => {
            let _ = tell(&mut log, &line);
            FAILED
        }
    }
}

/// A line of ours in the build's log.
fn tell(log: &mut BuildLog, text: &str) -> io::Result<()> {
    log.write_line(format!("darling-builder: {text}").as_bytes())
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// How the builder ended; [`Exit::Code`] or [`Exit::Signal`].
fn build(config: &Config, description: &Path, log: &mut BuildLog) -> Result<Exit, Ended> {
    let refused = |reason: String| Ended::Failed(format!("can't build this: {reason}"));
    let json = BuildJson::read(description).map_err(|error| refused(error.to_string()))?;
    let (request, note) = build_request(&json, config).map_err(|error| refused(error.to_string()))?;
    drop(json);
    if let Some(note) = note {
        tell(log, &note)?;
    }
    let mut client = waiting::reserve(config, |line| tell(log, line)).map_err(Ended::Failed)?;
    let failed = |error: crate::control::client::ClientError| Ended::Failed(error.to_string());
    client.submit(&request).map_err(failed)?;
    let report = watch(&mut client, log)?;
    let limits = config.limits.of_a_build();
    match report.outcome {
        BuildOutcome::HandedOver(outputs) => {
            take_all(&request, &outputs, config)?;
            Ok(Exit::Code(0))
        }
        BuildOutcome::BuilderFailed(exit @ (Exit::Code(_) | Exit::Signal(_))) => Ok(exit),
        outcome => Err(Ended::Failed(describe(&outcome, &limits))),
    }
}

/// Passes the builder's output on until it has ended.
fn watch(client: &mut Client, log: &mut BuildLog) -> Result<BuildReport, Ended> {
    let mut waited = false;
    loop {
        let event = client.next_event().map_err(|error| Ended::Failed(error.to_string()))?;
        match event {
            BuildEvent::Output(bytes) => log.write(&bytes)?,
            BuildEvent::Note(line) => tell(log, &line)?,
            BuildEvent::Finished(report) => return Ok(*report),
            BuildEvent::Phase(BuildPhase::Queued(ahead)) => {
                waited = true;
                let phase = activity::phase(&format!("waiting for a slot ({ahead} ahead)"));
                log.write_line(phase.trim_ascii_end())?;
            }
            BuildEvent::Phase(BuildPhase::Building) if waited => {
                log.write_line(activity::phase("building").trim_ascii_end())?;
            }
            BuildEvent::Phase(_) => {}
        }
    }
}

/// Moves outputs to where Nix expects them. This is done here and not by the daemon: Nix has made a mount namespace in
/// which the store can be written to, and as the build user this process can do no more there than any builder.
fn take_all(request: &BuildRequest, outputs: &[HandedOutput], config: &Config) -> Result<(), Ended> {
    for output in outputs {
        if !request.outputs.iter().any(|asked| asked.path == output.path) {
            return Err(Ended::Failed(format!("the daemon made '{}', which nobody asked for", output.path)));
        }
        let target = output.path.in_store(&config.store_directory);
        take::take(output.staged.as_path(), &target).map_err(|error| Ended::Failed(error.to_string()))?;
    }
    Ok(())
}

fn describe(outcome: &BuildOutcome, limits: &BuildLimits) -> String {
    let seconds = |limit: Option<std::time::Duration>| limit.map_or(0, |limit| limit.as_secs());
    match outcome {
        BuildOutcome::BuilderFailed(Exit::SpawnFailed { step, errno }) => {
            format!("the builder could not be started: {step}: {}", describe_errno(*errno))
        }
        BuildOutcome::BuilderFailed(Exit::TimedOut) => {
            format!("timed out after {} seconds (`limits.wall-seconds`)", seconds(limits.wall))
        }
        BuildOutcome::BuilderFailed(Exit::Silent) => {
            format!(
                "timed out after {} seconds of silence (`limits.silence-seconds`)",
                seconds(limits.silence)
            )
        }
        BuildOutcome::BuilderFailed(Exit::LogLimit) => format!(
            "killed after writing more than {} bytes of log output (`limits.log-bytes`)",
            limits.log_bytes.unwrap_or_default()
        ),
        BuildOutcome::BuilderFailed(Exit::Killed) => "the daemon stopped the build".into(),
        BuildOutcome::BuilderFailed(Exit::Code(_) | Exit::Signal(_)) => "the builder failed".into(),
        BuildOutcome::OutputRejected { output, reason } => {
            format!("output '{output}' was rejected: {reason}")
        }
        BuildOutcome::MissingOutputs(names) => format!("the builder did not make {}", names.join(", ")),
        BuildOutcome::Infrastructure(reason) => one_line(reason),
        BuildOutcome::Built(_) | BuildOutcome::HandedOver(_) => {
            "the daemon prepared outputs that were to be handed over".into()
        }
    }
}
