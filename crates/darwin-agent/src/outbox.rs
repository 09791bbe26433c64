//! What is on its way to the host.
//!
//! One thread writes to the control connection; everyone else hands it messages. Output is bounded to
//! [`OUTPUT_QUEUED`] messages: whoever reads the process's output waits for room, so that a slow host slows the build
//! down and nothing grows. Replies overtake queued output and never wait, so that the thread that reads the host's
//! messages always goes on reading them: a signal must arrive while output is stuck.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use protocol::frame::{self, FrameError};
use protocol::message::FromAgent;

/// Messages of output that may wait; each holds at most [`CHUNK_MAX`](protocol::limits::CHUNK_MAX) bytes.
const OUTPUT_QUEUED: usize = 2;

/// Replies that may wait. A host that does not read asks in vain for more.
const REPLIES_QUEUED: usize = 64;

/// The queue between the threads.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    // One condition for both directions; never waited on with a time limit, which does not work inside Darling.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    replies: VecDeque<FromAgent>,
    output: VecDeque<FromAgent>,
    closed: bool,
}

impl Outbox {
    /// Queues what the process did, in order; waits while there is no room. `false` when the connection is gone.
    pub fn send(&self, message: FromAgent) -> bool {
        let mut queue = self.lock();
        while queue.output.len() >= OUTPUT_QUEUED && !queue.closed {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed {
            return false;
        }
        queue.output.push_back(message);
        self.changed.notify_all();
        true
    }

    /// Queues an answer, ahead of output. Never waits; drops it if too many wait already.
    pub fn reply(&self, message: FromAgent) {
        let mut queue = self.lock();
        if queue.replies.len() < REPLIES_QUEUED && !queue.closed {
            queue.replies.push_back(message);
            self.changed.notify_all();
        }
    }

    /// Writes messages as they come; returns when the connection fails.
    pub fn write_to(&self, mut stream: UnixStream) -> FrameError {
        loop {
            let message = self.next();
            let written = frame::encode(&message).and_then(|bytes| Ok(stream.write_all(&bytes)?));
            if let Err(error) = written {
                self.lock().closed = true;
                self.changed.notify_all();
                return error;
            }
        }
    }

    fn next(&self) -> FromAgent {
        let mut queue = self.lock();
        loop {
            if let Some(reply) = queue.replies.pop_front() {
                return reply;
            }
            if let Some(output) = queue.output.pop_front() {
                self.changed.notify_all();
                return output;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic aborts the release build, and no invariant spans two statements here.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
