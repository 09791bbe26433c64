//! What is ours to build.
//!
//! Three answers, because a decline is not harmless: until Nix 2.33 it aborts the whole run if Nix can't build the
//! derivation itself. So what is of our systems and can't be built is accepted and then fails with its reason; only
//! what others build is declined.

use std::path::Path;

use super::derivation::{Derivation, Output};
use super::question::Question;
use super::settings::Settings;
use crate::config::Config;

/// Where the Unix socket of a store's daemon is by default; naming it diverts nothing.
const DEFAULT_DAEMON_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// Whose a derivation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Others build this. Shown to whoever asks for more output, once per reason.
    NotOurs {
        /// Readable reason.
        reason: String,
        /// Whether Nix's own remote builder is asked.
        elsewhere: bool,
    },
    /// Of our systems, but not to be built here, ever.
    Impossible(String),
    /// We build it.
    Ours(Box<Derivation>),
}

/// Decides about a question. Reads the derivation, if its system is ours.
pub fn judge(question: &Question, settings: &Settings, config: &Config) -> Judgement {
    let system = String::from_utf8_lossy(&question.system);
    if !config.systems.iter().any(|ours| ours.as_bytes() == question.system) {
        let reason = format!("system {system} is not one of this builder's ({})", config.systems.join(", "));
        return Judgement::NotOurs { reason, elsewhere: true };
    }
    if let Some(reason) = diverted_store(&settings.store) {
        return Judgement::Impossible(reason);
    }
    match Derivation::read(&config.store_directory, &question.derivation) {
        Err(error) => Judgement::Impossible(error.to_string()),
        Ok(derivation) => judge_derivation(derivation, question, config, exists),
    }
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Decides about a derivation of our systems; `exists` says whether there is something at a path.
fn judge_derivation(
    derivation: Derivation,
    question: &Question,
    config: &Config,
    exists: impl Fn(&Path) -> bool,
) -> Judgement {
    if derivation.is_builtin() {
        let builder = String::from_utf8_lossy(&derivation.builder);
        let reason = format!("only Nix itself can run {builder}");
        return Judgement::NotOurs { reason, elsewhere: true };
    }
    if let Some(reason) = unsupported(&derivation, question, config) {
        return Judgement::Impossible(reason);
    }
    // Nix deletes outputs that are not valid before it asks. So what is there is valid, and this is a check or repair
    // (Nix until 2.33 with `max-jobs = 0`), which nothing else in the question says.
    let mut paths = derivation.outputs.values().filter_map(Output::path);
    if paths.all(|path| exists(&path.in_store(&config.store_directory))) {
        let reason = "its outputs exist already, and checking or repairing them is for Nix itself".to_owned();
        return Judgement::NotOurs { reason, elsewhere: false };
    }
    Judgement::Ours(Box::new(derivation))
}

fn unsupported(derivation: &Derivation, question: &Question, config: &Config) -> Option<String> {
    if derivation.dynamic {
        return Some("dynamic derivations are not supported".into());
    }
    if derivation.outputs.is_empty() {
        return Some("it has no outputs".into());
    }
    for (name, output) in &derivation.outputs {
        let problem = match output {
            Output::InputAddressed(_) => continue,
            Output::Fixed { .. } if derivation.is_fixed() => continue,
            Output::Fixed { .. } => "is fixed, but not its only output".to_owned(),
            Output::Floating => "is content-addressed without a fixed hash, which is not supported".into(),
            Output::Deferred => "depends on content-addressed derivations that Nix has not resolved".into(),
            Output::Impure => "is impure, which is not supported".into(),
            Output::Unknown(algorithm) => format!("is hashed with '{algorithm}', which is not supported"),
        };
        return Some(format!("output '{name}' {problem}"));
    }
    let list = |features: &[&str]| features.join(", ");
    let required: Vec<_> = question.features.iter().map(|feature| String::from_utf8_lossy(feature)).collect();
    let offered = |feature: &str| {
        [&config.supported_features, &config.mandatory_features]
            .into_iter()
            .flatten()
            .any(|ours| ours == feature)
    };
    let missing: Vec<&str> = required.iter().map(AsRef::as_ref).filter(|feature| !offered(feature)).collect();
    if !missing.is_empty() {
        return Some(format!(
            "it requires system features that this builder does not have: {} (it has: {}; see `supported-features` \
             in its configuration)",
            list(&missing),
            list(&config.supported_features.iter().map(String::as_str).collect::<Vec<_>>())
        ));
    }
    let unmet: Vec<&str> = config
        .mandatory_features
        .iter()
        .map(String::as_str)
        .filter(|feature| !required.iter().any(|ours| ours == feature))
        .collect();
    (!unmet.is_empty()).then(|| {
        format!(
            "this builder only builds what requires the system features {} (`mandatory-features`)",
            list(&unmet)
        )
    })
}

/// Why a store's paths may not be where they say, if that may be so.
fn diverted_store(store: &str) -> Option<String> {
    let (place, parameters) = store.split_once('?').unwrap_or((store, ""));
    let usual = matches!(place, "" | "auto" | "daemon" | "local" | "unix://" | "local://")
        || place.strip_prefix("unix://") == Some(DEFAULT_DAEMON_SOCKET);
    let moved = parameters
        .split('&')
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(name, _)| ["root", "real", "store", "state"].contains(&name));
    (!usual || moved).then(|| {
        format!("the store '{place}' keeps its files in another place; only the local store is supported")
    })
}

#[cfg(test)]
mod tests;
