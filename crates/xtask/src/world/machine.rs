//! A second machine beside a world: a network namespace on a cable of its own, and a Nix store of its own.
//!
//! It shares the world's programs. Everything else between the two goes through the network.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use super::limited::{self, Running, wait_until};

/// The world's address on the cable.
pub const WORLD_ADDRESS: &str = "10.77.0.1";
/// The second machine's.
pub const ADDRESS: &str = "10.77.0.2";
/// Those of IPv6, where the kernel has it.
pub const WORLD_ADDRESS_6: &str = "fd00:77::1";
/// The second machine's.
pub const ADDRESS_6: &str = "fd00:77::2";
/// The cable's end in the world.
pub const CABLE: &str = "machine";

const LIMIT: Duration = Duration::from_secs(20);

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
        ip(&format!("link add {CABLE} type veth peer name eth0 netns {pid}"))?;
        ip(&format!("address add {WORLD_ADDRESS}/24 dev {CABLE}"))?;
        ip(&format!("link set {CABLE} up"))?;
        for words in [&format!("address add {ADDRESS}/24 dev eth0"), "link set eth0 up", "link set lo up"] {
            limited::run(self.command("ip").args(words.split(' ')), LIMIT)?.must_succeed()?;
        }
        Ok(())
    }

    /// Makes it the next one on the world's way to everywhere else.
    pub fn is_the_way_out(&self) -> Result<()> {
        ip(&format!("route add default via {ADDRESS}"))?;
        if has_ipv6() {
            ip(&format!("address add {WORLD_ADDRESS_6}/64 dev {CABLE} nodad"))?;
            limited::run(
                self.command("ip").args([
                    "address",
                    "add",
                    &format!("{ADDRESS_6}/64"),
                    "dev",
                    "eth0",
                    "nodad",
                ]),
                LIMIT,
            )?
            .must_succeed()?;
            ip(&format!("route add default via {ADDRESS_6}"))?;
        }
        Ok(())
    }

    /// Does something in its network; sockets that are made stay there.
    pub fn in_its_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.holder.pid()))?;
        std::thread::scope(|scope| {
            let acting = scope.spawn(move || {
                setns(network, CloneFlags::CLONE_NEWNET)?;
                Ok(act())
            });
            acting.join().map_err(|_| anyhow!("the thread in the machine's network panicked"))?
        })
    }

    /// A command on that machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--target", &self.holder.pid().to_string(), "--", program]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // By itself it goes with the network at its other end, which sockets may keep.
        let _ = ip(&format!("link delete {CABLE}"));
    }
}

/// `ip` in the world, with these words.
pub fn ip(words: &str) -> Result<()> {
    let mut command = Command::new("ip");
    limited::run(command.args(words.split(' ')), LIMIT)?.must_succeed().map(drop)
}

/// Whether this kernel has IPv6, here.
pub fn has_ipv6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")
        .is_ok_and(|disabled| disabled.trim() == "0")
}
