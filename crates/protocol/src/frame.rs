//! Length-prefixed bincode frames: a `u32` little-endian payload length, then that many bytes.
//!
//! The only file that names bincode. Integers are fixed-width little endian; the length is checked against
//! [`FRAME_MAX`](crate::limits::FRAME_MAX) before anything is allocated, and a payload must be consumed to its last
//! byte, so that two peers never disagree about where a message ends. Lengths inside a payload are claims as well and
//! allocate nothing that is not there (`bounded`).

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::bounded::Seed;
use crate::limits::FRAME_MAX;

/// Bytes before each payload.
pub const HEADER_LEN: usize = 4;

const FORMAT: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<FRAME_MAX>,
> = bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<FRAME_MAX>();

const UNBOUNDED: bincode::config::Configuration<bincode::config::LittleEndian, bincode::config::Fixint> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding();

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The peer announced, or the caller asked for, more than the cap.
    #[error("frame of {0} bytes exceeds the limit of {FRAME_MAX} bytes")]
    TooLarge(usize),
    /// The payload is not a message of the expected type.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// The payload goes on after the message has ended.
    #[error("frame has {0} bytes after its message")]
    TrailingBytes(usize),
    /// The connection ended in the middle of a frame.
    #[error("connection closed in the middle of a frame")]
    Truncated,
    /// The transport failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One message as a whole frame, header included.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER_LEN];
    bincode::serde::encode_into_std_write(message, &mut frame, FORMAT)
        .map_err(|error| FrameError::Malformed(error.to_string()))?;
    let payload = frame.len() - HEADER_LEN;
    if payload > FRAME_MAX {
        return Err(FrameError::TooLarge(payload));
    }
    frame[..HEADER_LEN].copy_from_slice(&(payload as u32).to_le_bytes());
    Ok(frame)
}

/// One value without a header and without the cap of a frame, for what is sent in several frames. Whoever receives it
/// bounds it with [`decode_large`].
pub fn encode_large<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    bincode::serde::encode_to_vec(value, UNBOUNDED).map_err(|error| FrameError::Malformed(error.to_string()))
}

/// The value in `bytes`, which the caller has bounded while it collected them. A length inside it can't make more be
/// allocated than in proportion to the bytes that are there.
pub fn decode_large<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let decoded = bincode::serde::seed_decode_from_slice(Seed::new(), bytes, UNBOUNDED);
    whole(decoded, bytes.len())
}

/// The payload length that a header announces, refused if it is over the cap.
pub fn payload_len(header: [u8; HEADER_LEN]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(header) as usize;
    if len > FRAME_MAX { Err(FrameError::TooLarge(len)) } else { Ok(len) }
}

/// One message from a whole payload (no header).
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    if payload.len() > FRAME_MAX {
        return Err(FrameError::TooLarge(payload.len()));
    }
    let decoded = bincode::serde::seed_decode_from_slice(Seed::new(), payload, FORMAT);
    whole(decoded, payload.len())
}

/// What was decoded, if that took all of the input.
fn whole<T>(decoded: Result<(T, usize), bincode::error::DecodeError>, len: usize) -> Result<T, FrameError> {
    let (value, used) = decoded.map_err(|error| FrameError::Malformed(malformed(&error)))?;
    match len.saturating_sub(used) {
        0 => Ok(value),
        rest => Err(FrameError::TrailingBytes(rest)),
    }
}

/// What is wrong with a payload, in words.
fn malformed(error: &bincode::error::DecodeError) -> String {
    use bincode::error::DecodeError;
    match error {
        DecodeError::UnexpectedEnd { additional } => format!("it ends {additional} bytes too early"),
        DecodeError::LimitExceeded => "a length inside it exceeds the frame limit".to_owned(),
        DecodeError::Utf8 { .. } => "a text is not UTF-8".to_owned(),
        DecodeError::OtherString(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes one message as a frame.
pub fn write<T: Serialize>(writer: &mut impl Write, message: &T) -> Result<(), FrameError> {
    writer.write_all(&encode(message)?)?;
    writer.flush()?;
    Ok(())
}

/// Reads one message; `None` when the connection ended cleanly between two frames.
pub fn read<T: DeserializeOwned>(reader: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER_LEN];
    if !fill_header(reader, &mut header)? {
        return Ok(None);
    }
    let mut payload = vec![0; payload_len(header)?];
    reader.read_exact(&mut payload).map_err(cut_or_failed)?;
    decode(&payload).map(Some)
}

/// Reads a header; `false` when the connection ended cleanly before it.
pub(crate) fn fill_header(reader: &mut impl Read, header: &mut [u8; HEADER_LEN]) -> Result<bool, FrameError> {
    let mut have = 0;
    while have < HEADER_LEN {
        match reader.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Ok(false),
            Ok(0) => return Err(FrameError::Truncated),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// An error of `read_exact` inside a frame.
pub(crate) fn cut_or_failed(error: io::Error) -> FrameError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(error),
    }
}
