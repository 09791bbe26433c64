//! `host-agent uninstall`: takes away what `install` has put there.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{fail, install};
use crate::config::Config;
use crate::install::nix_settings::{self, NixSettings};
use crate::install::{InstallError, builds, carry_out, removal, show, systemd};

/// Flags of `uninstall`.
#[derive(Debug, Args)]
pub(super) struct UninstallFlags {
    /// Show every change and make none
    #[arg(long)]
    dry_run: bool,
    /// Let running builds finish first
    #[arg(long)]
    drain: bool,
    /// End running builds
    #[arg(long, conflicts_with = "drain")]
    force: bool,
    /// Change files below this directory instead of /, and stop nothing
    #[arg(long, value_name = "DIRECTORY", default_value = "/", hide_default_value = true)]
    root: PathBuf,
}

/// Shows or does it.
pub(super) fn run(flags: &UninstallFlags) -> ExitCode {
    match try_run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn try_run(flags: &UninstallFlags) -> Result<(), InstallError> {
    let here = flags.root == Path::new("/");
    if here && !flags.dry_run && !nix::unistd::geteuid().is_root() {
        return Err(InstallError::NotRoot("uninstall"));
    }
    let systemd = (here && systemd::is_running()).then(systemd::State::now);
    let nix = NixSettings::forgotten(&flags.root, &nix_settings::directory());
    let Some(plan) = removal::plan(&flags.root, nix, systemd, flags.drain)? else {
        println!("nothing to do: `host-agent install` has put nothing here");
        return Ok(());
    };
    if flags.dry_run {
        print!("{}", install::dry(&plan));
        return Ok(());
    }
    if !flags.drain && !flags.force && systemd.is_some_and(|state| state.active) {
        // One that is wrong must not keep anyone from uninstalling; a daemon with a wrong one does not run.
        let config = Config::load(None).unwrap_or_default();
        match builds::running(&config) {
            0 => {}
            count => return Err(InstallError::Busy(count)),
        }
    }
    carry_out::carry_out(&plan, &flags.root, &mut |line| println!("{line}"))?;
    print!("{}", show::notes(&plan.notes));
    Ok(())
}
