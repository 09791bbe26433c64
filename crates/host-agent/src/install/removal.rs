//! The steps of uninstalling: from the record, in an order in which nothing is asked that is gone already.

use std::path::Path;

use super::files::Files;
use super::nix_settings::NixSettings;
use super::units::{SERVICE, SOCKET};
use super::{InstallError, Plan, Step, recorded, systemd};
use crate::config::{Config, DEFAULT_PATH};

/// The steps; `None` if nothing is installed. With `drain`, running builds may finish.
pub fn plan(
    root: &Path,
    nix: NixSettings,
    systemd: Option<systemd::State>,
    drain: bool,
) -> Result<Option<Plan>, InstallError> {
    let files = Files::new(root.into());
    let Some(before) = recorded(&files)? else { return Ok(None) };
    let mut steps = Vec::new();
    let mut notes = Vec::new();

    // First, so that nothing new begins.
    let foreseen = nix.foresee()?;
    if !foreseen.files.is_empty() {
        let units = foreseen.changes_units();
        steps.push(Step::Nix(nix, foreseen));
        steps.extend(systemd.map_or(vec![], |state| state.nix_daemon_steps(units)));
    }
    if let Some(state) = systemd {
        if drain && state.active {
            steps.push(Step::Drain);
        }
        if state.enabled || state.active {
            steps.push(Step::Systemctl(vec!["disable", "--now", SERVICE, SOCKET]));
        }
    }
    match configuration(&files) {
        Ok(config) if files.exists(&config.state_directory)? => {
            steps.push(Step::RemoveState(config.state_directory));
        }
        Ok(_) => {}
        Err(error) => notes
            .push(format!("the daemon's directory stays where it is, since it is not known where: {error}")),
    }
    for path in before.files.keys() {
        match files.digest(path)? {
            Some(found) if before.wrote(path, &found) => steps.push(Step::Remove(path.clone())),
            Some(_) => {
                notes.push(format!("{} was changed since it was installed, and stays", path.display()))
            }
            None => {}
        }
    }
    if systemd.is_some() {
        steps.push(Step::Systemctl(vec!["daemon-reload"]));
    }
    Ok(Some(Plan { steps, notes, before, after: None }))
}

fn configuration(files: &Files) -> Result<Config, InstallError> {
    let path = Path::new(DEFAULT_PATH);
    match files.exists(path)? {
        true => Ok(Config::load(Some(&files.on_disk(path)?))?),
        false => Ok(Config::default()),
    }
}
