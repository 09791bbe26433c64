//! The tick: every byte that comes in goes back after a sleep of half a millisecond.
//!
//! Darling's server keeps one timer for all sleepers and loses it under load; any new sleep arms it again. The host
//! sends a byte every 100 ms or so and takes missing answers as a stalled guest. The sleep of a tick can be the one that
//! is lost (once in some thousands under load), so several threads answer: the next byte finds another one, whose sleep wakes
//! the first.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// Threads that answer. The host has as many bytes under way at most ([`protocol::limits::TICKS_UNDER_WAY`]).
pub const SLEEPERS: usize = protocol::limits::TICKS_UNDER_WAY;

/// Long enough to need a timer, short enough to answer at once.
const SLEEP: Duration = Duration::from_micros(500);

/// Answers until the host closes the connection. Any number of threads may do so on one connection.
pub fn answer(mut stream: &UnixStream) {
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return,
            Ok(_) => {
                thread::sleep(SLEEP);
                if stream.write_all(&byte).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
