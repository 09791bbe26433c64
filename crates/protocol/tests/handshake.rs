//! What two greetings lead to.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod samples;

use proptest::prelude::*;
use protocol::frame;
use protocol::hello::{
    Agreed, Channel, Features, HELLO_MAX, Hello, HelloError, MAGIC, VERSION_MAX, VERSION_MIN,
};

fn hello(version_min: u32, version_max: u32, features: u64) -> Hello {
    let mut hello = Hello::ours(Channel::Control, "test");
    (hello.version_min, hello.version_max, hello.features) = (version_min, version_max, Features(features));
    hello
}

#[test]
fn agrees_on_the_newest_common_version_and_the_common_features() {
    let agreed = hello(1, 4, 0b0111).agree(&hello(2, 9, 0b1101)).unwrap();
    assert_eq!(agreed, Agreed { version: 4, features: Features(0b0101) });
    let agreed = hello(3, 3, 0).agree(&hello(1, 3, u64::MAX)).unwrap();
    assert_eq!(agreed, Agreed { version: 3, features: Features(0) });
}

#[test]
fn refuses_when_no_version_is_common() {
    for (ours, theirs) in [((1, 2), (3, 4)), ((3, 4), (1, 2)), ((2, 1), (1, 2)), ((1, 9), (5, 4))] {
        let error = hello(ours.0, ours.1, 0).agree(&hello(theirs.0, theirs.1, 0)).unwrap_err();
        let HelloError::Version { theirs_min, theirs_max, ours_min, ours_max } = error else {
            panic!("{error}");
        };
        assert_eq!(((ours_min, ours_max), (theirs_min, theirs_max)), (ours, theirs));
    }
}

#[test]
fn refuses_another_magic() {
    let mut stranger = hello(1, 1, 0);
    stranger.magic = *b"imposter";
    assert!(matches!(hello(1, 1, 0).agree(&stranger), Err(HelloError::Magic(m)) if m == *b"imposter"));
}

#[test]
fn knows_a_newer_peer_whose_greeting_looks_different() {
    // Magic, versions 7 to 8, then something this version can't read.
    let payload = [&b"drlngbld"[..], &7u32.to_le_bytes(), &8u32.to_le_bytes(), &[0xff; 40]].concat();
    let bytes = [&(payload.len() as u32).to_le_bytes()[..], &payload].concat();
    assert!(matches!(
        Hello::read(&mut &bytes[..]),
        Err(HelloError::Version {
            theirs_min: 7,
            theirs_max: 8,
            ours_min: VERSION_MIN,
            ours_max: VERSION_MAX
        })
    ));
}

#[test]
fn names_each_way_a_greeting_goes_wrong() {
    let ours = frame::encode(&Hello::ours(Channel::Tick, "x")).unwrap();
    let mut damaged = ours.clone();
    damaged[4 + 8 + 8 + 8] = 9;
    // The fields of a greeting, with a name that no greeting can have.
    let large = (MAGIC, VERSION_MIN, VERSION_MAX, 0u64, 1u32, "y".repeat(HELLO_MAX));
    let inputs: [&[u8]; 7] = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"\x1f\0\0\0SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"\0\0",
        &ours[..20],
        &damaged,
        &frame::encode(&large).unwrap(),
    ];
    let texts: Vec<String> =
        inputs.iter().map(|input| Hello::read(&mut &input[..]).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(texts.join("\n"));
}

proptest! {
    #[test]
    fn both_sides_come_to_the_same_result(one in samples::any_hello(), other in samples::any_hello()) {
        match (one.agree(&other), other.agree(&one)) {
            (Ok(here), Ok(there)) => {
                prop_assert_eq!(here, there);
                prop_assert!((one.version_min..=one.version_max).contains(&here.version));
                prop_assert!((other.version_min..=other.version_max).contains(&here.version));
                prop_assert!(one.features.contains(here.features) && other.features.contains(here.features));
            }
            (Err(_), Err(_)) => {}
            (here, there) => prop_assert!(false, "{here:?} but {there:?}"),
        }
    }
}
