//! Reads keys that are somebody else's.

use std::fs;

use crate::call::{all_procs, call, in_child, pointer, tell, tell_word};

const DESCRIBE: u64 = 6;
const SEARCH: u64 = 10;
const READ: u64 = 11;
const LINK: u64 = 8;
const JOIN_SESSION: u64 = 1;
const THREAD_KEYRING: u64 = -1_i64 as u64;

/// Keyrings by their special numbers (keyctl(2)): the session's, the user's, the user's session's, and those of a thread and process.
const SPECIAL: [i64; 5] = [-3, -4, -5, -2, -1];

/// `attack DESCRIPTION`: of the key that is looked for.
pub fn attack(words: &[&str]) {
    let [description] = words else { panic!("{words:?}") };
    for proc in all_procs() {
        for name in ["keys", "key-users"] {
            let listed = fs::read_to_string(proc.join(name)).unwrap_or_default();
            listed.lines().for_each(|line| println!("{name}: {line}"));
        }
    }
    let (user, description) = (pointer("user"), pointer(description));
    for ring in SPECIAL {
        tell(format!("read{ring}"), read(ring as u64));
        tell(
            format!("search{ring}"),
            call(libc::SYS_keyctl, &[SEARCH, ring as u64, user, description, 0])
                .and_then(|key| read(key as u64)),
        );
        tell(format!("link{ring}"), call(libc::SYS_keyctl, &[LINK, ring as u64, THREAD_KEYRING]));
    }
    tell("request", call(libc::SYS_request_key, &[user, description, 0, 0]).and_then(|key| read(key as u64)));
    tell("add", call(libc::SYS_add_key, &[user, description, description, 1, -4_i64 as u64]));
    let joined = in_child(|| i32::from(call(libc::SYS_keyctl, &[JOIN_SESSION, pointer("_ses")]).is_err()));
    tell_word("join", joined);
    // Serial numbers are random: those in the list are what could be guessed.
    for line in fs::read_to_string("/proc/keys").unwrap_or_default().lines() {
        let serial = line.split_ascii_whitespace().next().and_then(|word| u64::from_str_radix(word, 16).ok());
        tell("read-listed", read(serial.unwrap_or_default()));
    }
}

/// Prints what is in it, be it a secret or other keys.
fn read(key: u64) -> nix::Result<i64> {
    let mut buffer = [0_u8; 512];
    let size = buffer.len() as u64;
    let described = call(libc::SYS_keyctl, &[DESCRIBE, key, buffer.as_mut_ptr() as u64, size]);
    if let Ok(length) = described {
        println!("described: {}", String::from_utf8_lossy(&buffer[..(length as usize).min(512)]));
    }
    let length = call(libc::SYS_keyctl, &[READ, key, buffer.as_mut_ptr() as u64, size])?;
    println!("read: {}", String::from_utf8_lossy(&buffer[..(length as usize).min(512)]));
    for serial in buffer[..(length as usize).min(512)].chunks_exact(4).take(8) {
        let serial = u32::from_le_bytes(serial.try_into().unwrap());
        if u64::from(serial) != key && call(libc::SYS_keyctl, &[DESCRIBE, serial.into(), 0, 0]).is_ok() {
            let _ = read(serial.into());
        }
    }
    Ok(length)
}
