//! Measures hashing and scanning: `hash_and_scan PATH [CANDIDATES]`, or `hash_and_scan --sha256 MEGABYTES` for the
//! speed of SHA-256 alone, over one buffer that stays in the cache.
//!
//! Looks for the hash parts of all store paths in `/nix/store` and of as many made-up ones as asked for (default
//! 1000), as if they were the inputs of a build. Prints one line: bytes, seconds, MB/s, references, NAR hash.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use host_agent::publish::{Candidates, hash_and_scan};
use host_agent::store_path::StoreName;
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--sha256", megabytes] => bare_sha256(megabytes.parse()?),
        [path] => measure(Path::new(path), 1000)?,
        [path, candidates] => measure(Path::new(path), candidates.parse()?)?,
        _ => return Err("usage: hash_and_scan PATH [CANDIDATES] | --sha256 MEGABYTES".into()),
    }
    Ok(())
}

fn bare_sha256(megabytes: u64) {
    let buffer = vec![7; 256 * 1024];
    let start = Instant::now();
    let mut state = Sha256::new();
    let rounds = megabytes * 1_000_000 / buffer.len() as u64;
    (0..rounds).for_each(|_| state.update(&buffer));
    let hash = state.finalize();
    print(rounds * buffer.len() as u64, start, 0, &hash);
}

fn measure(path: &Path, candidates: usize) -> Result<(), Box<dyn Error>> {
    let real = std::fs::read_dir("/nix/store").into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        StoreName::parse(name.as_bytes()).ok()
    });
    let made_up = (0..candidates).filter_map(|number| {
        let hash = Sha256::digest(number.to_le_bytes());
        let digit = |byte: &u8| char::from(b"0123456789abcdfghijklmnpqrsvwxyz"[usize::from(byte % 32)]);
        let hash: String = hash.iter().map(digit).collect();
        StoreName::parse(format!("{hash}-made-up").as_bytes()).ok()
    });
    let candidates = Candidates::new(real.chain(made_up));
    let path = path.canonicalize()?;
    let parent = File::open(path.parent().ok_or("the root directory has no name")?)?;
    let name = path.file_name().ok_or("the root directory has no name")?.as_bytes();
    let start = Instant::now();
    let result = hash_and_scan(parent.as_fd(), name, &candidates, None)?;
    print(result.nar_size, start, result.references.len(), &result.nar_sha256);
    Ok(())
}

fn print(bytes: u64, start: Instant, references: usize, hash: &[u8]) {
    let seconds = start.elapsed().as_secs_f64();
    let speed = bytes as f64 / seconds / 1e6;
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{bytes} bytes, {seconds:.3} s, {speed:.0} MB/s, {references} references, {hash}");
}
