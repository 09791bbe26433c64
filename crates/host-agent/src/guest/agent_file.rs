//! Where the agent's executable is.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// No agent for the configured guest.
#[derive(Debug, Error)]
#[error(
    "failed to find the agent `{name}`: looked for {}; set `agent` in the configuration",
    tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
)]
pub struct AgentFileError {
    name: &'static str,
    tried: Vec<PathBuf>,
}

/// The configured file, else `name` beside this program, else in `../libexec/darling-builder`.
pub fn find(configured: Option<&Path>, name: &'static str) -> Result<PathBuf, AgentFileError> {
    let mut tried = Vec::new();
    match configured {
        Some(path) => tried.push(path.to_owned()),
        None => {
            if let Ok(program) = std::env::current_exe()
                && let Some(directory) = program.parent()
            {
                tried.push(directory.join(name));
                if let Some(prefix) = directory.parent() {
                    tried.push(prefix.join("libexec/darling-builder").join(name));
                }
            }
        }
    }
    match tried.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(AgentFileError { name, tried }),
    }
}
