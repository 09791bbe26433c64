//! `host-agent nix-conf`: the settings that make this machine's Nix use the builder, printed, put in place or removed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{HOOK_NAME, fail, say};
use crate::config::Config;
use crate::install::nix_settings;
use crate::nix::conf::discover::{self, Found};
use crate::nix::conf::install::{Done, Installation};
use crate::nix::conf::proposal::{FrontEnd, Proposal, Wanted};
use crate::nix::conf::text;
use crate::nix::conf::tree::Change;
use crate::nix::conf::version::NixVersion;

/// Flags of `nix-conf`.
#[derive(Debug, Args)]
pub(super) struct NixConfFlags {
    /// Which way Nix is to hand builds over
    #[arg(long, value_enum, default_value = "auto")]
    front_end: FrontEndFlag,
    /// Settings for this Nix, such as 2.34.8 or lix-2.93 [default: the running nix-daemon's, else the one on PATH]
    #[arg(long, value_name = "VERSION")]
    nix_version: Option<NixVersion>,
    /// host-agent as Nix is to start it, with darling-builder-hook beside it [default: this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Put the settings where they take effect
    #[arg(long)]
    apply: bool,
    /// Take away what --apply has put there
    #[arg(long, conflicts_with = "apply")]
    remove: bool,
    /// Change files below this directory instead of /
    #[arg(long, value_name = "DIRECTORY", default_value = "/", hide_default_value = true)]
    root: PathBuf,
}

/// `--front-end`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum FrontEndFlag {
    /// The best that this Nix has
    Auto,
    /// Nix 2.32 and later
    ExternalBuilder,
    /// Every Nix
    BuildHook,
}

impl FrontEndFlag {
    /// `None`: the best.
    pub(super) fn wanted(self) -> Option<FrontEnd> {
        match self {
            FrontEndFlag::Auto => None,
            FrontEndFlag::ExternalBuilder => Some(FrontEnd::ExternalBuilder),
            FrontEndFlag::BuildHook => Some(FrontEnd::BuildHook),
        }
    }
}

/// Prints the settings, or changes files and says which.
pub(super) fn run(config: &Config, config_path: Option<&Path>, flags: &NixConfFlags) -> ExitCode {
    let conf_dir = nix_settings::directory();
    let installation = || Installation::new(flags.root.clone(), &conf_dir);
    if flags.remove {
        return match installation().remove() {
            Ok(done) => tell(&done, "there was nothing of ours"),
            Err(error) => fail(&error),
        };
    }
    let proposal = match propose(config, config_path, flags) {
        Ok(proposal) => proposal,
        Err(error) => return fail(&error),
    };
    if !flags.apply {
        print!("{}", text::render(&proposal));
        return ExitCode::SUCCESS;
    }
    match installation().apply(&proposal) {
        Ok(done) => tell(&done, "everything is as it should be"),
        Err(error) => fail(&error),
    }
}

fn propose(config: &Config, config_path: Option<&Path>, flags: &NixConfFlags) -> Result<Proposal, String> {
    let version = match flags.nix_version {
        Some(version) => version,
        None => {
            let Found { version, place } = discover::find().map_err(|error| error.to_string())?;
            say(&format!("found {version}: {place}"));
            version
        }
    };
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| error.to_string());
    let program = match &flags.program {
        Some(program) => absolute(program)?,
        None => std::env::current_exe().map_err(|error| format!("failed to find this program: {error}"))?,
    };
    let wanted = Wanted {
        front_end: flags.front_end.wanted(),
        hook: program.with_file_name(HOOK_NAME),
        program,
        config: config_path.map(absolute).transpose()?,
        systems: config.systems.clone(),
    };
    let proposal = Proposal::new(version, &wanted).map_err(|error| error.to_string())?;
    let needed = match proposal.front_end {
        FrontEnd::ExternalBuilder => &wanted.program,
        FrontEnd::BuildHook => &wanted.hook,
    };
    if flags.apply && flags.root == Path::new("/") && !needed.is_file() {
        return Err(format!(
            "failed to find {}, which the settings would name; install host-agent, and beside it \
             `ln -s host-agent {HOOK_NAME}`",
            needed.display()
        ));
    }
    if proposal.front_end == FrontEnd::BuildHook && config_path.is_some() {
        eprintln!(
            "host-agent: Nix can't tell the hook of --config: set {} in the environment of nix-daemon",
            crate::config::CONFIG_ENV
        );
    }
    Ok(proposal)
}

fn tell(done: &Done, nothing: &str) -> ExitCode {
    print!("{}", render(done, nothing, discover::daemon_runs()));
    ExitCode::SUCCESS
}

fn render(done: &Done, nothing: &str, daemon_runs: bool) -> String {
    let mut lines = Vec::new();
    for (path, change) in &done.changes {
        let word = match change {
            Change::Made => "made",
            Change::Changed => "changed",
            Change::Removed => "removed",
        };
        lines.push(format!("{word} {}", path.display()));
    }
    if lines.is_empty() {
        lines.push(format!("nothing changed: {nothing}"));
    } else if done.units_changed {
        lines.push("now run: systemctl daemon-reload && systemctl restart nix-daemon".into());
    } else if daemon_runs {
        lines
            .push("now restart nix-daemon, which has read its settings: systemctl restart nix-daemon".into());
    } else {
        lines.push("nothing is to be restarted: no nix-daemon runs".into());
    }
    lines.extend(done.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_changed_and_what_is_to_be_restarted() {
        let done = |units_changed| Done {
            changes: vec![("/etc/nix/nix.conf".into(), Change::Changed), ("/etc/x".into(), Change::Made)],
            notes: vec!["mind the gap".into()],
            units_changed,
        };
        insta::assert_snapshot!(render(&done(false), "", true), @"
        changed /etc/nix/nix.conf
        made /etc/x
        now restart nix-daemon, which has read its settings: systemctl restart nix-daemon
        note: mind the gap
        ");
        insta::assert_snapshot!(render(&done(true), "", true), @"
        changed /etc/nix/nix.conf
        made /etc/x
        now run: systemctl daemon-reload && systemctl restart nix-daemon
        note: mind the gap
        ");
        insta::assert_snapshot!(render(&Done::default(), "all is well", true), @"nothing changed: all is well");
    }
}
