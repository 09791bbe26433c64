//! The tick: every byte that comes in goes back after a sleep of half a millisecond.
//!
//! Darling's server keeps one timer for all sleepers and loses it under load; any new sleep arms it again. The host
//! sends a byte every 100 ms or so and takes a missing answer as a stalled guest.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// Long enough to need a timer, short enough to answer at once.
const SLEEP: Duration = Duration::from_micros(500);

/// Answers until the host closes the connection.
pub fn answer(mut stream: UnixStream) {
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
