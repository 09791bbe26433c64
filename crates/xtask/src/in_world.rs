//! `cargo xtask in-world`: any command where the tests run, to look around there.

use anyhow::{Context, Result, bail};

use crate::binaries::{self, Profile};
use crate::flags::InWorldFlags;
use crate::nix_roots;
use crate::task::Task;
use crate::workspace::Workspace;
use crate::world::session::Session;
use crate::world::{FrontEnd, Guest, Mode, Root, World};

/// Makes the world and runs the command; `false` if that fails.
pub fn run(workspace: &Workspace, flags: &InWorldFlags) -> Result<bool> {
    let [release] = nix_roots::select(&flags.nix)?[..] else { bail!("one version, please") };
    if !flags.no_daemon {
        binaries::build(workspace, Profile::Debug)?;
    }
    let world = World {
        nix: release.version.into(),
        root: Root::Unpacked(nix_roots::root(&workspace.target, release)?),
        mode: Mode::SingleUser,
        guest: Guest::Linux,
        front_end: FrontEnd::Hook,
        project: workspace.project.clone(),
        target: workspace.target.clone(),
        profile: Profile::Debug.directory().into(),
        task: Task::Command { words: flags.command.clone(), daemon: !flags.no_daemon },
        limit_seconds: 3600,
    };
    Ok(world.run()?.1)
}

/// Runs the command in the world this process is in.
pub fn inside(world: World, words: &[String], daemon: bool) -> Result<bool> {
    let mut session = Session::new(world)?;
    if daemon {
        session.start_daemons(true)?;
    }
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = session.root_command(program);
    if !daemon {
        command.env("NIX_CONFIG", "sandbox = false\nsubstituters =\nbuild-users-group =\n");
    }
    let status = command.args(arguments).status()?;
    session.close()?;
    Ok(status.success())
}
