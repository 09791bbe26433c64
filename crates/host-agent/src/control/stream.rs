//! Frames over tokio's Unix sockets, for the daemon's side.

use std::io;

use protocol::frame::{self, FrameError, HEADER_LEN};
use protocol::limits::FRAME_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads frames. [`next`](Self::next) may be cancelled without losing a byte, so it can stand in a `select!`.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames from `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new() }
    }

    /// The next message; `None` when the peer has closed between two frames.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            let mut wanted = HEADER_LEN;
            if let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_LEN>() {
                let len = frame::payload_len(*header)?;
                if let Some(payload) = rest.get(..len) {
                    let message = frame::decode(payload)?;
                    self.buffer.drain(..HEADER_LEN + len);
                    return Ok(Some(message));
                }
                wanted += len;
            }
            debug_assert!(wanted <= HEADER_LEN + FRAME_MAX);
            self.buffer.reserve(wanted - self.buffer.len());
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
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
