//! `darwin-agent`: runs one build's process inside the guest and streams its output to the host.
//!
//! Threads, one concern each: the main thread reads the host's messages ([`session`]), [`outbox`] writes to it,
//! [`tick`] answers the tick, [`build`] waits for the process and cleans up after it, [`pump`] reads its output, [`input`] writes its input.
//! Nothing here speaks on stdout: Darling prints its own remarks there.

mod build;
mod child;
mod command_line;
mod connection;
mod inheritance;
mod input;
mod outbox;
mod process_table;
mod pump;
mod reaper;
mod request;
mod session;
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
        Ok(Action::Version) => {
            eprintln!("{}", connection::identity());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("darwin-agent: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match session::run(&options) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("darwin-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
