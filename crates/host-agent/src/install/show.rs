//! Steps in words: one line each, and for a dry run what files will contain or how they change.

use std::path::Path;

use similar::TextDiff;

use super::files::Contents;
use super::{Plan, Step};
use crate::nix::conf::tree::Preview;

/// Only what is below this is shown in full: settings, not manual pages.
const SHOWN: &str = "/etc";

/// The whole plan, with contents.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        text.push_str(&line(step));
        text.push('\n');
        text.push_str(&details(step));
    }
    text + &notes(&plan.notes)
}

/// What there is to know, a line each.
pub fn notes(notes: &[String]) -> String {
    notes.iter().map(|note| format!("note: {note}\n")).collect()
}

/// One step.
pub fn line(step: &Step) -> String {
    match step {
        Step::Write { path, contents, replaces, .. } => {
            let word = if *replaces { "change" } else { "make" };
            let path = path.display();
            match contents {
                Contents::Text(_) => format!("{word} {path}"),
                Contents::Program(from) => format!("{word} {path}, a copy of {}", from.display()),
                Contents::Link(target) => format!("{word} {path}, a link to {}", target.display()),
            }
        }
        Step::Remove(path) => format!("remove {}", path.display()),
        Step::RemoveState(path) => format!("remove {} with what is in it", path.display()),
        Step::Nix(_, foreseen) => {
            let lines: Vec<_> = foreseen.files.iter().map(nix_line).collect();
            lines.join("\n")
        }
        Step::Systemctl(words) => format!("run systemctl {}", words.join(" ")),
        Step::Drain => {
            "run systemctl reload darling-builder.service: running builds finish, then a new daemon starts"
                .into()
        }
    }
}

fn nix_line(preview: &Preview) -> String {
    let word = match (&preview.before, &preview.after) {
        (None, _) => "make",
        (Some(_), Some(_)) => "change",
        (Some(_), None) => "remove",
    };
    format!("{word} {}", preview.path.display())
}

fn details(step: &Step) -> String {
    match step {
        Step::Write { path, contents: Contents::Text(text), before, .. } if path.starts_with(SHOWN) => {
            change(before.as_deref(), &String::from_utf8_lossy(text))
        }
        // Several files: each with its line.
        Step::Nix(_, foreseen) => foreseen.files.iter().map(nix_details).collect::<String>(),
        _ => String::new(),
    }
}

fn nix_details(preview: &Preview) -> String {
    let Some(after) = &preview.after else { return String::new() };
    let before = preview.before.as_deref().map(String::from_utf8_lossy);
    let name = preview.path.file_name().unwrap_or(preview.path.as_os_str());
    let heading = format!("  {}:\n", Path::new(name).display());
    heading + &change(before.as_deref(), &String::from_utf8_lossy(after))
}

/// All of a new text, or how an old one changes.
fn change(before: Option<&str>, after: &str) -> String {
    let text = match before {
        None => after.to_owned(),
        Some(before) => TextDiff::from_lines(before, after).unified_diff().context_radius(2).to_string(),
    };
    text.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect()
}
