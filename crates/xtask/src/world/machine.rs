//! A second machine beside a world: a network namespace on a cable of its own, and a Nix store of its own.
//!
//! It shares the world's programs. Everything else between the two goes through the network.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::limited::{self, Running, wait_until};

/// The world's address on the cable.
pub const WORLD_ADDRESS: &str = "10.77.0.1";
/// The second machine's.
pub const ADDRESS: &str = "10.77.0.2";

const LIMIT: Duration = Duration::from_secs(20);
const CABLE: &str = "machine";

/// A machine that is on; it goes, with its cable, when this is dropped.
#[derive(Debug)]
pub struct Machine {
    holder: Running,
}

impl Machine {
    /// Makes it, with an empty `/nix` that is kept in `directory`.
    pub fn new(directory: &str) -> Result<Self> {
        fs::create_dir_all(format!("{directory}/nix/store"))?;
        let script =
            format!("mount --bind {directory}/nix /nix && touch {directory}/up && exec sleep infinity");
        let mut holder = Command::new("unshare");
        let mut holder = limited::start(holder.args(["--mount", "--net", "sh", "-c", &script]))?;
        let up = format!("{directory}/up");
        let is_up = || Ok(!holder.is_running()? || std::path::Path::new(&up).exists());
        ensure!(wait_until(LIMIT, is_up)? && holder.is_running()?, "the second machine does not come up");
        let machine = Self { holder };
        machine.connect().context("failed to connect the second machine")?;
        Ok(machine)
    }

    fn connect(&self) -> Result<()> {
        let pid = self.holder.pid().to_string();
        let ip = |words: &str| {
            let mut command = Command::new("ip");
            limited::run(command.args(words.split(' ')), LIMIT)?.must_succeed()
        };
        ip(&format!("link add {CABLE} type veth peer name eth0 netns {pid}"))?;
        ip(&format!("address add {WORLD_ADDRESS}/24 dev {CABLE}"))?;
        ip(&format!("link set {CABLE} up"))?;
        for words in [&format!("address add {ADDRESS}/24 dev eth0"), "link set eth0 up", "link set lo up"] {
            limited::run(self.command("ip").args(words.split(' ')), LIMIT)?.must_succeed()?;
        }
        Ok(())
    }

    /// A command on that machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--target", &self.holder.pid().to_string(), "--", program]);
        command
    }
}
