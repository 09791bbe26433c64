//! The module tells Nix what `host-agent nix-conf` would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use host_agent::config::Config;
use host_agent::nix::conf::proposal::{FrontEnd, Proposal, ProposalError, Wanted};
use host_agent::nix::conf::version::NixVersion;
use serde_json::Value;

use super::evaluated;
use super::rendering::toml;

fn version(package: &str, version: &str) -> NixVersion {
    format!("{package}-{version}").parse().unwrap()
}

fn front_end(name: &str) -> Option<FrontEnd> {
    match name {
        "auto" => None,
        "external-builder" => Some(FrontEnd::ExternalBuilder),
        "build-hook" => Some(FrontEnd::BuildHook),
        other => panic!("{other}"),
    }
}

fn propose(
    version: NixVersion,
    wanted: &str,
    package: &Path,
    systems: Vec<String>,
) -> Result<Proposal, ProposalError> {
    let wanted = Wanted {
        front_end: front_end(wanted),
        program: package.join("bin/host-agent"),
        hook: package.join("bin/darling-builder-hook"),
        config: None,
        systems,
    };
    Proposal::new(version, &wanted)
}

#[test]
fn every_version_of_nix_is_told_in_the_same_place() {
    let Some(ways) = evaluated("frontEnds") else { return };
    let ways = ways.as_array().unwrap();
    assert!(ways.len() > 50);
    for way in ways {
        let package = if way["lix"] == Value::Bool(true) { "lix" } else { "nix" };
        let nix = version(package, way["version"].as_str().unwrap());
        match propose(nix, way["wanted"].as_str().unwrap(), Path::new("/x"), vec!["x86_64-darwin".into()]) {
            Ok(proposal) => {
                let name = match proposal.front_end {
                    FrontEnd::ExternalBuilder => "external-builder",
                    FrontEnd::BuildHook => "build-hook",
                };
                assert_eq!(way["name"], name, "{way}");
                assert_eq!(
                    way["place"],
                    if proposal.in_nix_conf { "nix.conf" } else { "environment" },
                    "{way}"
                );
                if proposal.front_end == FrontEnd::ExternalBuilder {
                    assert_eq!(way["rebuilds"], nix.rebuilds_through_external_builders(), "{way}");
                }
            }
            Err(error) => assert_eq!(way["place"], Value::Null, "{way}: {error}"),
        }
    }
}

/// Settings that are ours, out of lines of configuration; JSON as values, because keys have no order there.
fn ours<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Value> {
    let settings = lines.into_iter().filter_map(|line| line.split_once(" = "));
    settings
        .filter(|(key, _)| ["build-hook", "external-builders", "extra-experimental-features"].contains(key))
        .map(|(key, value)| {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            (key.to_owned(), value)
        })
        .collect()
}

#[test]
fn every_configuration_sets_what_nix_conf_would() {
    let Some(works) = evaluated("works") else { return };
    for (name, result) in works.as_object().unwrap().iter().filter(|(name, _)| *name != "disabled") {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let config = Config::parse(&toml(&result["toml"]).unwrap(), Path::new(name)).unwrap();
        let nix = version(&text(&result["nixPackage"]["pname"]), &text(&result["nixPackage"]["version"]));
        let package = PathBuf::from(text(&result["package"]));
        let proposal = propose(nix, &text(&result["frontEnd"]), &package, config.systems).unwrap();

        let in_nix_conf: Vec<String> = result["nix"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(key, value)| {
                let values = value.as_array().map_or_else(|| vec![value], |items| items.iter().collect());
                values.into_iter().filter_map(move |value| Some(format!("{key} = {}", value.as_str()?)))
            })
            // What the configuration itself has set.
            .filter(|line| !line.ends_with(" = ca-derivations"))
            .collect();
        let in_environment = result["nixDaemon"]["NIX_CONFIG"].as_str().unwrap_or_default();
        let (here, elsewhere) = (ours(in_nix_conf.iter().map(String::as_str)), ours(in_environment.lines()));
        let (here, elsewhere) = if proposal.in_nix_conf { (here, elsewhere) } else { (elsewhere, here) };
        assert_eq!(here, ours(proposal.lines.iter().map(String::as_str)), "{name}");
        assert_eq!(elsewhere, BTreeMap::new(), "{name}");
    }
}
