//! The tick: every 100 ms a byte to the agent, which sleeps half a millisecond and sends it back.
//!
//! Darling's server keeps one timer for all sleepers and can lose it under load; the next *new* sleep arms it again.
//! So the tick must come from outside, where timers can be trusted. It can be a tick's own sleep that is lost: so the
//! next byte does not wait for the last one's answer, and another thread of the agent sleeps and wakes the first. No
//! answer to any of them means that time stands still in the slot for good.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use protocol::limits::TICKS_UNDER_WAY;

/// Between two ticks.
const PERIOD: Duration = Duration::from_millis(100);

/// Answers that are so late do not come any more. Far beyond what a loaded machine needs.
const STALLED: Duration = Duration::from_secs(10);

/// What the answers say of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// None has come for so long.
    Late(Duration),
    /// More have come than there were ticks: an agent that makes them up is nobody to wait for, and reading on would keep the
    /// slot's first process from everything else.
    MadeUp,
}

/// The tick of one slot.
#[derive(Debug)]
pub struct Ticker {
    timer: TimerFd,
    connection: UnixStream,
    open: bool,
    /// Bytes sent and not yet answered.
    under_way: usize,
    /// The last time that none was under way or one was answered.
    last_answer: Instant,
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
        Ok(Self { timer, connection, open: true, under_way: 0, last_answer: Instant::now(), reported: false })
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

    /// Takes answers, sends what is due. Says once what is wrong with them.
    pub fn proceed(&mut self) -> Option<Trouble> {
        self.proceed_at(Instant::now())
    }

    fn proceed_at(&mut self, now: Instant) -> Option<Trouble> {
        let mut answers = [0; 16];
        loop {
            match self.connection.read(&mut answers) {
                Ok(0) => {
                    self.open = false;
                    return None;
                }
                Ok(count) if count > self.under_way => {
                    self.open = false;
                    return Some(Trouble::MadeUp);
                }
                Ok(count) => {
                    self.under_way -= count;
                    self.last_answer = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.open = false;
                    return None;
                }
            }
        }
        let mut expirations = [0; 8];
        if nix::unistd::read(&self.timer, &mut expirations).is_ok() && self.under_way < TICKS_UNDER_WAY {
            if self.under_way == 0 {
                self.last_answer = now;
            }
            match self.connection.write_all(b"t") {
                Ok(()) => self.under_way += 1,
                Err(_) => self.open = false,
            }
        }
        let late = now.duration_since(self.last_answer);
        if self.under_way == 0 || self.reported || late < STALLED {
            return None;
        }
        self.reported = true;
        Some(Trouble::Late(late))
    }
}

#[cfg(test)]
mod tests {
    //! The far end here is the test: it answers when it likes.

    use super::*;

    /// A ticker, the agent's end, and a time that is as late as the test says.
    fn start() -> (Ticker, UnixStream, Instant) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (Ticker::new(ours, true).unwrap(), theirs, Instant::now())
    }

    /// Goes on once the timer is due.
    fn proceed(ticker: &mut Ticker, at: Instant) -> Option<Trouble> {
        let mut due = [nix::poll::PollFd::new(ticker.timer(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut due, 5000u16).unwrap();
        ticker.proceed_at(at)
    }

    #[test]
    fn a_lost_tick_is_followed_by_others_whose_answers_count() {
        let (mut ticker, mut agent, begin) = start();
        for round in 0..20 {
            assert_eq!(proceed(&mut ticker, begin + round * Duration::from_secs(4)), None);
            let mut byte = [0];
            agent.read_exact(&mut byte).unwrap();
            // The first is never answered.
            if round > 0 {
                agent.write_all(&byte).unwrap();
            }
        }
        assert_eq!(ticker.under_way, 2);
    }

    #[test]
    fn no_answer_at_all_is_a_stall_reported_once() {
        let (mut ticker, mut agent, begin) = start();
        for round in 0..6 {
            assert_eq!(proceed(&mut ticker, begin + round * Duration::from_secs(1)), None);
        }
        let late = Duration::from_secs(11);
        assert_eq!(proceed(&mut ticker, begin + late), Some(Trouble::Late(late)));
        assert_eq!(proceed(&mut ticker, begin + 2 * late), None);
        let mut bytes = [0; 16];
        assert_eq!(
            agent.read(&mut bytes).unwrap(),
            TICKS_UNDER_WAY,
            "no more than the agent has threads for"
        );
    }

    #[test]
    fn answers_to_nothing_are_noticed_and_not_read_for_ever() {
        let (mut ticker, mut agent, begin) = start();
        assert_eq!(proceed(&mut ticker, begin), None);
        agent.write_all(b"tt").unwrap();
        assert_eq!(proceed(&mut ticker, begin), Some(Trouble::MadeUp));
        assert!(!ticker.is_open());
    }

    #[test]
    fn an_agent_that_leaves_is_noticed() {
        let (mut ticker, agent, begin) = start();
        drop(agent);
        assert_eq!(proceed(&mut ticker, begin), None);
        assert!(!ticker.is_open());
    }
}
