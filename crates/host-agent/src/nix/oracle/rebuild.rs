//! Nix's part: build once more what is built, and say whether it is the same.
//!
//! `nix-store --realise --check --keep-failed` builds to scratch paths, writes the final hashes into the result, compares,
//! and keeps what differs as `….check` beside the output. It stops at the first output that differs. Its end is told apart
//! by its exit status and, since a client of a Nix daemon is not told all of them, by its words; those are the same from
//! 2.8 to 2.34, but for the quotes.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use crate::nix::store_command::{NixProgram, StoreCommandError, answer};

/// As much of what Nix prints is kept, bytes from the end.
const KEPT: usize = 64 << 10;

/// How a rebuild ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Rebuilt {
    /// The same.
    Same,
    /// Not the same; the two paths, if Nix has kept the second.
    Differs(Option<(PathBuf, PathBuf)>),
    /// A build failed: which of them, and the end of what was printed.
    Failed(Attempt, String),
    /// It was not built again; why.
    NotRebuilt(String),
}

/// Which build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The outputs were not there yet.
    First,
    /// The one to compare with.
    Second,
}

/// Nix could not be run.
#[derive(Debug, Error)]
pub enum RebuildError {
    /// A question to the store.
    #[error(transparent)]
    Ask(#[from] StoreCommandError),
    /// A build.
    #[error("failed to run `nix-store --realise`: {0}")]
    Run(#[from] io::Error),
}

/// How to build.
#[derive(Debug)]
pub struct Rebuild<'a> {
    /// Whose commands.
    pub nix: &'a NixProgram,
    /// More options for `nix-store --realise`.
    pub options: &'a [OsString],
    /// Show what Nix prints on our standard error as well.
    pub show: bool,
}

impl Rebuild<'_> {
    /// Builds what of `derivation` is not there yet, then builds it again and compares.
    pub fn run(&self, derivation: &Path) -> Result<Rebuilt, RebuildError> {
        if !self.is_built(derivation)? {
            let (code, said) = self.realise(derivation, &[])?;
            if code != Some(0) {
                return Ok(match no_way(&said) {
                    true => Rebuilt::NotRebuilt("this Nix builds no such derivation at all".into()),
                    false => Rebuilt::Failed(Attempt::First, last_words(&said)),
                });
            }
        }
        let (code, said) = self.realise(derivation, &["--check", "--keep-failed"])?;
        Ok(judge(code, &said))
    }

    fn is_built(&self, derivation: &Path) -> Result<bool, RebuildError> {
        let mut query = self.nix.command("nix-store");
        query.args(["--query", "--outputs"]).arg(derivation);
        let text = answer("nix-store", query)?;
        let outputs: Vec<_> = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
        let mut check = self.nix.command("nix-store");
        check.arg("--check-validity").args(outputs.iter().map(|path| OsString::from_vec(path.to_vec())));
        // Floating content-addressed outputs have no paths before they are built.
        Ok(!outputs.is_empty() && check.status()?.success())
    }

    fn realise(&self, derivation: &Path, how: &[&str]) -> Result<(Option<i32>, Vec<u8>), RebuildError> {
        let mut command = self.nix.command("nix-store");
        command.arg("--realise").args(how).args(self.options).arg(derivation);
        Ok(run(command, self.show)?)
    }
}

/// Runs to the end; exit status (none for a signal) and the end of what was printed on standard error.
fn run(mut command: Command, show: bool) -> io::Result<(Option<i32>, Vec<u8>)> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut said = Vec::new();
    let mut block = vec![0; 16 << 10];
    if let Some(mut stderr) = child.stderr.take() {
        loop {
            let got = match stderr.read(&mut block) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if show {
                let _ = io::stderr().write_all(&block[..got]);
            }
            said.extend_from_slice(&block[..got]);
            said.drain(..said.len().saturating_sub(KEPT));
        }
    }
    Ok((child.wait()?.code(), said))
}

fn judge(code: Option<i32>, said: &[u8]) -> Rebuilt {
    if code == Some(0) {
        return Rebuilt::Same;
    }
    if contains(said, b"may not be deterministic: output") {
        return Rebuilt::Differs(differing(said));
    }
    // Nix does not keep an output whose hash is wrong.
    if code == Some(104) || contains(said, b"hash mismatch in fixed-output derivation") {
        return Rebuilt::Differs(None);
    }
    if no_way(said) {
        return Rebuilt::NotRebuilt(
            "this Nix does not build it again: build hooks are not asked to, only external builders are (Nix 2.32, or 2.34 \
             and later; see `host-agent nix-conf`)"
                .into(),
        );
    }
    Rebuilt::Failed(Attempt::Second, last_words(said))
}

/// Nix had nobody to give the build to: until 2.33, and since.
fn no_way(said: &[u8]) -> bool {
    let until_2_33 = contains(said, b"is required to build") && contains(said, b"but I am a");
    until_2_33 || contains(said, b"Reason: platform mismatch")
}

/// The paths in `output '…' differs from '…'`.
fn differing(said: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let from = find(said, b"may not be deterministic: output")?;
    let mut paths = said[from..].split(|byte| b"'\"\n".contains(byte)).filter(|it| it.starts_with(b"/nix/"));
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let (first, second) = (path(paths.next()?), path(paths.next()?));
    second.as_os_str().as_bytes().ends_with(b".check").then_some((first, second))
}

fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, words)
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    find(text, words).is_some()
}

fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<_> =
        text.lines().filter(|line| !line.starts_with("warning: you did not specify")).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_paths_of_all_versions() {
        let old =
            b"note: keeping\nerror: derivation '/nix/store/v5-rnd.drv' may not be deterministic: output \
                    '/nix/store/gb-rnd' differs from '/nix/store/gb-rnd.check'\n";
        let new =
            String::from_utf8_lossy(old).replace("'/nix/store/gb", "\"/nix/store/gb").replace("'\n", "\"\n");
        let expected = Rebuilt::Differs(Some(("/nix/store/gb-rnd".into(), "/nix/store/gb-rnd.check".into())));
        assert_eq!(judge(Some(104), old), expected);
        assert_eq!(judge(Some(1), new.replace("rnd' d", "rnd\" d").as_bytes()), expected);
        let not_kept = b"error: derivation '/nix/store/v5-rnd.drv' may not be deterministic: output '/nix/store/gb-rnd' differs\n";
        assert_eq!(judge(Some(1), not_kept), Rebuilt::Differs(None));
    }

    #[test]
    fn a_nix_that_can_not_is_no_failure_of_the_build() {
        for text in [
            "error: a 'x86_64-darwin' with features {} is required to build '/nix/store/0a-d.drv', but I am a 'x86_64-linux'",
            "error: Cannot build '/nix/store/0a-d.drv'.\n       Reason: platform mismatch\n",
        ] {
            assert!(matches!(judge(Some(1), text.as_bytes()), Rebuilt::NotRebuilt(_)), "{text}");
        }
    }

    #[test]
    fn keeps_the_end_of_what_is_said() {
        let mut command = Command::new("/bin/sh");
        command.stdout(Stdio::null()).args(["-c", "seq 1 100000 >&2; echo last >&2; exit 7"]);
        let (code, said) = run(command, false).unwrap();
        assert_eq!(code, Some(7));
        assert!(said.len() <= KEPT && said.ends_with(b"\n100000\nlast\n"));
        let Rebuilt::Failed(Attempt::Second, words) = judge(code, &said) else { panic!() };
        assert!(words.ends_with("100000\nlast") && words.lines().count() == 20);
    }

    #[test]
    fn a_wrong_fixed_output_differs() {
        let said =
            b"error: hash mismatch in fixed-output derivation '/nix/store/x.drv':\n specified: sha256-A\n";
        assert_eq!(judge(Some(102), said), Rebuilt::Differs(None));
    }
}
