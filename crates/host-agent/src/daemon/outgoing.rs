//! One frame on its way to someone, who may take it slowly or not at all.

use std::io;
use std::os::fd::AsFd;

use protocol::frame::{self, FrameError};
use serde::Serialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::Instant;

use super::places::{Patience, UNREAD_FOR};
use super::unread::unread;

/// Why something did not arrive.
#[derive(Debug, Error)]
pub(super) enum NotTaken {
    /// Nobody is there any more.
    #[error("the other side is gone")]
    Gone,
    /// Whoever it is for reads nothing, and others wait.
    #[error(
        "ended because what it printed was not read for {} s while another build waited for its turn",
        UNREAD_FOR.as_secs()
    )]
    Unread,
    /// It can't be said.
    #[error(transparent)]
    Frame(FrameError),
}

/// A frame that may be written in pieces. Everything said while a build runs goes through one, so that a frame whose writer
/// was interrupted is finished before the next.
#[derive(Debug)]
pub(super) struct Outgoing {
    frame: Vec<u8>,
    written: usize,
    taken: Taken,
    patience: Option<Patience>,
}

/// What is known of the other side's reading.
#[derive(Debug)]
struct Taken {
    /// When it last took something, or had nothing to take.
    at: Instant,
    /// What it had before it then, bytes.
    unread: usize,
}

impl Taken {
    /// Looks whether it has taken something since: the socket takes more of us only when most of what it holds was read.
    fn look(&mut self, socket: &UnixStream) -> Instant {
        let unread = unread(socket.as_fd());
        if unread < self.unread {
            *self = Self { at: Instant::now(), unread };
        }
        self.at
    }
}

impl Outgoing {
    /// To someone who reads.
    pub(super) fn new() -> Self {
        Self { frame: Vec::new(), written: 0, taken: Taken { at: Instant::now(), unread: 0 }, patience: None }
    }

    /// To a front end, which may keep its build waiting for as long as that harms nobody.
    pub(super) fn to_front_end(patience: Patience) -> Self {
        Self { patience: Some(patience), ..Self::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written == self.frame.len()
    }

    pub(super) fn put(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        self.frame = frame::encode(message)?;
        self.written = 0;
        self.taken.at = Instant::now();
        Ok(())
    }

    /// Writes one message; cancelled, the rest of it is written before the next.
    pub(super) async fn say(
        &mut self,
        writer: &OwnedWriteHalf,
        message: &impl Serialize,
    ) -> Result<(), NotTaken> {
        self.finish(writer).await?;
        self.put(message).map_err(NotTaken::Frame)?;
        self.finish(writer).await
    }

    async fn finish(&mut self, writer: &OwnedWriteHalf) -> Result<(), NotTaken> {
        while !self.is_empty() {
            self.write_to(writer).await?;
        }
        Ok(())
    }

    /// Writes what can be written now. Cancelled, it has written nothing or told so.
    pub(super) async fn write_to(&mut self, writer: &OwnedWriteHalf) -> Result<(), NotTaken> {
        let Self { frame, written, taken, patience } = self;
        let socket: &UnixStream = writer.as_ref();
        let ends = async {
            match patience {
                Some(patience) => patience.ends(|| taken.look(socket)).await,
                None => std::future::pending().await,
            }
        };
        let wrote = tokio::select! {
            biased;
            wrote = write(socket, &frame[*written..]) => wrote,
            () = ends => return Err(NotTaken::Unread),
        };
        match wrote {
            Ok(0) | Err(_) => Err(NotTaken::Gone),
            Ok(some) => {
                *written += some;
                *taken = Taken { at: Instant::now(), unread: unread(socket.as_fd()) };
                Ok(())
            }
        }
    }
}

/// Through a shared reference, so that the socket can be looked at meanwhile.
async fn write(socket: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            wrote => return wrote,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;
    use crate::daemon::places::Places;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_is_given_up_when_another_build_waits_and_not_before() {
        let places = Places::new(1, 9);
        let mut place = places.reserve(1).unwrap();
        assert_eq!(place.ask(), 0);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (_reader, writer) = ours.into_split();
        let mut outgoing = Outgoing::to_front_end(place.patience());
        let much = vec![b'x'; 1 << 19];
        assert!(timeout(UNREAD_FOR * 99, outgoing.say(&writer, &much)).await.is_err(), "it harms nobody");
        let mut waiting = places.reserve(2).unwrap();
        assert_eq!(waiting.ask(), 1);
        // Whoever reads a little, too little for the socket to take more, has its time again.
        theirs.read_exact(&mut vec![0; 1 << 16]).await.unwrap();
        let read = Instant::now();
        let result = timeout(UNREAD_FOR * 9, outgoing.say(&writer, &much)).await.unwrap();
        assert!(matches!(result, Err(NotTaken::Unread)), "{result:?}");
        assert!(read.elapsed() >= UNREAD_FOR && read.elapsed() < UNREAD_FOR + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn whoever_is_gone_is_not_waited_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let (_reader, writer) = ours.into_split();
        assert!(matches!(Outgoing::new().say(&writer, &"x").await, Err(NotTaken::Gone)));
    }
}
