//! `nix-instantiate`, of the machine and of the unpacked roots, to evaluate and to parse.
//!
//! It has no store, no configuration and no state: what it says depends on its version and on the file alone.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::nix_roots::{self, RELEASES};

/// One version of it.
#[derive(Debug, Clone)]
pub struct Instantiate {
    /// Version, as it says itself.
    pub version: String,
    /// Program and first arguments.
    words: Vec<PathBuf>,
}

impl Instantiate {
    /// The machine's own.
    pub fn on_path() -> Result<Self> {
        Self::new(vec!["nix-instantiate".into()])
    }

    /// That of an unpacked root, started by the root's own loader, so that neither chroot nor rights are needed.
    pub fn unpacked(root: &Path) -> Result<Self> {
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        Self::new(vec![
            root.join("lib64/ld-linux-x86-64.so.2"),
            "--argv0".into(),
            "nix-instantiate".into(),
            "--library-path".into(),
            libraries,
            root.join("usr/bin/nix"),
        ])
    }

    /// The machine's, else that of a root which `cargo xtask nix-roots` has made.
    pub fn any(target: &Path) -> Result<Self> {
        let roots = RELEASES.iter().map(|release| nix_roots::place(target, *release));
        Self::on_path()
            .or_else(|error| roots.map(|root| Self::unpacked(&root)).find_map(Result::ok).ok_or(error))
    }

    fn new(words: Vec<PathBuf>) -> Result<Self> {
        let mut found = Self { version: String::new(), words };
        let output = found.run(["--version"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let text = String::from_utf8_lossy(&output.stdout);
        found.version = text.split_whitespace().last().context("it names no version")?.to_owned();
        Ok(found)
    }

    /// Evaluates an attribute of a file; the error is what it said.
    pub fn evaluate(&self, file: &Path, attribute: &str) -> Result<Value> {
        let words = ["--eval", "--strict", "--json", "--attr", attribute];
        let output = self.run(words.map(OsStr::new).into_iter().chain([file.as_os_str()]))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).context("it printed no JSON")
    }

    /// Runs it; an error is that it does not start.
    pub fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Result<Output> {
        let (program, first) = self.words.split_first().context("no program")?;
        Command::new(program)
            .args(first)
            .args(["--store", "dummy://"])
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", "/nonexistent")
            .env("NIX_CONF_DIR", "/nonexistent")
            .env("NIX_STATE_DIR", "/nonexistent")
            .env("NIX_CONFIG", "build-users-group =")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to start {}", program.display()))
    }
}
