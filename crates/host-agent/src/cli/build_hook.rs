//! `host-agent build-hook`: what Nix's `build-hook` setting names.

use std::process::ExitCode;

use crate::config::{Config, ConfigError};
use crate::nix::hook;

/// Serves Nix on the descriptors that it gave us; `verbosity` is the last argument that Nix passes.
pub fn run(config: Result<Config, ConfigError>, verbosity: u32) -> ExitCode {
    match hook::run(config, verbosity) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("darling-builder: {error}");
            ExitCode::FAILURE
        }
    }
}
