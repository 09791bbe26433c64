//! Any message survives the way, and nothing else is taken for one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod samples;

use std::fmt::Debug;
use std::io::{self, Read};

use proptest::prelude::*;
use protocol::frame::{self, FrameError, HEADER_LEN};
use protocol::hello::Hello;
use protocol::limits::FRAME_MAX;
use protocol::message::{FromAgent, ToAgent};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn survives<T: Serialize + DeserializeOwned + Debug + PartialEq>(message: &T) {
    let bytes = frame::encode(message).unwrap();
    let header = bytes[..HEADER_LEN].try_into().unwrap();
    assert_eq!(frame::payload_len(header).unwrap(), bytes.len() - HEADER_LEN);
    assert_eq!(frame::decode::<T>(&bytes[HEADER_LEN..]).unwrap(), *message);

    let mut twice = Vec::new();
    frame::write(&mut twice, message).unwrap();
    frame::write(&mut twice, message).unwrap();
    let mut rest = Dribble { bytes: &twice, interrupt: false };
    assert_eq!(frame::read::<T>(&mut rest).unwrap().as_ref(), Some(message));
    assert_eq!(frame::read::<T>(&mut rest).unwrap().as_ref(), Some(message));
    assert_eq!(frame::read::<T>(&mut rest).unwrap(), None);

    let mut longer = bytes[HEADER_LEN..].to_vec();
    longer.push(0);
    assert!(matches!(frame::decode::<T>(&longer), Err(FrameError::TrailingBytes(1))));
}

/// A reader that gives one byte at a time and is interrupted before each.
struct Dribble<'a> {
    bytes: &'a [u8],
    interrupt: bool,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let end = buffer.len().min(1);
        self.bytes.read(&mut buffer[..end])
    }
}

/// Every proper prefix of a frame is a connection that was cut, and every proper prefix of a payload malformed.
fn refuses_every_prefix<T: Serialize + DeserializeOwned + Debug>(message: &T) {
    let bytes = frame::encode(message).unwrap();
    for len in 1..bytes.len() {
        assert!(matches!(frame::read::<T>(&mut &bytes[..len]), Err(FrameError::Truncated)), "{len}");
    }
    for len in HEADER_LEN..bytes.len() {
        assert!(
            matches!(frame::decode::<T>(&bytes[HEADER_LEN..len]), Err(FrameError::Malformed(_))),
            "{len}"
        );
    }
}

proptest! {
    #[test]
    fn messages_to_the_agent_survive(message in samples::any_to_agent()) {
        survives(&message);
        refuses_every_prefix(&message);
    }

    #[test]
    fn messages_from_the_agent_survive(message in samples::any_from_agent()) {
        survives(&message);
        refuses_every_prefix(&message);
    }

    #[test]
    fn greetings_survive(hello in samples::any_hello()) {
        survives(&hello);
        refuses_every_prefix(&hello);
    }

    /// Whatever decodes, encodes to the same bytes: no two payloads mean the same.
    #[test]
    fn arbitrary_bytes_are_refused_or_mean_exactly_one_message(
        bytes in prop::collection::vec(prop_oneof![3 => 0..8u8, 1 => any::<u8>()], 0..300)
    ) {
        if let Ok(message) = frame::decode::<ToAgent>(&bytes) {
            prop_assert_eq!(&frame::encode(&message).unwrap()[HEADER_LEN..], &bytes[..]);
        }
        if let Ok(message) = frame::decode::<FromAgent>(&bytes) {
            prop_assert_eq!(&frame::encode(&message).unwrap()[HEADER_LEN..], &bytes[..]);
        }
        let _ = Hello::from_payload(&bytes);
        let _ = Hello::read(&mut &bytes[..]);
        let _ = frame::read::<ToAgent>(&mut &bytes[..]);
        let _ = frame::decode_large::<Vec<ToAgent>>(&bytes);
    }

    /// One changed byte never panics.
    #[test]
    fn damaged_frames_are_handled(
        message in samples::any_from_agent(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = frame::encode(&message).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = frame::read::<FromAgent>(&mut &bytes[..]);
        let _ = frame::decode::<ToAgent>(&bytes[HEADER_LEN..]);
    }
}

/// Fails the test when it is read.
struct Untouchable;

impl Read for Untouchable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("read beyond the header")
    }
}

#[test]
fn refuses_a_frame_over_the_cap_before_reading_it() {
    for len in [FRAME_MAX as u32 + 1, 1 << 31, u32::MAX] {
        let header = len.to_le_bytes();
        let mut reader = (&header[..]).chain(Untouchable);
        assert!(
            matches!(frame::read::<ToAgent>(&mut reader), Err(FrameError::TooLarge(n)) if n == len as usize)
        );
    }
}

#[test]
fn takes_a_frame_at_the_cap_and_refuses_to_write_a_larger_one() {
    // Variant, element count, length of the element.
    let overhead = 4 + 8 + 8;
    let message = |len| ToAgent::Arguments(vec![vec![7; len].into()]);
    survives_whole(&message(FRAME_MAX - overhead));
    assert!(matches!(
        frame::encode(&message(FRAME_MAX - overhead + 1)),
        Err(FrameError::TooLarge(len)) if len == FRAME_MAX + 1
    ));
}

fn survives_whole(message: &ToAgent) {
    let bytes = frame::encode(message).unwrap();
    assert_eq!(bytes.len(), HEADER_LEN + FRAME_MAX);
    assert_eq!(frame::read::<ToAgent>(&mut &bytes[..]).unwrap().as_ref(), Some(message));
}

#[test]
fn words_its_errors_plainly() {
    let errors = [
        frame::read::<ToAgent>(&mut &b"\xff\xff\xff\x7f"[..]).unwrap_err(),
        frame::read::<ToAgent>(&mut &b"\x04\0"[..]).unwrap_err(),
        frame::decode::<ToAgent>(b"\x63\0\0\0").unwrap_err(),
        frame::decode::<ToAgent>(b"\x06\0\0\0\x01").unwrap_err(),
        frame::decode::<ToAgent>(b"\x04\0\0\0xyz").unwrap_err(),
        frame::decode::<ToAgent>(b"\x01\0\0\0\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")
            .unwrap_err(),
        frame::decode::<FromAgent>(b"\x04\0\0\0\x01\0\0\0\0\0\0\0\xff").unwrap_err(),
    ];
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(texts.join("\n"));
}
