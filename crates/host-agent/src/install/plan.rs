//! The steps of installing.

use std::path::{Path, PathBuf};

use super::files::Files;
use super::layout::{Layout, Pages, Wish};
use super::nix_settings::NixSettings;
use super::record::{self, Record};
use super::units::{self, Places, SERVICE, SOCKET};
use super::{InstallError, Plan, Step, config_file, recorded, systemd};
use crate::config::{Config, DEFAULT_PATH, GuestKind};

/// Where an administrator's units are.
const UNIT_DIRECTORY: &str = "/etc/systemd/system";

/// Where packages put theirs.
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// What is wanted.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Everything is below this.
    pub root: &'a Path,
    /// This program's file.
    pub running: &'a Path,
    /// Where programs go that no package manager keeps.
    pub prefix: &'a Path,
    /// What the user has said; `None`: what the configuration says.
    pub guest: Option<GuestKind>,
    /// Manual and completions.
    pub pages: &'a Pages,
    /// systemd as it is now; `None`: it is left alone.
    pub systemd: Option<systemd::State>,
}

/// The configuration as it is or will be, and its file if that is to be written.
pub fn configuration(
    files: &Files,
    guest: Option<GuestKind>,
) -> Result<(Config, Option<Wish>), InstallError> {
    let path = Path::new(DEFAULT_PATH);
    let text = config_file::text(guest.unwrap_or(GuestKind::Darling));
    let wish = Wish { yields: true, ..Wish::text(path, text.clone()) };
    if !files.exists(path)? {
        return Ok((Config::parse(&text, path)?, Some(wish)));
    }
    let config = Config::load(Some(&files.on_disk(path)?))?;
    match guest {
        Some(guest) if guest != config.guest => {
            Err(InstallError::Guest { file: path.into(), says: config.guest.as_str() })
        }
        _ => Ok((config, None)),
    }
}

/// All steps. `nix` is left out by those who only want files.
pub fn plan(
    wanted: &Wanted<'_>,
    nix: impl FnOnce(&Config, &Path) -> Result<Option<NixSettings>, InstallError>,
) -> Result<Plan, InstallError> {
    let files = Files::new(wanted.root.into());
    let (config, config_wish) = configuration(&files, wanted.guest)?;
    let layout = Layout::new(wanted.running, wanted.prefix, config.guest, wanted.pages)?;
    let program = layout.program.clone();
    let before = recorded(&files)?.unwrap_or_else(Record::empty);

    let mut wishes = layout.into_wishes();
    wishes.extend(config_wish);
    wishes.extend(unit_wishes(&files, &program, &config)?);
    let mut planned =
        Planned { files: &files, before: &before, after: Record::empty(), steps: vec![], notes: vec![] };
    for wish in wishes {
        planned.wish(wish)?;
    }
    planned.leave_config_alone()?;
    planned.take_away_what_is_no_longer_wished()?;
    planned.directories()?;
    let Planned { after, mut steps, mut notes, .. } = planned;

    if let Some(state) = wanted.systemd {
        steps.extend(service_steps(&steps, state));
    }
    if let Some(settings) = nix(&config, &program)? {
        let foreseen = settings.foresee()?;
        if !foreseen.files.is_empty() {
            notes.extend(foreseen.notes.iter().cloned());
            let units = foreseen.changes_units();
            steps.push(Step::Nix(settings, foreseen));
            steps.extend(wanted.systemd.map_or(vec![], |state| state.nix_daemon_steps(units)));
        }
    }
    Ok(Plan { steps, notes, before, after: Some(after) })
}

/// The units, unless a package has brought the very same.
fn unit_wishes(files: &Files, program: &Path, config: &Config) -> Result<Vec<Wish>, InstallError> {
    let units = units::render(Places { program, config_file: Path::new(DEFAULT_PATH), config })?;
    let mut wishes = Vec::new();
    for (name, text) in units {
        let mut packaged = false;
        for directory in PACKAGED_UNITS {
            packaged |= files.text(&Path::new(directory).join(name))?.as_deref() == Some(&text);
        }
        if !packaged {
            wishes.push(Wish::text(Path::new(UNIT_DIRECTORY).join(name), text));
        }
    }
    Ok(wishes)
}

fn service_steps(done: &[Step], state: systemd::State) -> Vec<Step> {
    let written = |in_units: bool| {
        done.iter().any(|step| match step {
            Step::Write { path, .. } | Step::Remove(path) => path.starts_with(UNIT_DIRECTORY) == in_units,
            _ => false,
        })
    };
    let mut steps = Vec::new();
    if written(true) {
        steps.push(Step::Systemctl(vec!["daemon-reload"]));
    }
    if !state.enabled || !state.active {
        steps.push(Step::Systemctl(vec!["enable", "--now", SOCKET, SERVICE]));
    } else if written(true) || written(false) {
        steps.push(Step::Drain);
    }
    steps
}

struct Planned<'a> {
    files: &'a Files,
    before: &'a Record,
    after: Record,
    steps: Vec<Step>,
    notes: Vec<String>,
}

impl Planned<'_> {
    fn wish(&mut self, Wish { path, contents, yields }: Wish) -> Result<(), InstallError> {
        let wanted = contents.digest()?;
        let found = self.files.digest(&path)?;
        let recorded = self.before.files.get(&path);
        match found {
            // As it should be; whose it is stays as it was.
            Some(found) if found == wanted => {
                if recorded.is_some() {
                    self.after.files.insert(path, [found].into());
                }
                return Ok(());
            }
            Some(found) if !self.before.wrote(&path, &found) => match recorded {
                Some(recorded) => {
                    if !recorded.contains(&wanted) {
                        self.notes.push(format!(
                            "{} was changed since it was installed and stays as it is; remove it to get the new one",
                            path.display()
                        ));
                    }
                    self.after.files.insert(path, recorded.clone());
                    return Ok(());
                }
                None if yields => return Ok(()),
                None => return Err(InstallError::Foreign(path)),
            },
            _ => {}
        }
        let before = match contents {
            super::files::Contents::Text(_) => self.files.text(&path)?,
            _ => None,
        };
        self.after.files.insert(path.clone(), [wanted].into());
        self.steps.push(Step::Write { path, contents, before, replaces: found.is_some() });
        Ok(())
    }

    /// A configuration that is there is never written again, also if it is ours: it is recorded as before.
    fn leave_config_alone(&mut self) -> Result<(), InstallError> {
        let path = Path::new(DEFAULT_PATH);
        if let Some(recorded) = self.before.files.get(path)
            && !self.after.files.contains_key(path)
            && self.files.exists(path)?
        {
            self.after.files.insert(path.into(), recorded.clone());
        }
        Ok(())
    }

    fn take_away_what_is_no_longer_wished(&mut self) -> Result<(), InstallError> {
        for path in self.before.files.keys().filter(|path| !self.after.files.contains_key(*path)) {
            match self.files.digest(path)? {
                Some(found) if self.before.wrote(path, &found) => self.steps.push(Step::Remove(path.clone())),
                Some(_) => self.notes.push(format!(
                    "{} is no longer needed; it was changed since it was installed, and stays",
                    path.display()
                )),
                None => {}
            }
        }
        Ok(())
    }

    /// Those that will be made, and those that were.
    fn directories(&mut self) -> Result<(), InstallError> {
        let written = self.steps.iter().filter_map(|step| match step {
            Step::Write { path, .. } => Some(path.as_path()),
            _ => None,
        });
        let mut missing = Vec::<PathBuf>::new();
        for path in written.chain([Path::new(record::PATH)]) {
            missing.extend(self.files.missing_directories(path)?);
        }
        // The root itself is the caller's, also if it is not there yet.
        missing.retain(|directory| directory.parent().is_some());
        self.after.directories.extend(missing);
        self.after.directories.extend(self.before.directories.iter().cloned());
        Ok(())
    }
}
