//! The trivial derivation of `fixtures/bench.nix`, built by a real Nix one way or another; and what the daemon says of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::world::PROJECT;
use crate::world::limited::{self, Finished};
use crate::world::session::Session;

/// Longest time for one command.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Builds it with this nix-build; the time of the whole command. `salt` must be another one each time.
pub fn build(mut command: Command, system: &str, salt: &str, closure: Option<&Path>) -> Result<Duration> {
    command.arg(format!("{PROJECT}/fixtures/bench.nix")).arg("--no-out-link");
    command.args(["--argstr", "system", system, "--argstr", "salt", salt]);
    if let Some(closure) = closure {
        command.args(["--argstr", "closure"]).arg(closure);
    }
    let finished: Finished = limited::run(&mut command, LIMIT)?.must_succeed()?;
    Ok(finished.wall)
}

/// Builds it locally for Linux, without sandbox.
pub fn local(session: &Session, salt: u32, closure: Option<&Path>) -> Result<Duration> {
    build(session.command("nix-build"), "x86_64-linux", &format!("local {salt}"), closure)
}

/// Builds it through the hook.
pub fn hook(session: &Session, salt: u32, closure: Option<&Path>) -> Result<Duration> {
    build(session.command("nix-build"), "x86_64-darwin", &format!("hook {salt}"), closure)
}
