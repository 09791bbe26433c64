//! Ending work on a tree before it is done: nobody wants its result any more, or its time is over.
//!
//! A tree is made by a builder, so what it is says nothing of how long it takes to read: a sparse file of 15 TiB is made
//! in no time. Whatever walks, reads or copies one therefore looks here at every entry and at every piece of data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use thiserror::Error;

/// When work has to end early. Clones are one and the same; the default is never.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    cancelled: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

/// Why work has ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Interrupted {
    /// [`Interrupt::cancel`] was called.
    #[error("it was cancelled")]
    Cancelled,
    /// The deadline has passed.
    #[error("its time is over")]
    TimedOut,
}

impl Interrupt {
    /// At this moment, if there is one, or when it is cancelled.
    pub fn at(deadline: Option<Instant>) -> Self {
        Self { deadline, ..Self::default() }
    }

    /// Now. The work may be in another thread, and ends when it looks next.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether to go on.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Interrupted::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Interrupted::TimedOut),
            _ => Ok(()),
        }
    }
}
