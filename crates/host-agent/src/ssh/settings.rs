//! `[ssh]` of the configuration.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Logging in to a guest that lives as long as the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SshConfig {
    /// Whether anybody can log in at all.
    pub enable: bool,
    /// TCP port on 127.0.0.1.
    pub port: NonZeroU16,
    /// The private key that may log in; made if it is missing. By default `ssh/client_ed25519` in the state directory.
    pub client_key: Option<PathBuf>,
    /// Connections at once that have not logged in yet.
    pub max_unauthenticated: NonZeroU32,
    /// Connections at once that have.
    pub max_sessions: NonZeroU32,
}

const PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(2221);

impl Default for SshConfig {
    fn default() -> Self {
        Self {
            enable: false,
            port: PORT,
            client_key: None,
            max_unauthenticated: NonZeroU32::MIN.saturating_add(9),
            max_sessions: NonZeroU32::MIN.saturating_add(15),
        }
    }
}

impl SshConfig {
    /// The first value that can't be, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match &self.client_key {
            Some(path) if !path.is_absolute() => {
                Err(("ssh.client-key", format!("must be an absolute path, not '{}'", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Where the client's private key is.
    pub fn client_key(&self, state_directory: &Path) -> PathBuf {
        self.client_key.clone().unwrap_or_else(|| directory(state_directory).join("client_ed25519"))
    }
}

/// Where keys and the client's `known_hosts` are kept.
pub fn directory(state_directory: &Path) -> PathBuf {
    state_directory.join("ssh")
}
