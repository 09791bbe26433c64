//! The command line: one module a command, each flag defined once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Names under which this program is the build hook: Nix before 2.10 can't give its hook an argument of ours.
pub const HOOK_NAME: &str = "darling-builder-hook";

/// Builds x86_64-darwin derivations for Nix on Linux, through Darling.
#[derive(Debug, Parser)]
#[command(name = "host-agent", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// Configuration file [default: $DARLING_BUILDER_CONFIG, else /etc/darling-builder/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {}

/// Parses the command line and runs the command it names.
pub fn run() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let personality = args.first().and_then(|name| Path::new(name).file_name()).map(OsString::from);
    if personality.is_some_and(|name| name == HOOK_NAME) {
        args.splice(0..1, ["host-agent".into(), "build-hook".into()]);
    }
    let _cli = Cli::parse_from(args);
    ExitCode::SUCCESS
}
