//! The builder's surroundings: dumped through the hook and by the same Nix building locally for Linux, and compared.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::cases;
use crate::world::limited;
use crate::world::session::{Build, LIMIT, Session};

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

/// The same for single lines, by how they begin.
const PERMITTED_LINES: &[(&str, &str)] =
    &[("Max processes ", "`limits.processes`, and what the machine lets one user have")];

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
        Ok(normal(&log))
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
        let built = session.build(&build)?.succeeds()?;
        let mut text = String::new();
        contents(built.output()?, Path::new(""), &mut text)?;
        Ok(normal(&text))
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

/// What differs because the system does is taken out: hash parts, and the order of paths that follows from them.
fn normal(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/nix/store/") {
        let (before, path) = rest.split_at(at + "/nix/store/".len());
        result.push_str(before);
        let hash = path.get(..33).filter(|hash| hash.ends_with('-') && !hash.contains('/'));
        rest = &path[hash.map_or(0, str::len)..];
    }
    result.push_str(rest);
    let result = result.replace("x86_64-darwin", "SYSTEM").replace("x86_64-linux", "SYSTEM");
    match serde_json::from_str::<Value>(&result) {
        Ok(mut value) => {
            forget_hashes(&mut value);
            format!("{value:#}")
        }
        Err(_) => result.lines().map(normal_line).collect::<Vec<_>>().join("\n"),
    }
}

/// What differs for reasons outside our reach. Signals 32 and 33 are the C library's own: no program can change what it inherits for them.
fn normal_line(line: &str) -> String {
    // Nix 2.5 to 2.14 name these by their path outside the sandbox.
    if let Some((variable, rest)) = line.split_once("/tmp/nix-build-")
        && let Some((_, file)) = rest.split_once('/')
        && variable.starts_with("NIX_ATTRS_")
    {
        return format!("{variable}/build/{file}");
    }
    match line.strip_prefix("SigIgn:").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
        Some(mask) => format!("SigIgn: {:016x}", mask & !(0b11 << 31)),
        None => line.to_owned(),
    }
}

/// Graphs list paths in the order of their hash parts, and NAR hashes are of contents with hash parts.
fn forget_hashes(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("narHash");
            map.values_mut().for_each(forget_hashes);
        }
        Value::Array(items) => {
            items.iter_mut().for_each(forget_hashes);
            if items.iter().all(|item| item["path"].is_string() || item.is_string()) {
                items.sort_by_key(|item| item.to_string());
            }
        }
        _ => {}
    }
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
        let counts =
            |line: &&String| !PERMITTED_LINES.iter().any(|(permitted, _)| line.starts_with(permitted));
        let find = |dump: &[(String, Vec<String>)]| -> Vec<String> {
            let section = dump.iter().find(|(known, _)| *known == title);
            section.iter().flat_map(|(_, lines)| lines.iter().filter(counts).cloned()).collect()
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
    // Graphs are in the order of hash parts.
    for (_, lines) in sections.iter_mut().filter(|(title, _)| title.starts_with("graph")) {
        lines.sort();
    }
    sections
}
