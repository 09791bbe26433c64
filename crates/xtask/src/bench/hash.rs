//! `cargo xtask bench hash`: NAR hash and reference scan of a large output in one pass over the data.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::samples::{Samples, head, row};
use crate::flags::HashFlags;
use crate::workspace::{Workspace, cargo};
use crate::{nix_roots, progress};

/// Makes the data, measures, removes it.
pub fn run(workspace: &Workspace, flags: &HashFlags) -> Result<bool> {
    progress("building the example hash_and_scan (release) …");
    let build = ["build", "--quiet", "--release", "-p", "host-agent", "--example", "hash_and_scan"];
    ensure!(cargo(&workspace.project).args(build).status()?.success(), "cargo build failed");
    let example = workspace.target.join("release/examples/hash_and_scan");
    let directory = tempfile::Builder::new().prefix("bench-hash-").tempdir_in(&workspace.target)?;
    let output = directory.path().join("00000000000000000000000000000000-large");
    progress(&format!("writing {} MiB …", flags.mib));
    write(&output, flags.mib)?;
    let nix_store = nix_store(workspace)?;

    let (mut ours, mut pipe, mut bare) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..=flags.rounds {
        let times = [
            time(Command::new(&example).arg(&output))?,
            time(
                Command::new("sh")
                    .args(["-c", "\"$0\" \"$@\" | sha256sum"])
                    .args(&nix_store)
                    .arg("--dump")
                    .arg(&output),
            )?,
            time(Command::new("sh").args(["-c", "cat \"$0\"/* | sha256sum"]).arg(&output))?,
        ];
        // The first round brings the data into memory.
        if round > 0 {
            for (samples, time) in [&mut ours, &mut pipe, &mut bare].into_iter().zip(times) {
                samples.push(time);
            }
        }
    }
    head(&format!("{} MiB, {} rounds", flags.mib, flags.rounds));
    row("hash and scan, one pass", &ours);
    row("nix-store --dump | sha256sum", &pipe);
    row("cat | sha256sum", &bare);
    for (name, samples) in [("one pass", &ours), ("dump", &pipe), ("bare", &bare)] {
        println!("{name}: {:.0} MiB/s", flags.mib as f64 * 1000.0 / samples.median());
    }
    let faster = ours.median() <= pipe.median();
    println!(
        "one pass takes {:.2} of the time of nix-store --dump | sha256sum",
        ours.median() / pipe.median()
    );
    Ok(faster)
}

/// Files of 256 MiB, the bytes of a simple generator: nothing that compresses or repeats.
fn write(output: &Path, mib: u64) -> Result<()> {
    fs::create_dir(output)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = vec![0_u8; 1 << 20];
    let mut file = None;
    for number in 0..mib {
        if number % 256 == 0 {
            file = Some(File::create(output.join(format!("file-{:04}", number / 256)))?);
        }
        for chunk in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        file.as_mut().context("no file")?.write_all(&block)?;
    }
    Ok(())
}

/// The words that run a `nix-store`: the machine's own, else one of ours with its own loader and libraries.
fn nix_store(workspace: &Workspace) -> Result<Vec<String>> {
    if Command::new("nix-store").arg("--version").output().is_ok() {
        return Ok(vec!["nix-store".into()]);
    }
    let [release, ..] = nix_roots::select("all")?[..] else { bail!("no Nix") };
    let root = nix_roots::root(&workspace.target, release)?;
    let at = |path: &str| root.join(path).display().to_string();
    Ok(vec![
        at("usr/lib64/ld-linux-x86-64.so.2"),
        "--argv0".into(),
        "nix-store".into(),
        "--library-path".into(),
        at("usr/lib/x86_64-linux-gnu"),
        at("usr/bin/nix-store"),
    ])
}

fn time(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {command:?}"))?;
    let took = started.elapsed();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(took)
}
