//! The same derivation, built inside Darling and then by the stand-in, comes out the same: exit status, log, contents of
//! every output.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::cases;
use crate::world::limited;
use crate::world::session::{Build, LIMIT, Session};
use crate::world::{Guest, daemon};

cases! {
    DarlingGuest: what_a_darwin_shell_builds_is_what_a_linux_shell_builds;
}

/// Every fixture whose builder can be either shell, and whose result does not depend on time, chance or the system. Left out
/// for that: `.attrs.sh` (needs a newer bash than macOS has), `/proc`, a script without execute bit (Darling runs
/// it), and the greatest logs and sleeps, which have tests of their own.
const FIXTURES: &[(&str, &[&str])] = &[
    (
        "outputs.nix",
        &[
            "several.all",
            "referring",
            "self",
            "cycle",
            "hidden-references",
            "reference-across-chunks",
            "odd-names",
            "links",
            "link-itself",
            "modes",
            "hard-links.all",
            "fifo",
            "writable-by-all",
            "empty-directory",
            "empty-file",
            "missing",
            "missing-one",
            "large",
            "large-file",
        ],
    ),
    (
        "references.nix",
        &[
            "allowed",
            "allowed-itself",
            "not-allowed",
            "disallowed",
            "not-disallowed",
            "allowed-requisites",
            "not-allowed-requisites",
            "disallowed-requisites",
            "checks-kept",
            "checks-broken",
            "max-size",
        ],
    ),
    ("attributes.nix", &["pass-as-file", "placeholders.all", "graph", "graph-of-stranger"]),
    (
        "fixed.nix",
        &[
            "flat",
            "flat-md5",
            "flat-sha1",
            "flat-sha512",
            "flat-wrong",
            "flat-executable",
            "flat-directory",
            "recursive",
            "recursive-wrong",
            "referring",
            "consumer",
        ],
    ),
    (
        "failures.nix",
        &[
            "exit-1",
            "exit-42",
            "exit-100",
            "exit-half-done",
            "killed",
            "crashed",
            "no-builder",
            "directory-as-builder",
            "background",
            "fork-bomb-lite",
        ],
    ),
    (
        "logs.nix",
        &["lines", "long-line", "progress", "at-nix", "no-newline", "burst", "bytes", "both-streams"],
    ),
    ("scheduling.nix", &["first", "second", "third", "on-linux", "unknown-feature"]),
    ("oracle.nix", &["same", "broken"]),
    ("demo.nix", &["source", "phrases", "greet"]),
];

/// The fixture that prints the kernel's name.
const SAYS_WHERE: (&str, &str) = ("demo.nix", "greet");

/// What came of one derivation.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    status: Option<i32>,
    /// Path and NAR hash of each output that it was asked for.
    outputs: Vec<(String, String)>,
    log: Option<Vec<u8>>,
}

type Results = BTreeMap<(&'static str, &'static str), Came>;

fn what_a_darwin_shell_builds_is_what_a_linux_shell_builds(session: &mut Session) -> Result<()> {
    let in_darling = build_all(session, "Darwin")?;
    session.world.guest = Guest::Linux;
    let in_stand_in = session.restart_daemon("").and_then(|()| {
        ensure!(daemon::status(&session.world)?["guest"] == "linux", "the stand-in is not the guest");
        build_all(session, "Linux")
    });
    session.world.guest = Guest::Darling;
    session.restart_daemon("")?;
    let in_stand_in = in_stand_in?;
    let succeeded = in_darling.values().filter(|came| came.status == Some(0)).count();
    ensure!(succeeded > in_darling.len() / 2, "only {succeeded} of {} were built", in_darling.len());
    let differences: Vec<_> = in_darling
        .iter()
        .filter(|(what, came)| in_stand_in.get(*what) != Some(*came))
        .map(|((file, attribute), came)| {
            let other = in_stand_in.get(&(file, attribute)).map(Came::shown).unwrap_or_default();
            format!("{file} {attribute}:\n  Darling:  {}\n  stand-in: {other}", came.shown())
        })
        .collect();
    ensure!(
        differences.is_empty() && in_darling.len() == in_stand_in.len(),
        "of {} derivations {} came out differently:\n{}",
        in_darling.len(),
        differences.len(),
        differences.join("\n")
    );
    Ok(())
}

impl Came {
    fn shown(&self) -> String {
        let log = self.log.as_deref().map(|log| log[..log.len().min(600)].escape_ascii().to_string());
        format!("status {:?}, outputs {:?}, log {log:?}", self.status, self.outputs)
    }
}

/// Builds every fixture in a store where none of them is valid, in slots whose `uname` says `kernel`.
fn build_all(session: &Session, kernel: &str) -> Result<Results> {
    let mut command = session.root_command("nix-store");
    limited::run(command.arg("--gc"), LIMIT)?.must_succeed()?;
    let logs = Path::new("/nix/var/log/nix/drvs");
    if logs.exists() {
        fs::remove_dir_all(logs).context("failed to remove the logs of other tests")?;
    }
    let mut results = Results::new();
    for (file, attributes) in FIXTURES {
        for attribute in *attributes {
            let came = came(session, &Build::of(file, attribute));
            results.insert((*file, *attribute), came.with_context(|| format!("{file} {attribute}"))?);
        }
    }
    // This one says where it was built: the only difference that there is to be.
    let log = results.get_mut(&SAYS_WHERE).and_then(|came| came.log.as_mut()).context("no log says where")?;
    let text = String::from_utf8_lossy(log).into_owned();
    let line = format!("built on {kernel} x86_64\n");
    ensure!(text.contains(&line), "not {line:?} in {text:?}");
    *log = text.replace(&line, "built\n").into_bytes();
    Ok(results)
}

fn came(session: &Session, build: &Build) -> Result<Came> {
    let derivation = session.instantiate(build)?;
    let built = session.build(build)?;
    ensure!(!built.finished.timed_out, "{}", built.finished.describe());
    let mut outputs = Vec::new();
    for output in &built.outputs {
        session.verify(output)?;
        let hash = session.query(&["-q", "--hash"], output)?.join(" ");
        outputs.push((output.display().to_string(), hash));
    }
    // A derivation that was refused before its builder ran has none.
    Ok(Came { status: built.finished.status.code(), outputs, log: session.log(&derivation).ok() })
}
