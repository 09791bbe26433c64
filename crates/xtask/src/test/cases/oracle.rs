//! `host-agent oracle`: verdicts of real Nix about builds through us.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Case, Place, cases};
use crate::world::daemon;
use crate::world::limited::{self, Finished};
use crate::world::session::{Build, LIMIT, Session};

const FILE: &str = "oracle.nix";
const KNOWN: &str = "/run/known.toml";
const FAKES: &str = "/run/fakes";

cases! {
    Everywhere: what_is_the_same_matches, differing_files_are_named, failures_of_either_build_are_told_apart,
        what_is_known_to_differ_is_not_held_against_it;
    SingleUser: names_and_links_and_several_derivations, diffoscope_is_asked_where_it_is,
        paths_links_and_attributes_name_derivations;
}

/// Nix asks no build hook to build again.
pub const THROUGH_A_HOOK: &[Case] = &[Case {
    name: "a_nix_that_can_not_rebuild_is_named_as_the_reason",
    place: Place::Everywhere,
    run: a_nix_that_can_not_rebuild_is_named_as_the_reason,
}];

fn derivation(session: &Session, attribute: &str) -> Result<PathBuf> {
    session.instantiate(&Build::of(FILE, attribute))
}

fn oracle(session: &Session, arguments: &[&str], derivations: &[&Path]) -> Result<Finished> {
    let program = daemon::program(&session.world);
    let mut command = session.command(program.to_str().context("path")?);
    command.arg("oracle").args(derivations).args(arguments);
    let finished = limited::run(&mut command, LIMIT);
    tidy()?;
    finished
}

fn verdicts(finished: &Finished, status: i32) -> Result<Vec<Value>> {
    ensure!(finished.status.code() == Some(status), "expected status {status}: {}", finished.describe());
    serde_json::from_slice(&finished.stdout).with_context(|| finished.describe())
}

/// Removes what Nix keeps: second results and build directories.
fn tidy() -> Result<()> {
    let entries = |directory: &str| -> Result<Vec<PathBuf>> {
        match Path::new(directory).exists() {
            true => fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect(),
            false => Ok(Vec::new()),
        }
    };
    for path in entries("/nix/store")? {
        if path.extension().is_some_and(|extension| extension == "check") {
            let mut remove = Command::new("rm");
            limited::run(remove.arg("-rf").arg(path), LIMIT)?.must_succeed()?;
        }
    }
    for path in entries("/nix/var/nix/builds")? {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

fn what_is_the_same_matches(session: &mut Session) -> Result<()> {
    let same = derivation(session, "same")?;
    let built = builds_so_far(session)?;
    let found = verdicts(&oracle(session, &["--json"], &[&same])?, 0)?;
    ensure!(found[0]["verdict"] == "match", "{found:#?}");
    ensure!(found[0]["derivation"] == same.display().to_string(), "{found:#?}");
    // Once because it was not there, once to compare.
    ensure!(builds_so_far(session)? == built + 2, "not built twice");
    let text = oracle(session, &[], &[&same])?.must_succeed()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.starts_with("match ") && text.contains("1 match, 0 known"), "{text}");
    Ok(())
}

fn builds_so_far(session: &Session) -> Result<u64> {
    daemon::status(&session.world)?["succeeded"].as_u64().context("the status counts no builds")
}

fn differing_files_are_named(session: &mut Session) -> Result<()> {
    let random = derivation(session, "random")?;
    let found = verdicts(&oracle(session, &["--json"], &[&random])?, 1)?;
    ensure!(found[0]["verdict"] == "mismatch", "{found:#?}");
    let differences = found[0]["differences"].as_array().context("no differences")?;
    ensure!(differences.len() == 1, "{found:#?}");
    ensure!(differences[0]["path"] == "lib/random", "{found:#?}");
    ensure!(differences[0]["difference"] == "contents", "{found:#?}");
    let finished = oracle(session, &[], &[&random])?;
    let text = String::from_utf8_lossy(&finished.stdout).into_owned();
    ensure!(text.contains("MISMATCH") && text.contains("lib/random: contents differ"), "{text}");
    Ok(())
}

fn failures_of_either_build_are_told_apart(session: &mut Session) -> Result<()> {
    let (cores, broken) = (derivation(session, "cores")?, derivation(session, "broken")?);
    session.build(&Build::of(FILE, "cores"))?.succeeds()?;
    let arguments = ["--json", "--", "--option", "cores", "3"];
    let program = daemon::program(&session.world);
    let mut command = session.command(program.to_str().context("path")?);
    command.arg("oracle").args([&cores, &broken]).args(arguments);
    let finished = limited::run(&mut command, LIMIT);
    tidy()?;
    let found = verdicts(&finished?, 2)?;
    for (verdict, again, words) in
        [(&found[0], true, "three are too many"), (&found[1], false, "never built")]
    {
        ensure!(verdict["verdict"] == "build-failure" && verdict["again"] == again, "{verdict:#}");
        ensure!(verdict["message"].as_str().is_some_and(|text| text.contains(words)), "{verdict:#}");
    }
    Ok(())
}

fn what_is_known_to_differ_is_not_held_against_it(session: &mut Session) -> Result<()> {
    let random = derivation(session, "random")?;
    let list = |files: &str| {
        format!("[[known]]\nname = \"oracle-ran*\"\nfiles = [\"{files}\"]\nreason = \"it is random\"\n")
    };
    for (files, status, verdict) in [("lib/*", 0, "known"), ("bin/*", 1, "mismatch")] {
        fs::write(KNOWN, list(files))?;
        let found = verdicts(&oracle(session, &["--json", "--known", KNOWN], &[&random])?, status)?;
        ensure!(found[0]["verdict"] == verdict, "{found:#?}");
        ensure!(verdict != "known" || found[0]["reason"] == "it is random", "{found:#?}");
    }
    fs::write(KNOWN, "[[known]]\nname = \"x\"\n")?;
    let finished = oracle(session, &["--known", KNOWN], &[&random])?;
    fs::remove_file(KNOWN)?;
    ensure!(finished.status.code() == Some(3), "{}", finished.describe());
    Ok(())
}

fn a_nix_that_can_not_rebuild_is_named_as_the_reason(session: &mut Session) -> Result<()> {
    let same = derivation(session, "same")?;
    let found = verdicts(&oracle(session, &["--json"], &[&same])?, 3)?;
    ensure!(found[0]["verdict"] == "not-compared", "{found:#?}");
    let reason = found[0]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("build hooks are not asked"), "{found:#?}");
    // The first build is the hook's all the same.
    session.sound(&session.output_named(&same, "out")?)
}

fn names_and_links_and_several_derivations(session: &mut Session) -> Result<()> {
    let (names, same) = (derivation(session, "names")?, derivation(session, "same")?);
    let found = verdicts(&oracle(session, &["--json"], &[&names, &same])?, 1)?;
    ensure!(found[0]["verdict"] == "mismatch" && found[1]["verdict"] == "match", "{found:#?}");
    // Nix stops at the first output that differs: either is right.
    let kinds: Vec<_> = found[0]["differences"].as_array().context("none")?.iter().collect();
    let has = |kind: &str| kinds.iter().any(|difference| difference["difference"] == kind);
    let out = has("target") && has("only-first") && has("only-second");
    ensure!(out || (kinds.len() == 1 && has("contents")), "{found:#?}");
    Ok(())
}

fn diffoscope_is_asked_where_it_is(session: &mut Session) -> Result<()> {
    let random = derivation(session, "random")?;
    fs::create_dir_all(FAKES)?;
    let fake = Path::new(FAKES).join("diffoscope");
    fs::write(&fake, "#!/bin/sh\necho \"asked: $*\"\nexit 1\n")?;
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755))?;
    let mut command = session.command(daemon::program(&session.world).to_str().context("path")?);
    let path = std::env::var("PATH")?;
    command.env("PATH", format!("{FAKES}:{path}")).args(["oracle", "--json"]).arg(&random);
    let finished = limited::run(&mut command, LIMIT);
    fs::remove_dir_all(FAKES)?;
    tidy()?;
    let found = verdicts(&finished?, 1)?;
    let said = found[0]["diffoscope"].as_str().context("diffoscope was not asked")?;
    ensure!(said.starts_with("asked: --text -") && said.trim_end().ends_with(".check"), "{said}");
    Ok(())
}

fn paths_links_and_attributes_name_derivations(session: &mut Session) -> Result<()> {
    let same = derivation(session, "same")?;
    let output = session.build(&Build::of(FILE, "same"))?.succeeds()?.output()?.to_owned();
    let link = PathBuf::from("/run/result");
    std::os::unix::fs::symlink(&output, &link)?;
    let named = oracle(session, &["--json"], &[&output, &link, &output.join("bin/self")]);
    fs::remove_file(&link)?;
    let mut found = verdicts(&named?, 0)?;
    let file = format!("/project/fixtures/{FILE}");
    found.extend(verdicts(&oracle(session, &["--json", "--file", &file, "same"], &[])?, 0)?);
    for verdict in &found {
        ensure!(verdict["derivation"] == same.display().to_string(), "{verdict:#}");
    }
    ensure!(found.len() == 4, "{found:#?}");
    let unknown = oracle(session, &[], &[Path::new("/nix/store/none-such")])?;
    ensure!(unknown.status.code() == Some(3), "{}", unknown.describe());
    Ok(())
}
