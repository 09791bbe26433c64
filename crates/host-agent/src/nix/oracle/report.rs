//! How verdicts are told: as text, as JSON, as an exit status.

use std::fmt::Write;

use super::tree_difference::{Difference, EntryType, Kind};
use super::verdict::{Judged, Mismatch, Verdict};

/// Differing entries that are shown as text; JSON has them all.
const SHOWN: usize = 40;

/// All matched, or differ as is known.
pub const ALL_WELL: u8 = 0;
/// Some derivation differs.
pub const MISMATCH: u8 = 1;
/// None differs, but some could not be built.
pub const BUILD_FAILURE: u8 = 2;
/// Nothing differs or failed, but some could not be compared.
pub const NOT_COMPARED: u8 = 3;

/// The exit status for all of them.
pub fn exit_status(judged: &[Judged]) -> u8 {
    let any = |is: fn(&Verdict) -> bool| judged.iter().any(|judged| is(&judged.verdict));
    if any(|it| matches!(it, Verdict::Mismatch(_))) {
        MISMATCH
    } else if any(|it| matches!(it, Verdict::BuildFailure { .. })) {
        BUILD_FAILURE
    } else if any(|it| matches!(it, Verdict::NotCompared { .. })) {
        NOT_COMPARED
    } else {
        ALL_WELL
    }
}

/// One verdict as lines of text.
pub fn render(judged: &Judged) -> String {
    let derivation = judged.derivation.display();
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = match &judged.verdict {
        Verdict::Match => writeln!(text, "match         {derivation}"),
        Verdict::Mismatch(_) => writeln!(text, "MISMATCH      {derivation}"),
        Verdict::Known { reason, .. } => writeln!(text, "known         {derivation}\n    {reason}"),
        Verdict::BuildFailure { again, message } => {
            let what = if *again { "could be built once, but not again" } else { "can't be built" };
            writeln!(text, "BUILD FAILURE {derivation}\n    {what}:\n{}", indented(message))
        }
        Verdict::NotCompared { reason } => writeln!(text, "NOT COMPARED  {derivation}\n    {reason}"),
    };
    match &judged.verdict {
        Verdict::Mismatch(mismatch) | Verdict::Known { mismatch, .. } => render_mismatch(&mut text, mismatch),
        _ => {}
    }
    text
}

/// How many of each.
pub fn summary(judged: &[Judged]) -> String {
    let count = |is: fn(&Verdict) -> bool| judged.iter().filter(|judged| is(&judged.verdict)).count();
    format!(
        "{} match, {} known to differ, {} mismatch, {} failed to build, {} not compared",
        count(|it| matches!(it, Verdict::Match)),
        count(|it| matches!(it, Verdict::Known { .. })),
        count(|it| matches!(it, Verdict::Mismatch(_))),
        count(|it| matches!(it, Verdict::BuildFailure { .. })),
        count(|it| matches!(it, Verdict::NotCompared { .. })),
    )
}

fn render_mismatch(text: &mut String, mismatch: &Mismatch) {
    if let (Some(first), Some(second)) = (&mismatch.first, &mismatch.second) {
        let _ = writeln!(text, "    first:  {}\n    second: {}", first.display(), second.display());
    }
    for difference in mismatch.differences.iter().take(SHOWN) {
        let _ = writeln!(text, "      {}", line(difference));
    }
    if mismatch.differences.len() > SHOWN {
        let _ = writeln!(text, "      and {} more", mismatch.differences.len() - SHOWN);
    }
    if let Some(problem) = &mismatch.problem {
        let _ = writeln!(text, "    {problem}");
    }
    if let Some(report) = &mismatch.diffoscope {
        let _ = writeln!(text, "    diffoscope:\n{}", indented(report));
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("      {line}")).collect();
    lines.join("\n")
}

fn line(difference: &Difference) -> String {
    let path = match difference.path.as_slice() {
        [] => "(the output itself)".to_owned(),
        path => path.escape_ascii().to_string(),
    };
    let name = |kind: &EntryType| match kind {
        EntryType::File => "a file",
        EntryType::Directory => "a directory",
        EntryType::Link => "a link",
        EntryType::Other => "something else",
    };
    match &difference.kind {
        Kind::OnlyFirst => format!("{path}: only in the first"),
        Kind::OnlySecond => format!("{path}: only in the second"),
        Kind::Type { first, second } => format!("{path}: {}, then {}", name(first), name(second)),
        Kind::Executable { first: true } => format!("{path}: executable only in the first"),
        Kind::Executable { first: false } => format!("{path}: executable only in the second"),
        Kind::Contents { first_size, second_size, at } => {
            format!("{path}: contents differ from byte {at} on ({first_size} and {second_size} bytes)")
        }
        Kind::Target { first, second } => {
            format!("{path}: leads to {}, then to {}", first.escape_ascii(), second.escape_ascii())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, verdict: Verdict) -> Judged {
        Judged { derivation: format!("/nix/store/abc-{name}.drv").into(), verdict }
    }

    fn mismatch() -> Mismatch {
        let difference = |path: &str, kind| Difference { path: path.into(), kind };
        Mismatch {
            first: Some("/nix/store/x-a".into()),
            second: Some("/nix/store/x-a.check".into()),
            differences: vec![
                difference("", Kind::Type { first: EntryType::File, second: EntryType::Link }),
                difference("bin/a", Kind::Contents { first_size: 10, second_size: 12, at: 3 }),
                difference("bin/b", Kind::Executable { first: false }),
                difference("l", Kind::Target { first: b"x\xff".into(), second: b"y".into() }),
                difference("new\nline", Kind::OnlySecond),
            ],
            diffoscope: Some("--- first\n+++ second\n".into()),
            problem: None,
        }
    }

    fn all() -> Vec<Judged> {
        vec![
            judged("same", Verdict::Match),
            judged("differs", Verdict::Mismatch(mismatch())),
            judged("clock", Verdict::Known { reason: "writes the time".into(), mismatch: mismatch() }),
            judged("broken", Verdict::BuildFailure { again: true, message: "one\ntwo".into() }),
            judged("hook-only", Verdict::NotCompared { reason: "this Nix can't".into() }),
        ]
    }

    #[test]
    fn as_text() {
        let text: String = all().iter().map(render).collect();
        insta::assert_snapshot!(text + &summary(&all()), @r"
        match         /nix/store/abc-same.drv
        MISMATCH      /nix/store/abc-differs.drv
            first:  /nix/store/x-a
            second: /nix/store/x-a.check
              (the output itself): a file, then a link
              bin/a: contents differ from byte 3 on (10 and 12 bytes)
              bin/b: executable only in the second
              l: leads to x\xff, then to y
              new\nline: only in the second
            diffoscope:
              --- first
              +++ second
        known         /nix/store/abc-clock.drv
            writes the time
            first:  /nix/store/x-a
            second: /nix/store/x-a.check
              (the output itself): a file, then a link
              bin/a: contents differ from byte 3 on (10 and 12 bytes)
              bin/b: executable only in the second
              l: leads to x\xff, then to y
              new\nline: only in the second
            diffoscope:
              --- first
              +++ second
        BUILD FAILURE /nix/store/abc-broken.drv
            could be built once, but not again:
              one
              two
        NOT COMPARED  /nix/store/abc-hook-only.drv
            this Nix can't
        1 match, 1 known to differ, 1 mismatch, 1 failed to build, 1 not compared
        ");
    }

    #[test]
    fn as_json() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&all()).unwrap(), @r#"
        [
          {
            "derivation": "/nix/store/abc-same.drv",
            "verdict": "match"
          },
          {
            "derivation": "/nix/store/abc-differs.drv",
            "verdict": "mismatch",
            "first": "/nix/store/x-a",
            "second": "/nix/store/x-a.check",
            "differences": [
              {
                "path": "",
                "difference": "type",
                "first": "file",
                "second": "link"
              },
              {
                "path": "bin/a",
                "difference": "contents",
                "first_size": 10,
                "second_size": 12,
                "at": 3
              },
              {
                "path": "bin/b",
                "difference": "executable",
                "first": false
              },
              {
                "path": "l",
                "difference": "target",
                "first": "x�",
                "second": "y"
              },
              {
                "path": "new\nline",
                "difference": "only-second"
              }
            ],
            "diffoscope": "--- first\n+++ second\n",
            "problem": null
          },
          {
            "derivation": "/nix/store/abc-clock.drv",
            "verdict": "known",
            "reason": "writes the time",
            "first": "/nix/store/x-a",
            "second": "/nix/store/x-a.check",
            "differences": [
              {
                "path": "",
                "difference": "type",
                "first": "file",
                "second": "link"
              },
              {
                "path": "bin/a",
                "difference": "contents",
                "first_size": 10,
                "second_size": 12,
                "at": 3
              },
              {
                "path": "bin/b",
                "difference": "executable",
                "first": false
              },
              {
                "path": "l",
                "difference": "target",
                "first": "x�",
                "second": "y"
              },
              {
                "path": "new\nline",
                "difference": "only-second"
              }
            ],
            "diffoscope": "--- first\n+++ second\n",
            "problem": null
          },
          {
            "derivation": "/nix/store/abc-broken.drv",
            "verdict": "build-failure",
            "again": true,
            "message": "one\ntwo"
          },
          {
            "derivation": "/nix/store/abc-hook-only.drv",
            "verdict": "not-compared",
            "reason": "this Nix can't"
          }
        ]
        "#);
    }

    #[test]
    fn a_long_list_is_cut() {
        let difference = Difference { path: b"x".into(), kind: Kind::OnlyFirst };
        let differences = vec![difference; SHOWN + 3];
        let text =
            render(&judged("many", Verdict::Mismatch(Mismatch { differences, ..Mismatch::default() })));
        assert!(text.ends_with("      and 3 more\n"), "{text}");
    }

    #[test]
    fn the_worst_decides_the_exit_status() {
        let [same, differs, clock, broken, not] = <[Judged; 5]>::try_from(all()).unwrap();
        assert_eq!(exit_status(&[]), ALL_WELL);
        let mut list = vec![same, clock];
        for (worse, status) in [(not, NOT_COMPARED), (broken, BUILD_FAILURE), (differs, MISMATCH)] {
            list.push(worse);
            assert_eq!(exit_status(&list), status);
        }
    }
}
