//! How an accepted build that came to nothing is told to Nix: a message and an exit status.
//!
//! Nix only ever says that the "builder failed with exit code 100", so the true reason goes ahead of it, worded as Nix
//! words it for its own builds.

use std::path::Path;

use protocol::message::Exit;
use thiserror::Error;

use super::build_request::RequestError;
use super::depth::DepthError;
use super::output_checks::CheckError;
use super::register::RegisterError;
use super::store_command::StoreCommandError;
use super::take::TakeError;
use super::wire::WireError;
use crate::control::client::ClientError;
use crate::request::{BuildLimits, BuildOutcome};
use crate::store_path::StoreName;

/// Exit status for what will fail again: the builder, or its outputs.
const PERMANENT: u8 = 100;
/// Exit status for what took too long.
const TIMED_OUT: u8 = 101;
/// Exit status for all that is not the derivation's fault.
const INFRASTRUCTURE: u8 = 1;

/// Why an accepted build came to nothing.
#[derive(Debug, Error)]
pub enum Failure {
    /// It can't be built here, ever.
    #[error("cannot build '{derivation}' here: {reason}")]
    Impossible {
        /// Absolute path of the derivation.
        derivation: String,
        /// Readable reason.
        reason: String,
    },
    /// The derivation can't be made into a build.
    #[error("failed to prepare the build of '{derivation}': {error}")]
    Request {
        /// Absolute path of the derivation.
        derivation: String,
        /// Why.
        error: RequestError,
    },
    /// The builder, or what it left, is not right.
    #[error("{0}")]
    Builder(String),
    /// A limit ended it.
    #[error("{0}")]
    Limit(String),
    /// An output is not as the derivation says.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// An output is too deep.
    #[error(transparent)]
    Depth(#[from] DepthError),
    /// The slot or the guest failed.
    #[error("failed to build '{derivation}': {reason}")]
    Infrastructure {
        /// Absolute path of the derivation.
        derivation: String,
        /// What failed, and what to do.
        reason: String,
    },
    /// Nix's messages broke.
    #[error("failed to read what Nix sends: {0}")]
    Wire(#[from] WireError),
    /// The daemon went away.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreCommandError),
    /// An output could not be moved into the store.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// The outputs could not be made valid.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl Failure {
    /// The hook's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Builder(_) | Failure::Check(_) | Failure::Request { .. } => PERMANENT,
            Failure::Depth(error) if error.is_about_the_output() => PERMANENT,
            Failure::Limit(_) => TIMED_OUT,
            Failure::Impossible { .. }
            | Failure::Depth(_)
            | Failure::Infrastructure { .. }
            | Failure::Wire(_)
            | Failure::Daemon(_)
            | Failure::Store(_)
            | Failure::Take(_)
            | Failure::Register(_) => INFRASTRUCTURE,
        }
    }

    /// What the daemon reported, if it was no success; `limits` are those that applied.
    pub fn of_outcome(
        outcome: &BuildOutcome,
        store: &Path,
        derivation: &StoreName,
        path_of: impl Fn(&str) -> Option<StoreName>,
        limits: &BuildLimits,
    ) -> Option<Self> {
        let derivation = derivation.in_store(store).display().to_string();
        Some(match outcome {
            BuildOutcome::Built(_) => return None,
            BuildOutcome::HandedOver(_) => Failure::Infrastructure {
                derivation,
                reason: "the daemon handed outputs over that were to be prepared".into(),
            },
            BuildOutcome::BuilderFailed(exit) => Self::of_exit(exit, derivation, limits),
            BuildOutcome::MissingOutputs(names) => {
                let shown = |name: &String| match path_of(name) {
                    Some(path) => path.in_store(store).display().to_string(),
                    None => name.clone(),
                };
                let paths: Vec<_> = names.iter().map(|name| format!("'{}'", shown(name))).collect();
                Failure::Builder(format!(
                    "builder for '{derivation}' failed to produce output path {}",
                    paths.join(", ")
                ))
            }
            BuildOutcome::OutputRejected { output, reason } => {
                Failure::Builder(format!("output '{output}' of '{derivation}' was rejected: {reason}"))
            }
            BuildOutcome::Infrastructure(reason) => {
                Failure::Infrastructure { derivation, reason: reason.clone() }
            }
        })
    }

    fn of_exit(exit: &Exit, derivation: String, limits: &BuildLimits) -> Self {
        let seconds = |limit: Option<std::time::Duration>| match limit {
            Some(limit) => format!(" after {} seconds", limit.as_secs()),
            None => String::new(),
        };
        let why = limits.file_too_large(exit).map(|limit| format!(": {limit}")).unwrap_or_default();
        match exit {
            Exit::Code(code) => {
                Failure::Builder(format!("builder for '{derivation}' failed with exit code {code}{why}"))
            }
            Exit::Signal(signal) => {
                Failure::Builder(format!("builder for '{derivation}' failed due to signal {signal}{why}"))
            }
            Exit::SpawnFailed { step, errno } => Failure::Builder(format!(
                "builder for '{derivation}' could not be started: {step}: {}",
                describe_errno(*errno)
            )),
            Exit::TimedOut => {
                Failure::Limit(format!("building of '{derivation}' timed out{}", seconds(limits.wall)))
            }
            Exit::Silent => Failure::Limit(format!(
                "building of '{derivation}' timed out{} of silence",
                seconds(limits.silence)
            )),
            Exit::LogLimit => Failure::Builder(format!(
                "'{derivation}' killed after writing more than {} bytes of log output",
                limits.log_bytes.unwrap_or_default()
            )),
            Exit::Killed => {
                Failure::Infrastructure { derivation, reason: "the daemon stopped the build".into() }
            }
        }
    }
}

/// The first 34 numbers mean the same in Linux and Darwin; the others are the guest's own.
pub(super) fn describe_errno(errno: i32) -> String {
    match errno {
        1..=34 => ::nix::errno::Errno::from_raw(errno).desc().to_owned(),
        _ => format!("error number {errno}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn told(outcome: BuildOutcome) -> String {
        let name = StoreName::parse(b"00000000000000000000000000000000-t.drv").unwrap();
        let limits = BuildLimits {
            wall: Some(Duration::from_secs(60)),
            silence: Some(Duration::from_secs(5)),
            log_bytes: Some(1000),
            output_bytes: Some(5000),
        };
        let path_of = |output: &str| {
            StoreName::parse(format!("11111111111111111111111111111111-t-{output}").as_bytes()).ok()
        };
        let failure =
            Failure::of_outcome(&outcome, Path::new("/nix/store"), &name, path_of, &limits).unwrap();
        format!("{}: {failure}", failure.status())
    }

    #[test]
    fn every_end_of_a_build_has_its_words_and_status() {
        let exits = [
            Exit::Code(3),
            Exit::Signal(9),
            Exit::Signal(25),
            Exit::Code(153),
            Exit::SpawnFailed { step: "execve /no/such".into(), errno: 2 },
            Exit::SpawnFailed { step: "execve /bin/x".into(), errno: 85 },
            Exit::TimedOut,
            Exit::Silent,
            Exit::LogLimit,
            Exit::Killed,
        ];
        let mut text: Vec<_> = exits.map(BuildOutcome::BuilderFailed).map(told).into();
        text.push(told(BuildOutcome::MissingOutputs(vec!["dev".into(), "doc".into()])));
        text.push(told(BuildOutcome::OutputRejected { output: "out".into(), reason: "has a fifo".into() }));
        text.push(told(BuildOutcome::Infrastructure("no slot".into())));
        insta::assert_snapshot!(text.join("\n"), @r"
        100: builder for '/nix/store/00000000000000000000000000000000-t.drv' failed with exit code 3
        100: builder for '/nix/store/00000000000000000000000000000000-t.drv' failed due to signal 9
        100: builder for '/nix/store/00000000000000000000000000000000-t.drv' failed due to signal 25: most likely a file was about to become larger than 5000 bytes, the limit of outputs (`limits.output-bytes`)
        100: builder for '/nix/store/00000000000000000000000000000000-t.drv' failed with exit code 153: most likely a file was about to become larger than 5000 bytes, the limit of outputs (`limits.output-bytes`)
        100: builder for '/nix/store/00000000000000000000000000000000-t.drv' could not be started: execve /no/such: No such file or directory
        100: builder for '/nix/store/00000000000000000000000000000000-t.drv' could not be started: execve /bin/x: error number 85
        101: building of '/nix/store/00000000000000000000000000000000-t.drv' timed out after 60 seconds
        101: building of '/nix/store/00000000000000000000000000000000-t.drv' timed out after 5 seconds of silence
        100: '/nix/store/00000000000000000000000000000000-t.drv' killed after writing more than 1000 bytes of log output
        1: failed to build '/nix/store/00000000000000000000000000000000-t.drv': the daemon stopped the build
        100: builder for '/nix/store/00000000000000000000000000000000-t.drv' failed to produce output path '/nix/store/11111111111111111111111111111111-t-dev', '/nix/store/11111111111111111111111111111111-t-doc'
        100: output 'out' of '/nix/store/00000000000000000000000000000000-t.drv' was rejected: has a fifo
        1: failed to build '/nix/store/00000000000000000000000000000000-t.drv': no slot
        ");
    }
}
