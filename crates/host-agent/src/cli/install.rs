//! `host-agent install`: everything that makes this machine's Nix use this builder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::nix_conf::FrontEndFlag;
use super::{HOOK_NAME, completions, doctor, fail, man};
use crate::config::{Config, GuestKind};
use crate::guest::darling;
use crate::install::files::Files;
use crate::install::layout::Pages;
use crate::install::nix_settings::{self, NixSettings};
use crate::install::plan::{self, Wanted};
use crate::install::{InstallError, PREFIX, Plan, carry_out, package, show, systemd};
use crate::nix::conf::discover;
use crate::nix::conf::proposal::{self, Proposal};
use crate::nix::conf::version::NixVersion;

/// Flags of `install`.
#[derive(Debug, Args)]
pub(super) struct InstallFlags {
    /// Show every change and make none
    #[arg(long)]
    dry_run: bool,
    /// Put files in place, but start nothing and restart nothing
    #[arg(long)]
    no_start: bool,
    /// What runs builds, for a new configuration
    #[arg(long, value_enum)]
    guest: Option<GuestFlag>,
    /// Which way Nix is to hand builds over
    #[arg(long, value_enum, default_value = "auto")]
    front_end: FrontEndFlag,
    /// Settings for this Nix, such as 2.34.8 or lix-2.93 [default: the running nix-daemon's, else the one on PATH]
    #[arg(long, value_name = "VERSION")]
    nix_version: Option<NixVersion>,
    /// Where programs go that no package manager keeps
    #[arg(long, value_name = "DIRECTORY", default_value = PREFIX)]
    prefix: PathBuf,
    /// Change files below this directory instead of /, and start nothing
    #[arg(long, value_name = "DIRECTORY", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Only what a package holds, for those who make one: no configuration, no settings, no record
    #[arg(long, requires = "root", conflicts_with_all = ["dry_run", "guest", "front_end", "nix_version"])]
    package: bool,
}

/// `--guest`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum GuestFlag {
    /// The real thing
    Darling,
    /// The stand-in: Linux builders that merely say x86_64-darwin
    Linux,
}

/// Shows or does it.
pub(super) fn run(program: clap::Command, flags: &InstallFlags) -> ExitCode {
    let pages = match pages(program) {
        Ok(pages) => pages,
        Err(error) => return fail(&format!("failed to write the manual: {error}")),
    };
    match try_run(flags, &pages) {
        Ok(status) => status,
        Err(error) => fail(&error),
    }
}

fn try_run(flags: &InstallFlags, pages: &Pages) -> Result<ExitCode, InstallError> {
    let running = std::env::current_exe()
        .map_err(|error| InstallError::Nix(format!("failed to find this program: {error}")))?;
    if flags.package {
        package::write(&flags.root, &flags.prefix, &running, pages)?;
        return Ok(ExitCode::SUCCESS);
    }
    let here = flags.root == Path::new("/");
    let files = Files::new(flags.root.clone());
    if files.exists(Path::new("/etc/NIXOS"))? {
        return Err(InstallError::NixOs);
    }
    if here && !flags.dry_run && !nix::unistd::geteuid().is_root() {
        return Err(InstallError::NotRoot("install"));
    }
    let starts = here && !flags.no_start;
    if starts && !systemd::is_running() {
        return Err(InstallError::NoSystemd);
    }
    let guest = flags.guest.map(|guest| match guest {
        GuestFlag::Darling => GuestKind::Darling,
        GuestFlag::Linux => GuestKind::Linux,
    });
    let (config, _) = plan::configuration(&files, guest)?;
    if here && config.guest == GuestKind::Darling {
        darling::launcher(&config).map_err(|error| InstallError::NoDarling(error.to_string()))?;
    }
    let wanted = Wanted {
        root: &flags.root,
        running: &running,
        prefix: &flags.prefix,
        guest,
        pages,
        systemd: starts.then(systemd::State::now),
    };
    let plan = plan::plan(&wanted, |config, program| settings(flags, config, program).map(Some))?;
    if flags.dry_run {
        print!("{}", dry(&plan));
        return Ok(ExitCode::SUCCESS);
    }
    if plan.is_empty() {
        println!("nothing to do: everything is as it should be");
        print!("{}", show::notes(&plan.notes));
    } else {
        carry_out::carry_out(&plan, &flags.root, &mut |line| println!("{line}"))?;
        print!("{}", show::notes(&plan.notes));
    }
    if starts {
        println!();
        return Ok(doctor::run(Ok(config), doctor::Form::Short));
    }
    if !plan.is_empty() {
        println!(
            "not started: `systemctl enable --now darling-builder.socket darling-builder.service` does that"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--dry-run` says.
pub(super) fn dry(plan: &Plan) -> String {
    match plan.is_empty() {
        true => format!("nothing to do: everything is as it should be\n{}", show::notes(&plan.notes)),
        false => format!("{}nothing was changed: this was a dry run\n", show::plan(plan)),
    }
}

fn settings(flags: &InstallFlags, config: &Config, program: &Path) -> Result<NixSettings, InstallError> {
    let version = match flags.nix_version {
        Some(version) => version,
        None => discover::find().map_err(|error| InstallError::Nix(error.to_string()))?.version,
    };
    let wanted = proposal::Wanted {
        front_end: flags.front_end.wanted(),
        program: program.into(),
        hook: program.with_file_name(HOOK_NAME),
        config: None,
        systems: config.systems.clone(),
    };
    let proposal = Proposal::new(version, &wanted).map_err(|error| InstallError::Nix(error.to_string()))?;
    Ok(NixSettings::told(&flags.root, &nix_settings::directory(), proposal))
}

/// Manual and completions, where programs look for them below a prefix.
fn pages(program: clap::Command) -> std::io::Result<Pages> {
    let mut pages = Pages::new();
    for (name, text) in man::pages(program.clone())? {
        pages.push((Path::new("share/man/man1").join(name), text));
    }
    for (shell, path) in [
        (completions::Shell::Bash, "share/bash-completion/completions/host-agent"),
        (completions::Shell::Zsh, "share/zsh/site-functions/_host-agent"),
        (completions::Shell::Fish, "share/fish/vendor_completions.d/host-agent.fish"),
    ] {
        let mut text = Vec::new();
        completions::write(program.clone(), shell, &mut text);
        pages.push((path.into(), text));
    }
    Ok(pages)
}
