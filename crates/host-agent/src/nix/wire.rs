//! The framing on a build hook's standard input.
//!
//! Integers are eight bytes, unsigned, little endian; a string is its length, its bytes and zero padding up to a
//! multiple of eight; a set or list is a count and that many strings (Nix `src/libutil/serialise.cc`, the same from
//! 2.3 to 2.35). There is no version number and no end mark, so every length is compared with a cap that the caller
//! gives before anything is allocated for it, and even an allowed length is allocated only as its bytes arrive.

use std::io::{self, Read};

use thiserror::Error;

/// Bytes read from the descriptor at once, and the most that is allocated ahead of what has arrived.
const CHUNK: usize = 64 << 10;

/// What a set or list may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLimits {
    /// Most elements.
    pub count: u64,
    /// Most bytes in one element.
    pub element: u64,
    /// Most bytes in all elements together.
    pub total: u64,
}

/// Why a message could not be read.
#[derive(Debug, Error)]
pub enum WireError {
    /// The input ended inside a message.
    #[error("input ended in the middle of {0}")]
    Truncated(&'static str),
    /// A string is longer than such a string can be.
    #[error("{what} of {length} bytes exceeds the limit of {limit} bytes")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// Its announced length.
        length: u64,
        /// Its cap.
        limit: u64,
    },
    /// A set or list has more elements than such a list can have.
    #[error("{what} with {count} elements exceeds the limit of {limit}")]
    TooMany {
        /// What was being read.
        what: &'static str,
        /// Its announced count.
        count: u64,
        /// Its cap.
        limit: u64,
    },
    /// The bytes after a string are not zero: the reader has lost its place.
    #[error("padding after {0} is not zero")]
    Padding(&'static str),
    /// Well framed, but not what the protocol has in this place.
    #[error("{0}")]
    Unexpected(String),
    /// The descriptor failed.
    #[error("failed to read {what}: {error}")]
    Io {
        /// What was being read.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// Reads framed values, and can look ahead.
#[derive(Debug)]
pub struct WireReader<R> {
    source: R,
    /// [`CHUNK`] bytes, of which those from `position` to `end` were read and not yet taken.
    buffer: Vec<u8>,
    position: usize,
    end: usize,
}

impl<R: Read> WireReader<R> {
    /// Reads from `source`.
    pub fn new(source: R) -> Self {
        Self { source, buffer: vec![0; CHUNK], position: 0, end: 0 }
    }

    /// Whether the input has ended here; waits for the next byte to know.
    pub fn at_end(&mut self) -> Result<bool, WireError> {
        Ok(self.peek(1, "the next message")?.is_empty())
    }

    /// The next few bytes without taking them, fewer at the end of the input.
    pub fn peek(&mut self, count: usize, what: &'static str) -> Result<&[u8], WireError> {
        while self.end - self.position < count {
            if self.fill(what)? == 0 {
                break;
            }
        }
        let end = self.end.min(self.position + count);
        Ok(&self.buffer[self.position..end])
    }

    /// An integer.
    pub fn integer(&mut self, what: &'static str) -> Result<u64, WireError> {
        let mut bytes = [0; 8];
        let have = self.peek(8, what)?;
        if have.len() < 8 {
            return Err(WireError::Truncated(what));
        }
        bytes.copy_from_slice(have);
        self.position += 8;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A string of at most `limit` bytes.
    pub fn string(&mut self, limit: u64, what: &'static str) -> Result<Vec<u8>, WireError> {
        let length = self.integer(what)?;
        if length > limit {
            return Err(WireError::TooLong { what, length, limit });
        }
        let length = usize::try_from(length).map_err(|_| WireError::TooLong { what, length, limit })?;
        let mut bytes = Vec::with_capacity(length.min(CHUNK));
        while bytes.len() < length {
            let wanted = (length - bytes.len()).min(CHUNK);
            let have = self.peek(1, what)?;
            if have.is_empty() {
                return Err(WireError::Truncated(what));
            }
            let taken = wanted.min(self.end - self.position);
            bytes.extend_from_slice(&self.buffer[self.position..self.position + taken]);
            self.position += taken;
        }
        let padding = length.next_multiple_of(8) - length;
        let have = self.peek(padding, what)?;
        if have.len() < padding {
            return Err(WireError::Truncated(what));
        }
        if have.iter().any(|byte| *byte != 0) {
            return Err(WireError::Padding(what));
        }
        self.position += padding;
        Ok(bytes)
    }

    /// A set or list of strings.
    pub fn strings(&mut self, limits: ListLimits, what: &'static str) -> Result<Vec<Vec<u8>>, WireError> {
        let count = self.integer(what)?;
        if count > limits.count {
            return Err(WireError::TooMany { what, count, limit: limits.count });
        }
        let mut strings = Vec::new();
        let mut total = 0;
        for _ in 0..count {
            let string = self.string(limits.element, what)?;
            total += string.len() as u64;
            if total > limits.total {
                return Err(WireError::TooLong { what, length: total, limit: limits.total });
            }
            strings.push(string);
        }
        Ok(strings)
    }

    /// What was read ahead and not used, and the source behind it.
    pub fn into_rest(mut self) -> (Vec<u8>, R) {
        self.buffer.truncate(self.end);
        self.buffer.drain(..self.position);
        (self.buffer, self.source)
    }

    fn fill(&mut self, what: &'static str) -> Result<usize, WireError> {
        self.buffer.copy_within(self.position..self.end, 0);
        self.end -= self.position;
        self.position = 0;
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(WireError::Io { what, error }),
            }
        }
    }
}

/// Appends an integer.
pub fn put_integer(to: &mut Vec<u8>, value: u64) {
    to.extend_from_slice(&value.to_le_bytes());
}

/// Appends a string with its length and padding.
pub fn put_string(to: &mut Vec<u8>, string: &[u8]) {
    put_integer(to, string.len() as u64);
    to.extend_from_slice(string);
    to.resize(to.len() + string.len().next_multiple_of(8) - string.len(), 0);
}

/// Appends a set or list.
pub fn put_strings(to: &mut Vec<u8>, strings: &[Vec<u8>]) {
    put_integer(to, strings.len() as u64);
    for string in strings {
        put_string(to, string);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: ListLimits = ListLimits { count: 4, element: 16, total: 40 };

    #[test]
    fn reads_the_padding_of_a_captured_string() {
        let bytes = b"\x0d\0\0\0\0\0\0\0x86_64-darwin\0\0\0rest";
        let mut reader = WireReader::new(&bytes[..]);
        assert_eq!(reader.string(64, "system").unwrap(), b"x86_64-darwin");
        assert_eq!(reader.peek(16, "rest").unwrap(), b"rest");
    }

    #[test]
    fn refuses_a_length_over_the_cap_before_reading_on() {
        let mut reader = WireReader::new(&[0xff; 8][..]);
        let error = reader.string(64, "system").unwrap_err();
        insta::assert_snapshot!(error, @"system of 18446744073709551615 bytes exceeds the limit of 64 bytes");
    }

    #[test]
    fn allocates_no_more_than_arrived() {
        let mut bytes = Vec::new();
        put_integer(&mut bytes, 1 << 40);
        bytes.extend_from_slice(b"short");
        let error = WireReader::new(&bytes[..]).string(1 << 41, "value").unwrap_err();
        insta::assert_snapshot!(error, @"input ended in the middle of value");
    }

    #[test]
    fn refuses_padding_that_is_not_zero() {
        let error = WireReader::new(&b"\x01\0\0\0\0\0\0\0abcdefgh"[..]).string(64, "system").unwrap_err();
        insta::assert_snapshot!(error, @"padding after system is not zero");
    }

    #[test]
    fn refuses_lists_over_their_caps() {
        let list = |strings: &[&[u8]]| {
            let mut bytes = Vec::new();
            put_strings(&mut bytes, &strings.iter().map(|s| s.to_vec()).collect::<Vec<_>>());
            WireReader::new(&bytes[..]).strings(LIMITS, "set").map_err(|error| error.to_string())
        };
        assert!(list(&[b"a", b"b", b"c", b"d"]).is_ok());
        insta::assert_snapshot!(list(&[b"".as_slice(); 5]).unwrap_err(), @"set with 5 elements exceeds the limit of 4");
        insta::assert_snapshot!(list(&[&[7; 17]]).unwrap_err(), @"set of 17 bytes exceeds the limit of 16 bytes");
        insta::assert_snapshot!(list(&[[7; 16].as_slice(); 3]).unwrap_err(), @"set of 48 bytes exceeds the limit of 40 bytes");
    }

    /// Gives one byte at a time, as a slow pipe does.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    proptest! {
        #[test]
        fn strings_come_back_however_they_are_cut(
            strings in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            number: u64,
        ) {
            let mut bytes = Vec::new();
            put_integer(&mut bytes, number);
            put_strings(&mut bytes, &strings);
            let limits = ListLimits { count: 8, element: 40, total: 400 };
            let mut reader = WireReader::new(Dribble(&bytes));
            prop_assert_eq!(reader.integer("number").unwrap(), number);
            prop_assert_eq!(reader.strings(limits, "set").unwrap(), strings);
            prop_assert!(reader.at_end().unwrap());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = WireReader::new(&bytes[..]).strings(LIMITS, "set");
        }
    }
}
