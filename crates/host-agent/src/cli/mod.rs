//! The command line: one module a command, each flag defined once.

mod build;
mod build_hook;
mod completions;
mod daemon;
mod daemon_log;
mod doctor;
mod external_builder;
mod install;
mod machine_spec;
mod man;
mod nix_conf;
mod oracle;
mod shell;
mod slot_init;
mod status;
mod terminal;
mod uninstall;

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{CONFIG_ENV, Config, DEFAULT_PATH};
use crate::plain_text;
use doctor::Form;

/// Names under which this program is the build hook: Nix before 2.10 can't give its hook an argument of ours.
pub const HOOK_NAME: &str = "darling-builder-hook";

/// Builds x86_64-darwin derivations for Nix on Linux, through Darling.
#[derive(Debug, Parser)]
#[command(name = "host-agent", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// Configuration file [default: $DARLING_BUILDER_CONFIG, else /etc/darling-builder/config.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The short form of `doctor`: only what is not fine; exit status 1 if builds can't work
    #[arg(long)]
    check: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground (as root); SIGTERM stops it, SIGUSR1 finishes what runs first
    Daemon,
    /// Build derivations with Nix and this builder, whatever Nix is configured to use otherwise
    Build {
        /// What to build: `.drv` files, or outputs of them (`.drv!out`)
        #[arg(required = true, value_name = "DERIVATION")]
        targets: Vec<OsString>,
        /// Options for `nix-store --realise`, such as `--keep-going`
        #[arg(last = true, value_name = "OPTION")]
        options: Vec<OsString>,
    },
    /// Nix's build hook: started by Nix, never by hand
    #[command(hide = true)]
    BuildHook {
        /// Nix's verbosity, 0 (errors) to 7 (vomit)
        verbosity: u32,
    },
    /// Nix's external builder: started by Nix, never by hand
    #[command(hide = true)]
    ExternalBuilder {
        /// What to build, as Nix describes it
        #[arg(value_name = "BUILD.JSON")]
        description: PathBuf,
    },
    /// The first process of a slot: started by the daemon, never by hand
    #[command(hide = true)]
    SlotInit,
    /// Find out whether builds can work on this machine, and how to mend what is in the way
    ///
    /// Tries things: makes namespaces, boots a slot to throw away, runs a script in it; changes nothing. As root it tries
    /// everything, else it says what it has not tried. Exit status 0 if all is fine or there are only warnings, 1 if anything
    /// is broken.
    Doctor {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Open a shell in a fresh slot, which is gone when the shell ends
    ///
    /// On a terminal the shell gets one of its own, else pipes. It sees an empty store, /build and loopback, and takes one
    /// of the places for builds. Exit status: the command's; 128 and its number for a signal; 127 if there is no such program,
    /// 126 if it can't be run; 125 if there was no shell, or it was lost.
    Shell {
        /// Run this in place of the guest's shell (`/bin/bash` in Darling)
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Show slots, builds and their phases
    Status {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Set this program up here: files, systemd's units, configuration, Nix's settings; then start it
    ///
    /// The second time there is nothing to do; after an upgrade it replaces what has changed, and lets running builds finish.
    Install(install::InstallFlags),
    /// Take away all that `install` has put here, and the daemon's own directory
    ///
    /// Files that were changed since stay and are named. Refuses while builds run.
    Uninstall(uninstall::UninstallFlags),
    /// Print the settings that make this machine's Nix use the builder, put them in place, or take them away
    NixConf(nix_conf::NixConfFlags),
    /// Build again what is built already, and say whether it is the same
    Oracle(oracle::OracleFlags),
    /// Print this machine as a line for `builders` or /etc/nix/machines of another one
    MachineSpec {
        /// How the other machine reaches this one
        #[arg(long, value_name = "URI", default_value_t = default_uri())]
        uri: String,
    },
    /// Print a script that completes this program's command line
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: completions::Shell,
    },
    /// Print this program's manual page, or write all of them
    Man {
        /// Write a page for each command into this directory instead
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
}

fn default_uri() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    format!("ssh-ng://{}", name.to_string_lossy())
}

/// Parses the command line and runs the command it names.
pub fn run() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let personality = args.first().and_then(|name| Path::new(name).file_name()).map(OsString::from);
    if personality.is_some_and(|name| name == HOOK_NAME) {
        args.splice(0..1, ["host-agent".into(), "build-hook".into()]);
    }
    let cli = Cli::parse_from(args);
    let config = || Config::load(cli.config.as_deref());
    if cli.check {
        return doctor::run(config(), Form::Short);
    }
    let Some(command) = cli.command else {
        // `arg_required_else_help` has answered an empty line; what is left is `--config` alone.
        return fail(&"no command given; see `host-agent --help`");
    };
    match command {
        Command::SlotInit => slot_init::run(),
        Command::Build { targets, options } => {
            with(config(), |config| build::run(&config, cli.config.as_deref(), &targets, &options))
        }
        Command::BuildHook { verbosity } => build_hook::run(config(), verbosity),
        Command::ExternalBuilder { description } => external_builder::run(config, &description),
        Command::Daemon => with(config(), daemon::run),
        Command::Doctor { json } => doctor::run(config(), if json { Form::Json } else { Form::Text }),
        Command::Shell { command } => with(config(), |config| shell::run(&config, command)),
        Command::Status { json } => with(config(), |config| status::run(&config, json)),
        Command::Install(_) | Command::Uninstall(_) if cli.config.is_some() => {
            fail(&format!("failed to use --config: an installation has its configuration at {DEFAULT_PATH}"))
        }
        Command::Install(flags) => install::run(Cli::command(), &flags),
        Command::Uninstall(flags) => uninstall::run(&flags),
        Command::NixConf(flags) => {
            let named = cli.config.clone().or_else(|| std::env::var_os(CONFIG_ENV).map(PathBuf::from));
            with(config(), |config| nix_conf::run(&config, named.as_deref(), &flags))
        }
        Command::Oracle(flags) => oracle::run(&flags),
        Command::MachineSpec { uri } => with(config(), |config| machine_spec::run(&config, &uri)),
        Command::Completions { shell } => completions::run(Cli::command(), shell),
        Command::Man { directory } => man::run(Cli::command(), directory.as_deref()),
    }
}

fn with(
    config: Result<Config, crate::config::ConfigError>,
    command: impl FnOnce(Config) -> ExitCode,
) -> ExitCode {
    match config {
        Ok(config) => command(config),
        Err(error) => fail(&error),
    }
}

/// Says why on stderr.
fn fail(error: &dyn Display) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

/// Says something on stderr. What the daemon, a slot or a file had to say may be part of it.
fn say(words: &dyn Display) {
    eprintln!("host-agent: {}", plain_text::lines(&words.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/cli.md");

    /// The part of the page about a command.
    fn section(name: &str) -> Option<&'static str> {
        let sections = PAGE.split("\n## ");
        sections.into_iter().find(|text| {
            let heading = text.strip_prefix("`host-agent ").and_then(|rest| rest.split(['`', ' ']).next());
            heading == Some(name)
        })
    }

    fn flags(command: &clap::Command) -> impl Iterator<Item = String> {
        command.get_arguments().filter_map(|argument| Some(format!("`--{}", argument.get_long()?)))
    }

    #[test]
    fn the_page_names_every_command_and_every_flag() {
        let mut program = Cli::command();
        program.build();
        let general = PAGE.split("\n## ").next().unwrap();
        for flag in flags(&program) {
            assert!(general.contains(&flag), "docs/cli.md does not name {flag}`");
        }
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            let text = section(command.get_name());
            let text =
                text.unwrap_or_else(|| panic!("docs/cli.md has no `host-agent {}`", command.get_name()));
            for flag in flags(command).filter(|flag| !["`--config", "`--help"].contains(&flag.as_str())) {
                assert!(text.contains(&flag), "docs/cli.md does not name {flag}` of {}", command.get_name());
            }
        }
    }

    #[test]
    fn the_page_names_nothing_that_is_not_there() {
        let mut program = Cli::command();
        program.build();
        for text in PAGE.split("\n## ").skip(1) {
            let name =
                text.strip_prefix("`host-agent ").and_then(|rest| rest.split(['`', ' ']).next()).unwrap();
            let command = program.find_subcommand(name).unwrap_or_else(|| panic!("there is no `{name}`"));
            let known: Vec<String> = flags(command).collect();
            for row in text.lines().filter(|line| line.starts_with("| `--")) {
                let flag = row.trim_start_matches("| `").split(['`', ' ']).next().unwrap();
                assert!(known.contains(&format!("`{flag}")), "`{name}` has no {flag}");
            }
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }
}
