//! Arbitrary bytes, decoded as each type of message. What decodes must encode to the same bytes again.
//!
//! `cargo +nightly fuzz run frame_decode -- -rss_limit_mb=512`
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::frame::{self, HEADER_LEN};
use protocol::hello::Hello;
use protocol::message::{FromAgent, ToAgent};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    payload::<ToAgent>(bytes);
    payload::<FromAgent>(bytes);
    payload::<Hello>(bytes);
    stream::<ToAgent>(bytes);
    stream::<FromAgent>(bytes);
    if let Ok(hello) = Hello::read(&mut &bytes[..]) {
        let ours = Hello::ours(hello.channel, "fuzz");
        assert_eq!(ours.agree(&hello).ok(), hello.agree(&ours).ok());
    }
});

/// As one payload, also without the cap of a frame.
fn payload<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(message) = frame::decode::<T>(bytes) {
        let again = frame::encode(&message).expect("what fitted a frame fits again");
        assert_eq!(&again[HEADER_LEN..], bytes);
    }
    if let Ok(messages) = frame::decode_large::<Vec<T>>(bytes) {
        assert_eq!(frame::encode_large(&messages).expect("was decoded"), bytes);
    }
}

/// As a connection with any number of frames.
fn stream<T: Serialize + DeserializeOwned>(mut bytes: &[u8]) {
    while let Ok(Some(message)) = frame::read::<T>(&mut bytes) {
        frame::encode(&message).expect("what fitted a frame fits again");
    }
}
