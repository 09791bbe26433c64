//! `host-agent doctor`, and `host-agent --check`, its short form.

use std::process::ExitCode;

use crate::config::{Config, ConfigError};
use crate::doctor::{self, Severity};

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Short,
    Json,
}

/// Prints what was found. Exit status 0 when builds can work (warnings included), 1 when they can't.
pub(super) fn run(config: Result<Config, ConfigError>, form: Form) -> ExitCode {
    let report = doctor::examine(config);
    match form {
        Form::Text => print!("{}", doctor::text(&report)),
        Form::Short => print!("{}", doctor::short(&report)),
        Form::Json => println!("{}", doctor::json(&report)),
    }
    if report.worst == Severity::Broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
