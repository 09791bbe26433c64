//! What the runner inside a machine is told, as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::stage;
use crate::world::Guest;

/// Which stages to run in this machine, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    /// What the daemon is to use.
    pub guest: Guest,
    /// Numbers of the stages.
    #[serde(default = "stage::all_numbers")]
    pub stages: Vec<u8>,
    /// Directory with what the machine is given: see [`super::payload`].
    pub payload: PathBuf,
    /// Run `host-agent install` of the payload first, and `uninstall` last.
    #[serde(default)]
    pub install: bool,
    /// Leave the machine as it is after the stages: no `uninstall`.
    #[serde(default)]
    pub keep: bool,
    /// The ordinary user who builds.
    #[serde(default = "default_user")]
    pub user: String,
    /// Whoever started the runner resets the machine when it asks for it, and starts it again.
    #[serde(default)]
    pub reboot: bool,
    /// Factor for every time bound, for emulated processors.
    #[serde(default = "one")]
    pub slowness: u32,
    /// Stage before which what it tests is broken.
    #[serde(default, rename = "break")]
    pub broken: Option<u8>,
}

fn default_user() -> String {
    "tester".into()
}

fn one() -> u32 {
    1
}

impl Plan {
    /// Reads it.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("failed to understand {}", file.display()))
    }

    /// A bound that is `seconds` on an ordinary machine.
    pub fn bound(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds) * self.slowness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default() {
        let plan: Plan = serde_json::from_str(r#"{"guest": "linux", "payload": "/p"}"#).unwrap();
        assert_eq!(plan.stages, (1..=12).collect::<Vec<u8>>());
        assert_eq!((plan.install, plan.reboot, plan.slowness), (false, false, 1));
        assert_eq!(plan.user, "tester");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let text = r#"{"guest": "linux", "payload": "/p", "stage": [1]}"#;
        let error = serde_json::from_str::<Plan>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `stage`"), "{error}");
    }
}
