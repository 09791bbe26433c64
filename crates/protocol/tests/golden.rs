//! The bytes of every message. A change here is a change of the protocol and needs a new version number.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod samples;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};

use protocol::frame;
use protocol::hello::Hello;
use protocol::message::{FromAgent, ToAgent};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Each message as it is written and its frame in hex, 16 bytes a line.
fn written<T: Serialize + Debug>(messages: &[T]) -> String {
    let mut text = String::new();
    for message in messages {
        writeln!(text, "{message:?}").unwrap();
        for line in frame::encode(message).unwrap().chunks(16) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "    {}", hex.join(" ")).unwrap();
        }
    }
    text
}

/// The frames in such a text.
fn frames(text: &str) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("    ") {
            None => frames.push(Vec::new()),
            Some(hex) => {
                let bytes = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap());
                frames.last_mut().unwrap().extend(bytes);
            }
        }
    }
    frames
}

/// That the golden bytes are read as the samples.
fn read_back<T: DeserializeOwned + Debug + PartialEq>(name: &str, messages: Vec<T>) {
    let path = format!("{}/tests/snapshots/golden__{name}.snap", env!("CARGO_MANIFEST_DIR"));
    let snapshot = std::fs::read_to_string(path).unwrap();
    let body = snapshot.splitn(3, "---\n").nth(2).unwrap();
    let read: Vec<T> =
        frames(body).iter().map(|frame| frame::read(&mut &frame[..]).unwrap().unwrap()).collect();
    assert_eq!(read, messages);
}

#[test]
fn writes_the_same_bytes_to_the_agent_as_ever() {
    insta::assert_snapshot!("to_agent", written(&samples::to_agent()));
    read_back("to_agent", samples::to_agent());
}

#[test]
fn writes_the_same_bytes_from_the_agent_as_ever() {
    insta::assert_snapshot!("from_agent", written(&samples::from_agent()));
    read_back("from_agent", samples::from_agent());
}

#[test]
fn greets_with_the_same_bytes_as_ever() {
    insta::assert_snapshot!("hello", written(&samples::hello()));
    read_back("hello", samples::hello());
}

#[test]
fn has_a_sample_of_every_variant() {
    let names: BTreeSet<&str> = samples::to_agent().iter().map(samples::to_agent_name).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    let names: BTreeSet<&str> = samples::from_agent().iter().map(samples::from_agent_name).collect();
    assert_eq!(names.len(), 14, "{names:?}");
}

/// Written by hand from the description in `docs/protocol.md`, not by the encoder.
#[test]
fn writes_what_the_description_says() {
    let hex = |message: &[u8]| message.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&frame::encode(&ToAgent::Start).unwrap()), "04000000".to_owned() + "04000000");
    assert_eq!(
        hex(&frame::encode(&ToAgent::Signal(-1)).unwrap()),
        "08000000".to_owned() + "05000000" + "ffffffff"
    );
    assert_eq!(
        hex(&frame::encode(&FromAgent::Pong(1)).unwrap()),
        "0c000000".to_owned() + "03000000" + "0100000000000000"
    );
}

#[test]
fn the_documented_conversation_is_what_is_spoken() {
    let text = include_str!("../../../docs/protocol.md");
    let example = text.split("```hex\n").nth(1).unwrap().split("```").next().unwrap();
    let (mut to_agent, mut from_agent) = (Vec::new(), Vec::new());
    for line in example.lines() {
        // `> 04 00 00 00  # what it is`
        let (direction, rest) = line.split_at(1);
        let hex = rest.split('#').next().unwrap();
        let bytes = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap());
        match direction {
            ">" => to_agent.extend(bytes),
            "<" => from_agent.extend(bytes),
            _ => panic!("neither > nor <: {line}"),
        }
    }

    let (mut to_agent, mut from_agent) = (&to_agent[..], &from_agent[..]);
    let agent = Hello::read(&mut from_agent).unwrap();
    let host = Hello::read(&mut to_agent).unwrap();
    assert_eq!(host.agree(&agent).unwrap(), agent.agree(&host).unwrap());
    let mut conversation = format!("{agent:?}\n{host:?}\n");
    while let Some(message) = frame::read::<ToAgent>(&mut to_agent).unwrap() {
        writeln!(conversation, "> {message:?}").unwrap();
    }
    while let Some(message) = frame::read::<FromAgent>(&mut from_agent).unwrap() {
        writeln!(conversation, "< {message:?}").unwrap();
    }
    insta::assert_snapshot!("documented", conversation);
}
