//! The builder's surroundings: dumped through the hook and by the same Nix building locally for Linux, and compared.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::cases;
use crate::world::limited;
use crate::world::session::{Build, Built, LIMIT, Session};

const FILE: &str = "environment.nix";

cases! {
    LinuxGuest: ordinary_build, outputs_and_overrides, files_in_the_build_directory, fixed_output, structured_build;
}

/// Differences that are meant, by section of the dump: what it is, and why it can't or need not be the same.
const PERMITTED: &[(&str, &str)] = &[
    ("identity", "uid and gid are the slot's"),
    ("filter", "seccomp state"),
    ("personality", "address randomisation state"),
];

fn ordinary_build(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "usual")
}

fn outputs_and_overrides(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "plain")
}

fn files_in_the_build_directory(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "pass-as-file")
}

fn fixed_output(session: &mut Session) -> Result<()> {
    let dumps = ["x86_64-darwin", "x86_64-linux"].map(|system| -> Result<String> {
        let build = local(Build::of(FILE, "fixed"), system);
        // Its output must be the same both times, so it prints the dump; nothing is valid the second time.
        let built = session.build(&build)?.succeeds()?;
        let derivation = session.instantiate(&build)?;
        let log = String::from_utf8_lossy(&session.log(&derivation)?).into_owned();
        let mut command = session.root_command("nix-store");
        limited::run(command.arg("--delete").arg(built.output()?), LIMIT)?.must_succeed()?;
        Ok(normal(&log, &built.outputs))
    });
    let [ours, theirs] = dumps;
    compare(&ours?, &theirs?)
}

fn structured_build(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "structured")
}

/// Arguments that make Nix build it itself, in its sandbox, with the programs that a slot has too.
fn local(build: Build, system: &str) -> Build {
    let build = build.with(&["--argstr", "system", system]);
    if system == "x86_64-darwin" {
        return build;
    }
    let paths = "/bin /sbin /usr /lib /lib64";
    build.with(&["--option", "sandbox", "true", "--option", "sandbox-paths", paths])
}

/// Builds an attribute for both systems and compares all its outputs.
pub fn assert_same(session: &Session, file: &str, attribute: &str) -> Result<()> {
    let [ours, theirs] = ["x86_64-darwin", "x86_64-linux"].map(|system| -> Result<String> {
        let build = local(Build::of(file, attribute), system);
        let built: Built = session.build(&build)?.succeeds()?;
        let derivation = session.instantiate(&build)?;
        let mut text = String::new();
        contents(built.output()?, Path::new(""), &mut text)?;
        let outputs = session.query(&["-q", "--outputs"], &derivation)?;
        let outputs: Vec<_> = outputs.iter().map(PathBuf::from).collect();
        Ok(normal(&text, &outputs))
    });
    compare(&ours?, &theirs?)
}

/// All files of an output, one after the other.
fn contents(path: &Path, shown: &Path, text: &mut String) -> Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        let names: BTreeSet<_> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        for name in names {
            contents(&path.join(&name), &shown.join(&name), text)?;
        }
        return Ok(());
    }
    if shown != Path::new("") {
        text.push_str(&format!("==== {}\n", shown.display()));
    }
    text.push_str(&String::from_utf8_lossy(&fs::read(path)?));
    Ok(())
}

/// Store paths differ because the system does: every hash part is replaced by the number of its first appearance.
fn normal(text: &str, outputs: &[PathBuf]) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut known = |hash: &str| {
        let number = seen.iter().position(|known| known == hash).unwrap_or_else(|| {
            seen.push(hash.to_owned());
            seen.len() - 1
        });
        format!("hash{number}")
    };
    let mut result = String::new();
    for output in outputs {
        if let Some(name) = output.file_name().and_then(|name| name.to_str()) {
            known(&name[..32]);
        }
    }
    let mut rest = text;
    while let Some(at) = rest.find("/nix/store/") {
        let (before, path) = rest.split_at(at + "/nix/store/".len());
        result.push_str(before);
        rest = path;
        let hash = path.get(..32).filter(|hash| hash.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if let Some(hash) = hash {
            result.push_str(&known(hash));
            rest = &path[32..];
        }
    }
    result.push_str(rest);
    result.replace("x86_64-darwin", "SYSTEM").replace("x86_64-linux", "SYSTEM")
}

fn compare(ours: &str, theirs: &str) -> Result<()> {
    ensure!(ours.len() > 20 && !theirs.is_empty(), "an empty dump shows nothing: {ours:?} {theirs:?}");
    let (ours, theirs) = (sections(ours), sections(theirs));
    let mut differences = Vec::new();
    let titles: BTreeSet<_> = ours.iter().chain(&theirs).map(|(title, _)| title.clone()).collect();
    for title in titles {
        if PERMITTED.iter().any(|(permitted, _)| *permitted == title) {
            continue;
        }
        let find = |dump: &[(String, Vec<String>)]| {
            dump.iter().find(|(known, _)| *known == title).map(|(_, lines)| lines.clone()).unwrap_or_default()
        };
        let (a, b) = (find(&ours), find(&theirs));
        if a != b {
            let only = |x: &[String], y: &[String], sign: char| -> Vec<String> {
                x.iter()
                    .filter(|line| !y.contains(line))
                    .take(12)
                    .map(|line| format!("  {sign} {line:.300}"))
                    .collect()
            };
            differences.push(format!("{title}:"));
            differences.extend(only(&a, &b, '+'));
            differences.extend(only(&b, &a, '-'));
        }
    }
    match differences.is_empty() {
        true => Ok(()),
        false => bail!("through the hook (+) and locally (-):\n{}", differences.join("\n")),
    }
}

fn sections(dump: &str) -> Vec<(String, Vec<String>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    for line in dump.lines() {
        match line.strip_prefix("== ") {
            Some(title) => sections.push((title.to_owned(), Vec::new())),
            None => {
                if let Some((_, lines)) = sections.last_mut() {
                    lines.push(line.to_owned());
                }
            }
        }
    }
    sections
}
