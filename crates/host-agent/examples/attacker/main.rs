//! What a hostile builder does, for the tests in `tests/hostile`: it is put into a store and run in slots, and with it everything is
//! tried that a slot is to keep a builder from. A few parts run outside: the builder's accomplice, an agent that lies.
//!
//! A line `attempt WHAT RESULT` for each attempt, where the result is `done`, the name of an error, or a word of its own. Attempts are
//! such that little comes of them where nothing keeps them from happening. System calls are made by number, for what a C library would
//! not pass on, and it is a program for Linux that Darling runs as well.

#![expect(unsafe_code, reason = "attacks are system calls with arguments that no safe wrapper takes")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod binary32;
mod call;
mod channel;
mod first_process;
mod holder;
mod inputs;
mod keys;
mod leftovers;
mod liar;
mod limits;
mod machine;
mod set_id;
mod sockets;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        // As a slot's first process starts its agent: with a socket's path, and maybe an option before it.
        [socket] | ["--exclusive-uid", socket] if socket.starts_with('/') => liar::serve(socket),
        ["agent", ref rest @ ..] => agent::attack(rest),
        ["binary32", ref rest @ ..] => binary32::attack(rest),
        ["channel", ref rest @ ..] => channel::attack(rest),
        ["first-process", ref rest @ ..] => first_process::attack(rest),
        ["hold", ref rest @ ..] => holder::hold(rest),
        ["inputs", ref rest @ ..] => inputs::attack(rest),
        ["keys", ref rest @ ..] => keys::attack(rest),
        ["leftovers", ref rest @ ..] => leftovers::attack(rest),
        ["limits", ref rest @ ..] => limits::attack(rest),
        ["machine", ref rest @ ..] => machine::attack(rest),
        ["set-id", ref rest @ ..] => set_id::attack(rest),
        ["sockets", ref rest @ ..] => sockets::attack(rest),
        _ => {
            eprintln!("attacker: no such attack: {words:?}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
