//! `cargo xtask bench overhead`: what a build through the hook or the external builder costs.
//!
//! The same trivial derivation, another one each time, is built in turns: locally by Nix without sandbox, through the
//! hook, through the external builder where Nix has such, and by Nix's own remote builder over `ssh://` on loopback. Times are those of the whole `nix-build`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::remote::Remote;
use super::samples::{Samples, head, row};
use super::trivial::{self, LIMIT};
use crate::binaries::{self, Profile};
use crate::flags::OverheadFlags;
use crate::task::Task;
use crate::workspace::Workspace;
use crate::world::daemon;
use crate::world::limited;
use crate::world::session::Session;
use crate::world::{FrontEnd, Guest, Mode, Root, World, possible};
use crate::{nix_roots, progress};

/// Numbers of input paths to report.
const CLOSURES: [u32; 3] = [10, 1000, 5000];

/// Makes the world and measures.
pub fn run(workspace: &Workspace, flags: &OverheadFlags) -> Result<bool> {
    if let Err(reason) = possible() {
        bail!("the measurement {reason}");
    }
    let [release] = nix_roots::select(&flags.nix)?[..] else { bail!("--nix takes one version") };
    let root = nix_roots::root(&workspace.target, release)?;
    binaries::build(workspace, Profile::Release)?;
    let world = World {
        nix: release.version.into(),
        root: Root::Unpacked(root),
        mode: Mode::SingleUser,
        guest: Guest::Linux,
        front_end: FrontEnd::Hook,
        project: workspace.project.clone(),
        target: workspace.target.clone(),
        profile: Profile::Release.directory().into(),
        task: Task::Overhead { rounds: flags.rounds },
        limit_seconds: 3600,
    };
    Ok(world.run()?.1)
}

/// The ways a trivial build is made.
struct Ways<'a> {
    session: &'a Session,
    remote: Option<&'a Remote>,
    salt: u32,
}

/// Measures, in the world this process is in.
pub fn inside(world: World, rounds: u32) -> Result<bool> {
    println!("Nix {}, guest {}, warm slots, {rounds} rounds", world.nix, world.guest.as_str());
    let mut session = Session::new(world)?;
    session.start_daemons(false)?;
    let remote = Remote::start(&session);
    if let Err(error) = &remote {
        println!("no remote builder to compare with: {error:#}");
    }
    let mut ways = Ways { session: &session, remote: remote.as_ref().ok(), salt: 0 };
    ways.all(rounds, None, "a trivial build")?;
    for paths in CLOSURES {
        progress(&format!("a closure of {paths} paths …"));
        let closure = closure(&session, paths)?;
        ways.remote = None;
        ways.all(rounds.min(10), Some(&closure), &format!("a trivial build with {paths} input paths"))?;
    }
    drop(remote);
    session.close()?;
    Ok(true)
}

impl Ways<'_> {
    fn all(&mut self, rounds: u32, closure: Option<&Path>, title: &str) -> Result<()> {
        let (mut local, mut hook, mut ssh) = (Samples::default(), Samples::default(), Samples::default());
        let (mut no_hook, mut external) = (Samples::default(), Samples::default());
        let has_external = self.session.nix_at_least(2, 32);
        // The first round warms caches and does not count.
        for round in 0..=rounds {
            let times = [
                trivial::local(self.session, self.salt, closure)?,
                trivial::hook(self.session, self.salt, closure)?,
            ];
            let externals = has_external.then(|| self.external(closure)).transpose()?;
            let remote = self.remote.map(|remote| self.ssh(remote)).transpose()?;
            // A spare slot is booted after each use; a warm build is one that finds it ready.
            std::thread::sleep(Duration::from_millis(300));
            if round > 0 {
                local.push(times[0]);
                hook.push(times[1]);
                if let Some((alone, ours)) = externals {
                    no_hook.push(alone);
                    external.push(ours);
                }
                remote.into_iter().for_each(|time| ssh.push(time));
            }
            self.salt += 1;
        }
        head(title);
        row("built locally by Nix, no sandbox", &local);
        row("through the hook", &hook);
        if let Some(phases) = self.last_phases()? {
            println!("{phases}");
        }
        if has_external {
            row("built locally by Nix that asks no hook", &no_hook);
            row("through the external builder", &external);
            let difference = external.median() - no_hook.median();
            println!("the external builder costs {difference:.1} ms more than a local build");
        }
        let difference = hook.median() - local.median();
        if self.remote.is_some() {
            row("by Nix's remote builder, ssh:// on loopback", &ssh);
            println!(
                "the hook costs {difference:.1} ms more than a local build, ssh:// {:.1} ms ({:.1} times as much); \
                 the whole build takes {:.1} times as long over ssh://",
                ssh.median() - local.median(),
                (ssh.median() - local.median()) / difference,
                ssh.median() / hook.median()
            );
        } else {
            println!("the hook costs {difference:.1} ms more than a local build");
        }
        Ok(())
    }

    /// What the daemon says of the last build.
    fn last_phases(&self) -> Result<Option<String>> {
        let mut command = Command::new(daemon::program(&self.session.world));
        command.args(["status", "--config", daemon::CONFIG]);
        let status = limited::run(&mut command, LIMIT)?.must_succeed()?;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        let last = text.lines().skip_while(|line| *line != "ended").nth(1);
        Ok(last.and_then(|line| Some(format!("    the last one: {}", line.split_once("ago")?.1.trim()))))
    }

    /// Locally and through the external builder, both without any hook.
    fn external(&self, closure: Option<&Path>) -> Result<(Duration, Duration)> {
        let build = |system: &str, name: &str| {
            let mut command = self.session.command("nix-build");
            command.env("NIX_CONFIG", self.session.nix_config(FrontEnd::ExternalBuilder));
            trivial::build(command, system, &format!("{name} {}", self.salt), closure)
        };
        let alone = build("x86_64-linux", "alone")?;
        // The hook has just used the other spare slot.
        std::thread::sleep(Duration::from_millis(300));
        Ok((alone, build("x86_64-darwin", "external")?))
    }

    fn ssh(&self, remote: &Remote) -> Result<Duration> {
        let mut command = self.session.command("nix-build");
        remote.configure(&mut command);
        trivial::build(command, "x86_64-darwin", &format!("ssh {}", self.salt), None)
    }
}

/// A store object whose closure has this many paths.
fn closure(session: &Session, paths: u32) -> Result<PathBuf> {
    let directory = PathBuf::from(format!("/tmp/closure-{paths}"));
    fs::create_dir_all(&directory)?;
    let mut names = Vec::new();
    for number in 1..paths {
        let file = directory.join(format!("input-{number}-of-{paths}"));
        fs::write(&file, format!("{number} of {paths}"))?;
        names.push(file);
    }
    let add = |files: &[PathBuf]| -> Result<Vec<String>> {
        let added =
            limited::run(session.command("nix-store").arg("--add").args(files), LIMIT)?.must_succeed()?;
        Ok(String::from_utf8(added.stdout)?.lines().map(str::to_owned).collect())
    };
    let mut added = Vec::new();
    for part in names.chunks(500) {
        added.extend(add(part)?);
    }
    // A file made by the evaluator refers to what its text names.
    let list = directory.join("all.nix");
    let text: Vec<_> = added.iter().map(|path| format!("(builtins.storePath {path})")).collect();
    fs::write(&list, format!("builtins.toFile \"all-{paths}\" (toString [ {} ])", text.join(" ")))?;
    let mut command = session.command("nix-instantiate");
    let finished =
        limited::run(command.args(["--eval", "--read-write-mode"]).arg(&list), LIMIT)?.must_succeed()?;
    let path = PathBuf::from(String::from_utf8(finished.stdout)?.trim().trim_matches('"'));
    let closure = session.query(&["-q", "--requisites"], &path)?.len();
    ensure!(closure == paths as usize, "the closure has {closure} paths, not {paths}");
    fs::remove_dir_all(&directory).context("failed to remove the files")?;
    Ok(path)
}
