//! `docs/security.md`, taken at its word: each promise names the tests that show it, and each of those exists.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a test's name on the page begins with, and where its modules are.
const PROGRAMS: &[(&str, &str)] = &[
    ("daemon", "crates/host-agent/tests/daemon"),
    ("hostile", "crates/host-agent/tests/hostile"),
    ("hook", "crates/host-agent/tests/hook"),
    ("host-agent", "crates/host-agent/src"),
    ("darwin-agent", "crates/darwin-agent/src"),
    ("protocol", "crates/protocol/src"),
    (END_TO_END, "crates/xtask/src/test/cases"),
];
/// Its tests are functions in a list.
const END_TO_END: &str = "end-to-end";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn page() -> String {
    fs::read_to_string(repository().join("docs/security.md")).unwrap()
}

/// The rows of the tables in the section of promises: what is promised, and the names of tests.
fn promises(page: &str) -> Vec<(&str, Vec<&str>)> {
    let section = page.split("\n## ").find(|section| section.starts_with("Promises")).unwrap();
    let rows =
        section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let rows = rows.filter(|(promise, _)| *promise != "promise" && !promise.starts_with("---"));
    rows.map(|(promise, shown)| (promise, shown.split('`').skip(1).step_by(2).collect())).collect()
}

/// The file that a module's path leads to: `kept`, `slot::uids::tests`.
fn file_of(directory: &Path, modules: &[&str]) -> Option<PathBuf> {
    let path = directory.join(modules.join("/"));
    let inline = match modules {
        [outer @ .., "tests"] => Some(directory.join(outer.join("/"))),
        _ => None,
    };
    let places = [path.with_extension("rs"), path.join("mod.rs")].into_iter();
    let inline = inline.into_iter().flat_map(|path| [path.with_extension("rs"), path.join("mod.rs")]);
    places.chain(inline).find(|path| path.is_file())
}

/// Whether the text has this test: a function below `#[test]`, or one in the list of cases.
fn has_test(text: &str, name: &str, in_list: bool) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let Some(at) = lines.iter().position(|line| line.starts_with(&head)) else { return false };
    if in_list {
        let list =
            text.split_once("cases! {").and_then(|(_, rest)| rest.split_once('}')).map(|(list, _)| list);
        return list.is_some_and(|list| list.split([',', ';', ':', ' ', '\n']).any(|word| word == name));
    }
    lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(|line| *line == "#[test]")
}

/// What is wrong with a name on the page.
fn fault(name: &str) -> Option<String> {
    let (program, path) = name.split_once(' ')?;
    let Some((_, directory)) = PROGRAMS.iter().find(|(known, _)| *known == program) else {
        return Some(format!("{name}: no program of tests is called {program}"));
    };
    let modules: Vec<_> = path.split("::").collect();
    let (test, modules) = modules.split_last()?;
    let Some(file) = file_of(&repository().join(directory), modules) else {
        return Some(format!("{name}: no file of that module"));
    };
    let text = fs::read_to_string(&file).unwrap();
    (!has_test(&text, test, program == END_TO_END)).then(|| format!("{name}: not in {}", file.display()))
}

#[test]
fn every_promise_names_tests_that_exist() {
    let page = page();
    let promises = promises(&page);
    assert!(promises.len() > 50, "{} promises", promises.len());
    let faults = promises.iter().flat_map(|(promise, tests)| match tests[..] {
        [] => vec![format!("no test: {promise}")],
        _ => tests.iter().filter_map(|test| fault(test)).collect(),
    });
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_test_against_hostile_builds_is_a_promise() {
    let page = page();
    let named: BTreeSet<_> = promises(&page).into_iter().flat_map(|(_, tests)| tests).collect();
    let directory = repository().join("crates/host-agent/tests/hostile");
    let mut missing = Vec::new();
    let mut found = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let functions = text.lines().filter_map(|line| line.strip_prefix("fn ")?.split_once('('));
        for (test, _) in functions.filter(|(name, _)| has_test(&text, name, false)) {
            found += 1;
            let name = format!("hostile {module}::{test}");
            if !named.contains(name.as_str()) {
                missing.push(name);
            }
        }
    }
    assert!(found > 30, "{found} tests");
    assert!(missing.is_empty(), "not on the page:\n{}", missing.join("\n"));
}

#[test]
fn a_name_that_leads_nowhere_is_noticed() {
    let faults = [
        "daemon kept::no_such_test",
        "daemon no_such_module::roots_are_closed_to_others_as_well",
        "nobody kept::roots_are_closed_to_others_as_well",
        // Functions, and no tests.
        "daemon kept::daemon",
        "end-to-end hermetic::write_input",
    ];
    for name in faults {
        assert!(fault(name).is_some(), "{name}");
    }
    for name in [
        "daemon kept::roots_are_closed_to_others_as_well",
        "host-agent slot::uids::tests::uids_go_round_the_whole_range_before_one_comes_back",
        "host-agent publish::tests::refusals::refuses_mounts_inside_of_an_output",
        "end-to-end hermetic::neighbours_do_not_see_each_other",
    ] {
        assert_eq!(fault(name), None);
    }
}
