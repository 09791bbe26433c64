//! Configurations that work, those that are refused, and those that the types refuse.

use std::collections::BTreeSet;
use std::path::Path;

use host_agent::config::Config;
use serde_json::Value;

use super::rendering::{differences, everything, toml};
use super::{evaluated, every_nix};
use crate::nixos::options_page::EVALUATE;
use crate::workspace::Workspace;

/// The configuration file of a result as the program understands it.
fn understood(name: &str, result: &Value) -> Option<Config> {
    let text = toml(&result["toml"])?;
    Some(Config::parse(&text, Path::new(name)).unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn every_configuration_is_rendered_as_before() {
    let Some(works) = evaluated("works") else { return };
    let works = works.as_object().unwrap();
    assert!(works.len() >= 10);
    let plain = everything(&works["enabled"]);
    for (name, result) in works {
        assert_eq!(result["assertions"], Value::Array(Vec::new()), "{name}");
        let text = everything(result);
        // The plain one in full, those that change it by what is different.
        let text =
            if ["enabled", "disabled"].contains(&name.as_str()) { text } else { differences(&plain, &text) };
        insta::assert_snapshot!(name.as_str(), text);
    }
}

#[test]
fn the_program_understands_every_configuration_file() {
    let Some(works) = evaluated("works") else { return };
    for (name, result) in works.as_object().unwrap() {
        assert_eq!(understood(name, result).is_some(), name != "disabled", "{name}");
    }
}

#[test]
fn defaults_are_the_programs_own() {
    let Some(works) = evaluated("works") else { return };
    let mut config = understood("enabled", &works["enabled"]).unwrap();
    assert!(config.darling.launcher.take().is_some());
    assert!(config.pasta.take().is_some());
    assert_eq!(config, Config::default());
}

#[test]
fn the_template_sets_nothing_but_defaults() {
    let Some(works) = evaluated("works") else { return };
    assert_eq!(works["template"], works["enabled"]);
}

#[test]
fn the_template_explains_every_option() {
    let Some(options) = evaluated("options") else { return };
    let template = include_str!("../../../../../templates/darling-builder/darling-builder.nix");
    for option in options.as_array().unwrap() {
        let name = option["name"].as_str().unwrap().strip_prefix("services.darling-builder.").unwrap();
        let last = name.rsplit('.').next().unwrap();
        let explained = [name, last].iter().any(|name| template.contains(&format!("{name} = ")));
        assert!(explained, "the template does not set {name}");
    }
}

#[test]
fn each_assertion_fires_where_it_should_and_nowhere_else() {
    let Some(refused) = evaluated("refused") else { return };
    let mut fired = BTreeSet::new();
    let mut total = 0;
    let mut messages = String::new();
    for (name, result) in refused.as_object().unwrap() {
        let [index] = result["fired"].as_array().unwrap().as_slice() else {
            panic!("{name}: {}", result["assertions"])
        };
        fired.insert(index.as_u64().unwrap());
        total = result["total"].as_u64().unwrap();
        messages += &format!("# {name}\n{}\n", result["assertions"][0].as_str().unwrap());
    }
    assert_eq!(fired, (0..total).collect(), "some assertion has no configuration that it refuses");
    insta::assert_snapshot!("refused", messages);
}

#[test]
fn the_types_refuse_what_cannot_be() {
    let workspace = Workspace::find().unwrap();
    let file = workspace.project.join(EVALUATE);
    for nix in every_nix(&workspace) {
        let mut messages = String::new();
        for name in [
            "jobs-of-zero",
            "small-tmpfs",
            "few-uids",
            "unknown-network",
            "unknown-front-end",
            "key-as-a-path-of-nix",
            "unknown-option",
            "conflicting-values",
        ] {
            let error = nix.evaluate(&file, &format!("mistyped.{name}")).unwrap_err().to_string();
            let line =
                error.lines().rev().find_map(|line| line.trim_start().strip_prefix("error: ")).unwrap();
            let line = line.replace(&workspace.project.display().to_string(), "…");
            messages += &format!("{name}: {line}\n");
        }
        insta::assert_snapshot!("mistyped", messages);
    }
}
