//! `darwin-agent`: runs one build's process inside the guest and streams its output to the host.
//!
//! Threads, one concern each: the main thread reads the host's messages ([`session`]), [`outbox`] writes to it,
//! [`tick`] answers the tick, [`build`] waits for the process and cleans up after it, [`pump`] reads its output, [`input`] writes its input.
//! Nothing here speaks on stdout but [`confinement`], in marked lines: Darling prints its own remarks there.

mod build;
mod child;
mod command_line;
mod confinement;
mod connection;
mod inheritance;
mod input;
mod linux;
mod outbox;
mod process_table;
mod pump;
mod reaper;
mod request;
mod session;
mod shield;
mod streams;
mod tick;

use std::process::ExitCode;

use crate::command_line::{Action, USAGE};

fn main() -> ExitCode {
    inheritance::disown_descriptors();
    inheritance::own_signals();
    let options = match command_line::parse(std::env::args_os().skip(1)) {
        Ok(Action::Run(options)) => options,
        Ok(Action::Help) => {
            eprint!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Action::TryConfinement) => {
            return match confinement::run() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Ok(Action::Version) => {
            eprintln!("{}", connection::identity());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("darwin-agent: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    inheritance::ignore_signals();
    shield::close_memory();
    match session::run(&options) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("darwin-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
