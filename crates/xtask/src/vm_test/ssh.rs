//! `ssh` into the builder, as its configuration has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::machine::Machine;

const STATE_DIRECTORY: &str = "/nix/var/darling-builder";
const PORT: i64 = 2222;

/// Where to log in, and with what.
#[derive(Debug)]
pub struct Ssh {
    /// On 127.0.0.1.
    pub port: u16,
    /// The private key that may.
    pub client_key: PathBuf,
    /// Where keys and the host's entry for `known_hosts` are.
    pub directory: PathBuf,
}

impl Machine {
    /// How to log in; `None` where it is not switched on.
    pub fn ssh(&self) -> Result<Option<Ssh>> {
        let config = self.config()?;
        let of_ssh = |key: &str| config.get("ssh").and_then(|ssh| ssh.get(key));
        if of_ssh("enable").and_then(toml::Value::as_bool) != Some(true) {
            return Ok(None);
        }
        let state = config.get("state-directory").and_then(toml::Value::as_str).unwrap_or(STATE_DIRECTORY);
        let directory = Path::new(state).join("ssh");
        let client_key = match of_ssh("client-key").and_then(toml::Value::as_str) {
            Some(path) => path.into(),
            None => directory.join("client_ed25519"),
        };
        let port = of_ssh("port").and_then(toml::Value::as_integer).unwrap_or(PORT);
        Ok(Some(Ssh { port: port.try_into()?, client_key, directory }))
    }
}

impl Ssh {
    /// `ssh` that asks nobody, knows the host by the entry that was made for it, and has no key yet.
    pub fn command(&self, machine: &Machine) -> Command {
        let mut command = machine.root("ssh");
        let known_hosts = format!("UserKnownHostsFile={}", self.directory.join("known_hosts").display());
        command.args(["-F", "/dev/null", "-p", &self.port.to_string(), "-o", &known_hosts]);
        for option in ["StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "IdentitiesOnly=yes"] {
            command.args(["-o", option]);
        }
        command.args(["-o", "ConnectTimeout=30"]).env_remove("SSH_AUTH_SOCK").env_remove("SSH_ASKPASS");
        command
    }

    /// The same with a key, at `builder@127.0.0.1`; a command for the other side can follow.
    pub fn by_key(&self, machine: &Machine, key: &Path) -> Command {
        let mut command = self.command(machine);
        command.args(["-o", "BatchMode=yes", "-i"]).arg(key).arg("builder@127.0.0.1");
        command
    }
}
