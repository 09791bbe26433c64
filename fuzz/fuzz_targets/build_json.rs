//! Whatever an external builder is given as the description of a build is understood or refused.

#![no_main]

use host_agent::config::Config;
use host_agent::nix::external_builder::{BuildJson, build_request};
use host_agent::request::{BuildDirectory, Network, Publishing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(json) = BuildJson::parse(bytes) else { return };
    let Ok((request, note)) = build_request(&json, &Config::default()) else { return };
    assert!(!request.outputs.is_empty());
    assert_eq!(request.publishing, Publishing::HandOver);
    assert!(matches!(request.build_directory, BuildDirectory::Given { .. }));
    // Whoever is told that there is no network has none.
    assert!(note.is_none() || request.network == Network::Loopback);
});
