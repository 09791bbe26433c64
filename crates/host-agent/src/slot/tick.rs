//! The tick: every 100 ms a byte to the agent, which sleeps half a millisecond and sends it back.
//!
//! Darling's server keeps one timer for all sleepers and can lose it under load; the next *new* sleep arms it again.
//! So the tick must come from outside, where timers can be trusted. An answer that does not come means that time stands
//! still in the slot for good.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Between two ticks.
const PERIOD: Duration = Duration::from_millis(100);

/// An answer that is so late does not come any more. Far beyond what a loaded machine needs (0.04 s seen).
const STALLED: Duration = Duration::from_secs(10);

/// The tick of one slot.
#[derive(Debug)]
pub struct Ticker {
    timer: TimerFd,
    connection: UnixStream,
    open: bool,
    /// When the byte under way was sent.
    sent: Option<Instant>,
    reported: bool,
}

impl Ticker {
    /// Starts ticking on the agent's tick connection; with `on` false it only watches the connection's end.
    pub fn new(connection: UnixStream, on: bool) -> io::Result<Self> {
        connection.set_nonblocking(true)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        if on {
            timer.set(Expiration::Interval(TimeSpec::from_duration(PERIOD)), TimerSetTimeFlags::empty())?;
        }
        Ok(Self { timer, connection, open: true, sent: None, reported: false })
    }

    /// Ready when the next tick is due.
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Ready when an answer is there.
    pub fn connection(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// Whether the agent is still there.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Takes answers, sends what is due. Says once how late the answer is when it is too late.
    pub fn proceed(&mut self) -> Option<Duration> {
        let mut answers = [0; 16];
        loop {
            match self.connection.read(&mut answers) {
                Ok(0) => {
                    self.open = false;
                    return None;
                }
                Ok(_) => self.sent = None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.open = false;
                    return None;
                }
            }
        }
        let mut expirations = [0; 8];
        let due = nix::unistd::read(&self.timer, &mut expirations).is_ok();
        match self.sent {
            None if due => {
                if self.connection.write_all(b"t").is_ok() {
                    self.sent = Some(Instant::now());
                } else {
                    self.open = false;
                }
                None
            }
            Some(sent) if !self.reported && sent.elapsed() >= STALLED => {
                self.reported = true;
                Some(sent.elapsed())
            }
            _ => None,
        }
    }
}
