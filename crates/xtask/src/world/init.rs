//! Process 1 of a world.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};

use super::{World, loopback, root};

/// Sets up the world that `spec` describes, runs its task and reaps whatever is orphaned. Does not return unless
/// it fails: when process 1 exits, the kernel kills the rest.
pub fn run(spec: &Path) -> Result<()> {
    let text = std::fs::read(spec).context("failed to read the world's description")?;
    let world: World = serde_json::from_slice(&text)?;
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(130);
    });
    let scratch = spec.parent().context("no scratch directory")?;
    root::enter(&world, scratch).context("failed to make the world's root directory")?;
    loopback::up().context("failed to bring up the loopback interface")?;
    let limit = Duration::from_secs(world.limit_seconds);
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("error: not done after {} s; everything is killed", limit.as_secs());
        std::process::exit(124);
    });
    let task = Command::new("/proc/self/exe")
        .arg("world-task")
        .stdin(Stdio::null())
        .env_clear()
        .envs(["TERM", "CI", "NO_COLOR"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .spawn()
        .context("failed to start the task")?;
    let task = task.id() as i32;
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == task => std::process::exit(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == task => {
                eprintln!("error: the task was ended by {}", ExitStatus::from_raw(signal as i32));
                std::process::exit(1);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("failed to wait for the task"),
        }
    }
}

/// The description of the world this process is in.
pub fn world() -> Result<World> {
    let text = std::fs::read("/scratch/world.json").context("this is not a world; run `cargo xtask test`")?;
    Ok(serde_json::from_slice(&text)?)
}
