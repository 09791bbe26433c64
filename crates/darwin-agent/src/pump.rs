//! Reads the process's output and hands it to the outbox, in order and without loss.
//!
//! After the process and what it left behind are gone, what they wrote is still on its way: a pseudo-terminal on Linux
//! delivers through a work queue, so that an empty read right after the end means nothing. The pump therefore goes on
//! until every stream reports its end (0 bytes, or EIO from a pseudo-terminal). If a process that escaped holds one
//! open, it stops after [`IDLE`] without a byte, or after [`LEFT_OVER_MAX`] bytes, which is more than pipe and terminal
//! can hold, so that nothing written before the end is lost.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::limits::CHUNK_MAX;
use protocol::message::FromAgent;

use crate::outbox::Outbox;
use crate::streams::Source;

/// Silence after which a stream that something still holds open counts as ended.
const IDLE: Duration = Duration::from_millis(200);

/// Most bytes read after the end. A pipe holds at most 1 MiB for an unprivileged process
/// (`/proc/sys/fs/pipe-max-size`), a pseudo-terminal less.
const LEFT_OVER_MAX: usize = 4 << 20;

/// Runs until all output is queued or the connection is gone. `ended` reports end of file when the process and what
/// could be killed of its descendants are gone.
pub fn run(outbox: &Outbox, mut sources: Vec<Source>, ended: PipeReader, start: Instant) {
    let mut buffer = vec![0; CHUNK_MAX];
    let mut left_over: Option<LeftOver> = None;
    while !sources.is_empty() {
        let timeout = match &left_over {
            None => PollTimeout::NONE,
            Some(rest) => match rest.remaining() {
                Some(time) => time,
                None => return,
            },
        };
        let Some(ready) = wait(&sources, left_over.is_none().then_some(&ended), timeout) else {
            return;
        };
        if ready.ended {
            left_over = Some(LeftOver::new());
        }
        let mut index = 0;
        for is_ready in ready.sources {
            if !is_ready {
                index += 1;
                continue;
            }
            let at_micros = start.elapsed().as_micros() as u64;
            let (len, open) = fill(&mut sources[index], &mut buffer);
            if len > 0 {
                let message = FromAgent::Output {
                    stream: sources[index].stream,
                    at_micros,
                    bytes: buffer[..len].into(),
                };
                if !outbox.send(message) {
                    return;
                }
                if let Some(rest) = &mut left_over {
                    rest.took(len);
                }
            }
            if open {
                index += 1;
            } else {
                sources.remove(index);
            }
        }
    }
}

/// What is still to come after the end.
struct LeftOver {
    last: Instant,
    bytes: usize,
}

impl LeftOver {
    fn new() -> Self {
        Self { last: Instant::now(), bytes: 0 }
    }

    fn took(&mut self, bytes: usize) {
        self.last = Instant::now();
        self.bytes += bytes;
    }

    /// How long to wait for more; `None` when enough is enough.
    fn remaining(&self) -> Option<PollTimeout> {
        let left = IDLE.checked_sub(self.last.elapsed())?;
        // One more than the whole milliseconds, so that the last wait is not a busy one.
        let millis = u16::try_from(left.as_millis()).ok()?.checked_add(1)?;
        (self.bytes < LEFT_OVER_MAX).then_some(millis.into())
    }
}

struct Ready {
    sources: Vec<bool>,
    ended: bool,
}

/// Waits until something can be read; `None` if that is impossible.
fn wait(sources: &[Source], ended: Option<&PipeReader>, timeout: PollTimeout) -> Option<Ready> {
    let mut fds: Vec<PollFd<'_>> = sources
        .iter()
        .map(|source| source.file.as_fd())
        .chain(ended.map(|pipe| pipe.as_fd()))
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(_) => return None,
    }
    let mut ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
    let ended = ended.is_some() && ready.pop().unwrap_or(false);
    Some(Ready { sources: ready, ended })
}

/// Reads until the buffer is full or nothing more is there: how much, and whether the stream goes on. A read from a
/// pseudo-terminal gives at most 4 KiB, a message costs more than a read.
fn fill(source: &mut Source, buffer: &mut [u8]) -> (usize, bool) {
    let mut len = 0;
    while len < buffer.len() {
        match source.file.read(&mut buffer[len..]) {
            Ok(0) => return (len, false),
            Ok(n) => len += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (len, true),
            // EIO: the last holder of the pseudo-terminal has closed it. Any other error won't go away either.
            Err(_) => return (len, false),
        }
    }
    (len, true)
}
