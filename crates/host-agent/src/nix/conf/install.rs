//! Putting the settings where they take effect, and taking them away.
//!
//! Where `nix.conf` counts: a file of our own beside it, and marked lines at its end that include it. Where it does not
//! (`build-hook` from 2.25 to 2.33): the same in `/etc/xdg/nix/nix.conf`, or a drop-in for systemd's unit of nix-daemon.
//!
//! Every change begins with taking away, in memory, what an earlier one has put there: so the second `--apply` changes
//! nothing, and one after an upgrade of Nix moves the settings to where the new one reads them. Our own file notes what did
//! not exist before, so that `--remove` leaves none of it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::marked::{self, Damaged};
use super::proposal::{FrontEnd, Proposal};
use super::settings_files::{self, Place, Setting};
use super::text;
use super::tree::{Change, Preview, Tree, TreeError};

/// Read by every Nix process unless `XDG_CONFIG_DIRS` says otherwise, as if it were a user's own.
pub const XDG_CONF: &str = "/etc/xdg/nix/nix.conf";
/// Our lines in the environment of systemd's nix-daemon.
pub const DROP_IN: &str = "/etc/systemd/system/nix-daemon.service.d/darling-builder.conf";

/// Our own file, beside the one that includes it.
const OWN: &str = "darling-builder.conf";
const HEADER: &str =
    "# Written by `host-agent nix-conf --apply`; `host-agent nix-conf --remove` takes it away again.";
/// Begins the lines that say what did not exist before.
const MADE: &str = "# made ";
const ROOTS_CONF: &str = "/root/.config/nix/nix.conf";

/// The configuration of one Nix.
#[derive(Debug)]
pub struct Installation {
    tree: Tree,
    nix_conf: PathBuf,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    /// Files, in the order in which they were changed.
    pub changes: Vec<(PathBuf, Change)>,
    /// What the user should know besides.
    pub notes: Vec<String>,
    /// A unit of systemd's is among the files.
    pub units_changed: bool,
}

/// What would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// Files that would change.
    pub files: Vec<Preview>,
    /// What the user should know besides.
    pub notes: Vec<String>,
}

impl Foreseen {
    /// Whether a unit of systemd's is among the files.
    pub fn changes_units(&self) -> bool {
        self.files.iter().any(|preview| preview.path == Path::new(DROP_IN))
    }
}

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A file can't be read or written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Our lines are not as we wrote them.
    #[error("failed to change {file}: {error}", file = file.display())]
    Damaged {
        /// Where.
        file: PathBuf,
        /// What is wrong.
        error: Damaged,
    },
    /// The file has our name and is not ours.
    #[error("failed to write {file}: it is there and was not written by this program; rename it", file = .0.display())]
    Foreign(PathBuf),
    /// The configuration is made from something else.
    #[error(
        "failed to change {file}: {reason}; set `services.darling-builder.enable = true` in the system's configuration \
         instead, whose module makes these settings", file = file.display()
    )]
    NixOs {
        /// The file.
        file: PathBuf,
        /// How we know.
        reason: &'static str,
    },
    /// The user has the setting already.
    #[error(
        "failed to set `{name}`: {place} sets it to `{value}`, and Nix takes one value only; remove that line, or add by \
         hand what `host-agent nix-conf` prints"
    )]
    UsersOwn {
        /// The setting.
        name: String,
        /// Its value.
        value: String,
        /// Where.
        place: Place,
    },
    /// The daemon's environment is used already.
    #[error(
        "failed to set `NIX_CONFIG` for nix-daemon: {0} sets it, and systemd keeps one value only; add `{1}` there by hand"
    )]
    UsersEnvironment(Place, String),
}

type Result<T> = std::result::Result<T, InstallError>;

impl Installation {
    /// The configuration below `root`, with `nix.conf` in the directory `conf_dir`.
    pub fn new(root: PathBuf, conf_dir: &Path) -> Self {
        Self { tree: Tree::new(root), nix_conf: conf_dir.join("nix.conf") }
    }

    /// Makes the settings take effect.
    pub fn apply(mut self, proposal: &Proposal) -> Result<Done> {
        let notes = self.stage(proposal)?;
        self.commit(notes)
    }

    /// What [`apply`](Self::apply) would do.
    pub fn preview(mut self, proposal: &Proposal) -> Result<Foreseen> {
        let notes = self.stage(proposal)?;
        Ok(Foreseen { files: self.tree.previews()?, notes })
    }

    fn stage(&mut self, proposal: &Proposal) -> Result<Vec<String>> {
        let conf = match proposal.in_nix_conf {
            true => Some(self.nix_conf.clone()),
            false if settings_files::systemd_runs_nix_daemon(&self.tree)? => None,
            false => Some(XDG_CONF.into()),
        };
        self.refuse_nixos(conf.as_deref().unwrap_or(Path::new(DROP_IN)))?;
        self.take_away()?;
        self.refuse_what_is_the_users(proposal, conf.is_none())?;
        let notes = self.notes(proposal, conf.as_deref())?;
        match conf {
            Some(conf) => self.include(&conf, proposal)?,
            None => self.drop_in(proposal)?,
        }
        Ok(notes)
    }

    /// Takes away whatever an earlier `apply` has put there.
    pub fn remove(mut self) -> Result<Done> {
        self.take_away()?;
        self.commit(Vec::new())
    }

    /// What [`remove`](Self::remove) would do.
    pub fn preview_removal(mut self) -> Result<Foreseen> {
        self.take_away()?;
        Ok(Foreseen { files: self.tree.previews()?, notes: Vec::new() })
    }

    fn commit(self, notes: Vec<String>) -> Result<Done> {
        let changes = self.tree.commit(OWN)?;
        let units_changed = changes.iter().any(|(path, _)| path == Path::new(DROP_IN));
        Ok(Done { changes, notes, units_changed })
    }

    fn take_away(&mut self) -> Result<()> {
        for conf in [self.nix_conf.clone(), XDG_CONF.into()] {
            let made = self.take_own_away(&conf.with_file_name(OWN))?;
            let Some(text) = self.tree.read(&conf)? else { continue };
            let without = marked::without_lines(&text)
                .map_err(|error| InstallError::Damaged { file: conf.clone(), error })?;
            if let Some(without) = without {
                let goes = without.is_empty() && made.contains(&conf);
                self.tree.set(&conf, (!goes).then_some(without))?;
            }
        }
        self.take_own_away(Path::new(DROP_IN))?;
        Ok(())
    }

    /// Returns what it says did not exist before.
    fn take_own_away(&mut self, own: &Path) -> Result<Vec<PathBuf>> {
        let Some(text) = self.tree.read(own)? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&text).into_owned();
        if !text.starts_with(HEADER) {
            return Err(InstallError::Foreign(own.into()));
        }
        self.tree.set(own, None)?;
        let made: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix(MADE)).map(PathBuf::from).collect();
        for path in &made {
            // Only what is above our own file can be a directory that we made.
            if own.starts_with(path) {
                self.tree.unmake_directory(path.clone());
            }
        }
        Ok(made)
    }

    fn refuse_nixos(&self, file: &Path) -> Result<()> {
        let in_store = self.tree.resolve(file)?.starts_with("/nix/store");
        let reason = match (in_store, self.tree.exists(Path::new("/etc/NIXOS"))?) {
            (true, _) => "it is a link into the store and can't be written",
            (false, true) => "this is NixOS, which would undo it",
            (false, false) => return Ok(()),
        };
        Err(InstallError::NixOs { file: file.into(), reason })
    }

    fn refuse_what_is_the_users(&self, proposal: &Proposal, environment: bool) -> Result<()> {
        let name = proposal.front_end.setting();
        let mut settings = Vec::new();
        for file in [self.nix_conf.as_path(), Path::new(XDG_CONF)] {
            settings.extend(settings_files::settings(&self.tree, file)?);
        }
        settings.extend(self.roots_settings()?);
        if let Some(Setting { name, value, place }) = settings.into_iter().find(|it| it.name == name) {
            return Err(InstallError::UsersOwn { name, value, place });
        }
        for Setting { value, place, .. } in settings_files::nix_config_in_units(&self.tree)? {
            if value.contains(name) {
                return Err(InstallError::UsersOwn { name: name.into(), value, place });
            }
            if environment {
                return Err(InstallError::UsersEnvironment(place, proposal.lines.join("\\n")));
            }
        }
        Ok(())
    }

    /// What would still be in the way of an external builder, and what looks like trouble and is none.
    fn notes(&self, proposal: &Proposal, conf: Option<&Path>) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        if conf == Some(Path::new(XDG_CONF)) {
            notes.push(format!(
                "clients of nix-daemon read {XDG_CONF}, too, and send the setting along: those that are not trusted are \
                 warned that it is ignored, which is harmless, since the daemon has it from there itself"
            ));
        }
        if proposal.front_end != FrontEnd::ExternalBuilder {
            return Ok(notes);
        }
        let own = settings_files::settings(&self.tree, &self.nix_conf)?;
        if let Some(Setting { place, .. }) =
            own.iter().rfind(|it| it.name == "max-jobs").filter(|it| it.value == "0")
        {
            notes.push(format!(
                "{place} sets max-jobs to 0: Nix starts an external builder only where it may build itself"
            ));
        }
        if let Some(Setting { place, .. }) = own.iter().find(|it| it.name == "build-hook") {
            notes.push(format!(
                "{place} sets a build hook: Nix asks it first, and the external builder if it declines"
            ));
        }
        let later = settings_files::settings(&self.tree, Path::new(XDG_CONF))?.into_iter();
        for Setting { name, value, place } in later.chain(self.roots_settings()?) {
            let has_it = value.split(' ').any(|feature| feature == "external-builders");
            if name == "experimental-features" && !has_it {
                notes.push(format!(
                    "{place} sets experimental-features and is read later: where Nix runs without daemon, it takes \
                     external-builders away; say extra-experimental-features there"
                ));
            }
        }
        Ok(notes)
    }

    /// Nobody but root can read them, and nobody but root can write what is to be written: for others, who only want to see
    /// what would be done, there are none.
    fn roots_settings(&self) -> Result<Vec<Setting>> {
        match settings_files::settings(&self.tree, Path::new(ROOTS_CONF)) {
            Err(TreeError::Io { error, .. }) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Ok(Vec::new())
            }
            settings => Ok(settings?),
        }
    }

    fn include(&mut self, conf: &Path, proposal: &Proposal) -> Result<()> {
        let own = conf.with_file_name(OWN);
        let original = self.tree.read(conf)?;
        let mut made = self.tree.missing_directories(conf)?;
        if original.is_none() {
            made.push(conf.into());
        }
        self.tree.set(&own, Some(own_file(&made, proposal.lines.iter().map(String::as_str))))?;
        // With `!`, so that Nix goes on working if somebody deletes the file alone.
        let text = marked::with_lines(&original.unwrap_or_default(), &format!("!include {OWN}"));
        Ok(self.tree.set(conf, Some(text))?)
    }

    fn drop_in(&mut self, proposal: &Proposal) -> Result<()> {
        let path = Path::new(DROP_IN);
        let made = self.tree.missing_directories(path)?;
        let environment = text::environment_line(proposal);
        let text = own_file(&made, ["[Service]", &environment].into_iter());
        Ok(self.tree.set(path, Some(text))?)
    }
}

fn own_file<'a>(made: &[PathBuf], lines: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let made = made.iter().map(|path| format!("{MADE}{}", path.display()));
    let all: Vec<_> =
        std::iter::once(HEADER.to_owned()).chain(made).chain(lines.map(str::to_owned)).collect();
    format!("{}\n", all.join("\n")).into_bytes()
}
