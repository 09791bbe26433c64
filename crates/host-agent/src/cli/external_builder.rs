//! `host-agent external-builder`: what Nix's `external-builders` setting names.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, ConfigError};
use crate::nix::external_builder;

/// Builds what the file describes; the configuration is read after Nix has been told that the build has begun.
pub fn run(config: impl FnOnce() -> Result<Config, ConfigError>, description: &Path) -> ExitCode {
    if !external_builder::begin() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(external_builder::run(config(), description))
}
