//! Development tasks, one module a command.

mod bench;
mod binaries;
mod darling;
mod darwin;
mod demo;
mod dist;
mod flags;
mod in_world;
mod nix_roots;
mod nixos;
mod packages;
mod task;
mod test;
mod vm_test;
mod workspace;
mod world;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use flags::{BenchCommand, Command, Flags};
use workspace::Workspace;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags.command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    // `false`: it was done, and the result is bad.
    let good = match command {
        Command::VmStages { plan } => return Ok(vm_test::runner::run(&plan)),
        Command::WorldInit { spec } => world::init::run(&spec).map(|()| true),
        Command::WorldTask => task::run(),
        Command::Test(flags) => test::run(&Workspace::find()?, &flags),
        Command::Demo(flags) => demo::run(&Workspace::find()?, &flags),
        Command::Bench { what: BenchCommand::Overhead(flags) } => {
            bench::overhead::run(&Workspace::find()?, &flags)
        }
        Command::Bench { what: BenchCommand::Darling(flags) } => {
            bench::darling::run(&Workspace::find()?, &flags)
        }
        Command::Bench { what: BenchCommand::Hash(flags) } => bench::hash::run(&Workspace::find()?, &flags),
        Command::Packages(flags) => packages::run(&Workspace::find()?, &flags),
        Command::VmTest(flags) => vm_test::run(&Workspace::find()?, &flags),
        Command::InWorld(flags) => in_world::run(&Workspace::find()?, &flags),
        Command::Darwin(flags) => darwin::run(&Workspace::find()?, &flags).map(|()| true),
        Command::Dist(flags) => dist::run(&Workspace::find()?, &flags).map(|()| true),
        Command::NixRoots { nix } => nix_roots::run(&Workspace::find()?, &nix),
        Command::NixosOptions => nixos::options_page::run(&Workspace::find()?),
    }?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line that says what takes time.
pub fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "• {line}");
}
