//! Development tasks, one module a command.

mod bench;
mod binaries;
mod darling;
mod demo;
mod flags;
mod in_world;
mod nix_roots;
mod task;
mod test;
mod workspace;
mod world;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

use flags::{BenchCommand, Command, Flags};
use workspace::Workspace;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `false`: it was done, and the result is bad.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::WorldInit { spec } => world::init::run(&spec).map(|()| true),
        Command::WorldTask => task::run(),
        Command::Test(flags) => test::run(&outside()?, &flags),
        Command::Demo(flags) => demo::run(&outside()?, &flags),
        Command::Bench { what: BenchCommand::Overhead(flags) } => bench::overhead::run(&outside()?, &flags),
        Command::Bench { what: BenchCommand::Hash(flags) } => bench::hash::run(&outside()?, &flags),
        Command::InWorld(flags) => in_world::run(&outside()?, &flags),
        Command::NixRoots { nix } => nix_roots::run(&outside()?, &nix),
    }
}

/// For commands that are not in a world but may make one.
fn outside() -> Result<Workspace> {
    remove_worlds_when_interrupted()?;
    Workspace::find()
}

/// Ctrl-C and SIGTERM end worlds by themselves; what they have on disk must be removed. Children get an empty signal
/// mask from the standard library.
fn remove_worlds_when_interrupted() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    std::thread::spawn(move || {
        let signal = signals.wait();
        world::end_all();
        std::process::exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}

/// A line that says what takes time.
pub fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "• {line}");
}
