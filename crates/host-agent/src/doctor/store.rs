//! The store and the daemon's directory.

use std::os::unix::fs::MetadataExt;

use super::{Finding, machine};
use crate::config::Config;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    const STORE: &str = "store";
    const STATE: &str = "state-directory";
    let store = match std::fs::metadata(&config.store_directory) {
        Ok(store) if store.is_dir() => store,
        found => {
            let problem = found.map_or_else(|error| error.to_string(), |_| "is not a directory".into());
            return vec![Finding::broken(
                STORE,
                format!("{}: {problem}", config.store_directory.display()),
                "install Nix, or set `store-directory`",
            )];
        }
    };
    // It is made by the daemon; until then what counts is where it will be.
    let state = machine::existing(&config.state_directory);
    let same = state.metadata().is_ok_and(|state| state.dev() == store.dev());
    vec![
        Finding::fine(STORE, config.store_directory.display()),
        if same {
            Finding::fine(
                STATE,
                format!(
                    "{}, on the store's file system: outputs are renamed, not copied",
                    config.state_directory.display()
                ),
            )
        } else {
            Finding::warning(
                STATE,
                format!(
                    "{} is not on the store's file system: every output is copied",
                    config.state_directory.display()
                ),
                "set `state-directory` to a place on the store's file system",
            )
        },
    ]
}
