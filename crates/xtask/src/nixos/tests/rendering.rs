//! What came of a configuration, as the files that NixOS would make of it.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value};

/// The daemon's configuration file, if there is one.
pub fn toml(values: &Value) -> Option<String> {
    (!values.is_null()).then(|| toml::to_string(values).unwrap())
}

/// All files, each under its name.
pub fn everything(result: &Value) -> String {
    let mut text = String::new();
    let mut add = |name: &str, content: String| {
        if !content.is_empty() {
            let _ = write!(text, "==== {name}\n{content}");
        }
    };
    add("/etc/darling-builder/config.toml", toml(&result["toml"]).unwrap_or_default());
    add("darling-builder.service", unit(&result["service"], "Service", "serviceConfig"));
    add("darling-builder.socket", unit(&result["socket"], "Socket", "socketConfig"));
    add("nix.conf", nix_conf(&result["nix"]));
    add("the environment of nix-daemon", lines(&result["nixDaemon"], "="));
    add("ssh_config", scalar(&result["ssh"]));
    add("system packages", words(&result["systemPackages"]));
    add("warnings", result["warnings"].as_array().unwrap().iter().map(scalar).collect());
    if text.is_empty() { "nothing\n".into() } else { text }
}

/// What is in one text and not in the other; headings stay where something is below them.
pub fn differences(from: &str, to: &str) -> String {
    let mut text = String::new();
    for (sign, here, there) in [('-', from, to), ('+', to, from)] {
        let other: BTreeSet<(&str, &str)> = with_headings(there).collect();
        let mut shown = "";
        for (heading, line) in with_headings(here).filter(|pair| !other.contains(pair)) {
            if heading != shown {
                text += &format!("{sign} {heading}\n");
                shown = heading;
            }
            text += &format!("{sign} {line}\n");
        }
    }
    if text.is_empty() { "the same\n".into() } else { text }
}

fn with_headings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut heading = "";
    text.lines().filter_map(move |line| {
        if line.starts_with("====") {
            heading = line;
            return None;
        }
        Some((heading, line))
    })
}

/// A unit file, as NixOS writes it: lists are lines of one key.
fn unit(unit: &Value, section: &str, key: &str) -> String {
    if unit.is_null() {
        return String::new();
    }
    let mut text =
        format!("[Unit]\n{}[{section}]\n{}", lines(&unit["unitConfig"], "="), lines(&unit[key], "="));
    if unit["reloadIfChanged"] == Value::Bool(true) {
        text += "X-ReloadIfChanged=true\n";
    }
    text + "[Install]\n"
        + &lines(&Value::Object(Map::from_iter([("WantedBy".into(), unit["wantedBy"].clone())])), "=")
}

fn lines(values: &Value, between: &str) -> String {
    let mut text = String::new();
    for (key, value) in values.as_object().unwrap() {
        match value.as_array() {
            Some(items) => items.iter().for_each(|item| text += &format!("{key}{between}{}\n", scalar(item))),
            None => text += &format!("{key}{between}{}\n", scalar(value)),
        }
    }
    text
}

/// Lists are words of one line, and `extra-` comes last.
fn nix_conf(values: &Value) -> String {
    let (extra, plain): (Vec<_>, Vec<_>) =
        values.as_object().unwrap().iter().partition(|(key, _)| key.starts_with("extra-"));
    let value = |value: &Value| match value.as_array() {
        Some(items) => items.iter().map(scalar).collect::<Vec<_>>().join(" "),
        None => scalar(value),
    };
    plain.into_iter().chain(extra).map(|(key, found)| format!("{key} = {}\n", value(found))).collect()
}

fn words(values: &Value) -> String {
    values.as_array().unwrap().iter().map(|value| scalar(value) + "\n").collect()
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
