//! Whatever a `.drv` file holds is understood or refused.

#![no_main]

use std::path::Path;

use host_agent::nix::derivation::Derivation;
use host_agent::store_path::StoreName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = StoreName::parse(b"00000000000000000000000000000000-fuzz.drv").expect("a store name");
    let _ = Derivation::parse(Path::new("/nix/store"), name, bytes);
});
