//! Frames over tokio's Unix sockets, for the daemon's side.

use std::io;
use std::time::Duration;

use protocol::frame::{self, FrameError, HEADER_LEN};
use protocol::limits::FRAME_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// Reads frames. [`next`](Self::next) may be cancelled without losing a byte, so it can stand in a `select!`.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    buffer: Vec<u8>,
    longest: usize,
    /// How long a frame may take from its first byte to its last.
    within: Option<Duration>,
    /// When the frame's last byte must be there whose first one is.
    until: Option<Instant>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames from `reader`, whoever writes them.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), longest: FRAME_MAX, within: None, until: None }
    }

    /// Frames from someone who may want to do harm: none of more than `longest` bytes, and none that takes longer than `within`
    /// from its first byte to its last.
    pub fn bounded(reader: R, longest: usize, within: Duration) -> Self {
        Self { longest, within: Some(within), ..Self::new(reader) }
    }

    /// From now on frames may have this many bytes, or as many as any frame may.
    pub fn set_longest(&mut self, longest: usize) {
        self.longest = longest.min(FRAME_MAX);
    }

    /// The next message; `None` when the peer has closed between two frames.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            let mut wanted = HEADER_LEN;
            if let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_LEN>() {
                let len = frame::payload_len(*header)?;
                if len > self.longest {
                    return Err(FrameError::Malformed(format!(
                        "it has {len} bytes, where {} are the most",
                        self.longest
                    )));
                }
                if let Some(payload) = rest.get(..len) {
                    let message = frame::decode(payload)?;
                    self.buffer.drain(..HEADER_LEN + len);
                    self.until = None;
                    return Ok(Some(message));
                }
                wanted += len;
            }
            debug_assert!(wanted <= HEADER_LEN + FRAME_MAX);
            self.buffer.reserve(wanted - self.buffer.len());
            if self.read().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    async fn read(&mut self) -> Result<usize, FrameError> {
        if let Some(within) = self.within
            && !self.buffer.is_empty()
        {
            let until = *self.until.get_or_insert_with(|| Instant::now() + within);
            return match timeout_at(until, self.reader.read_buf(&mut self.buffer)).await {
                Ok(read) => Ok(read?),
                Err(_) => {
                    Err(FrameError::Malformed(format!("the rest of it did not come within {within:?}")))
                }
            };
        }
        Ok(self.reader.read_buf(&mut self.buffer).await?)
    }
}

/// Writes one message.
pub async fn send<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), FrameError> {
    writer.write_all(&frame::encode(message)?).await?;
    Ok(())
}

/// Whether a frame could not be sent or read merely because the peer is gone.
pub fn is_gone(error: &FrameError) -> bool {
    match error {
        FrameError::Truncated => true,
        FrameError::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_has_begun_must_end_soon_and_the_wait_for_one_has_no_end() {
        let (mut peer, ours) = tokio::io::duplex(1 << 12);
        let mut frames = FrameReader::bounded(ours, 100, WITHIN);
        let frame = frame::encode(&"hello".to_owned()).unwrap();
        let (first, rest) = frame.split_at(6);
        let begun = Instant::now();
        assert!(
            timeout_at(begun + WITHIN * 100, frames.next::<String>()).await.is_err(),
            "nothing has begun"
        );
        peer.write_all(first).await.unwrap();
        // Looking again and again gives it no more time.
        let begun = Instant::now();
        assert!(timeout_at(begun + WITHIN / 2, frames.next::<String>()).await.is_err());
        assert!(matches!(frames.next::<String>().await, Err(FrameError::Malformed(_))));
        assert_eq!(begun.elapsed(), WITHIN);
        peer.write_all(rest).await.unwrap();
        assert_eq!(frames.next::<String>().await.unwrap().unwrap(), "hello");
        // The next one has its own time.
        peer.write_all(first).await.unwrap();
        let begun = Instant::now();
        assert!(frames.next::<String>().await.is_err());
        assert_eq!(begun.elapsed(), WITHIN);
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        let (mut peer, ours) = tokio::io::duplex(1 << 12);
        let mut frames = FrameReader::bounded(ours, 100, WITHIN);
        peer.write_all(&101u32.to_le_bytes()).await.unwrap();
        let error = frames.next::<String>().await.unwrap_err().to_string();
        assert_eq!(error, "malformed frame: it has 101 bytes, where 100 are the most");
    }
}
