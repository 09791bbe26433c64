//! Nix's configuration as its daemon reads it: `nix.conf` with what it includes, the users' files, `NIX_CONFIG`.
//!
//! Order and syntax are those of Nix's `loadConfFile` and `parseConfigFiles`: a later value replaces an earlier one, `extra-`
//! appends, `#` begins a comment, `include` names a file that must be there, `!include` one that need not; relative names
//! are relative to the file that names them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// Includes within includes.
const DEPTH_MAX: usize = 16;

/// Where a value comes from; it matters to some versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The system's `nix.conf`, or what it includes.
    System(PathBuf),
    /// A user's file, or one in `/etc/xdg`, or what they include.
    User(PathBuf),
    /// The environment variable `NIX_CONFIG`.
    Environment,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::System(path) | Origin::User(path) => path.display().fmt(f),
            Origin::Environment => f.write_str("NIX_CONFIG"),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// All values, and what is wrong with the files.
#[derive(Debug, Default)]
pub(super) struct Settings {
    values: BTreeMap<String, Vec<Value>>,
    /// What Nix would refuse.
    pub(super) problems: Vec<String>,
}

/// The environment that decides which files are read.
#[derive(Debug, Default)]
pub(super) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Of this program.
    pub(super) fn own() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// From `/proc/<pid>/environ`: `NAME=value`, each ended by a NUL.
    pub(super) fn of_process(environ: &[u8]) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let variables = environ.split(|byte| *byte == 0).filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            Some((OsStr::from_bytes(&entry[..at]).into(), OsStr::from_bytes(&entry[at + 1..]).into()))
        });
        Self(variables.collect())
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    fn system_file(&self) -> PathBuf {
        Path::new(self.get("NIX_CONF_DIR").unwrap_or(OsStr::new("/etc/nix"))).join("nix.conf")
    }

    /// In the order in which they are applied: those that count most come last.
    fn user_files(&self) -> Vec<PathBuf> {
        if let Some(files) = self.get("NIX_USER_CONF_FILES") {
            let mut files: Vec<PathBuf> = std::env::split_paths(files).collect();
            files.reverse();
            return files;
        }
        let shared = self.get("XDG_CONFIG_DIRS").unwrap_or(OsStr::new("/etc/xdg"));
        let home = Path::new(self.get("HOME").unwrap_or(OsStr::new("/root"))).join(".config");
        let own = self.get("XDG_CONFIG_HOME").map_or(home, PathBuf::from);
        let mut files: Vec<PathBuf> = std::iter::once(own)
            .chain(std::env::split_paths(shared))
            .map(|path| path.join("nix/nix.conf"))
            .collect();
        files.reverse();
        files
    }
}

impl Settings {
    /// As a Nix with this environment reads them.
    pub(super) fn load(environment: &Environment) -> Self {
        let mut settings = Self::default();
        settings.file(&environment.system_file(), &Origin::System, 0);
        for file in environment.user_files() {
            settings.file(&file, &Origin::User, 0);
        }
        if let Some(text) = environment.get("NIX_CONFIG") {
            settings.text(&text.to_string_lossy(), Path::new("/"), Origin::Environment, &Origin::User, 0);
        }
        settings
    }

    /// The value that counts, among those that `counts` admits; `extra-` ones appended.
    pub(super) fn get(&self, name: &str, counts: impl Fn(&Origin) -> bool) -> Option<Value> {
        let values = self.values.get(name)?;
        values.iter().rev().find(|value| counts(&value.origin)).cloned()
    }

    /// All words of a list, `extra-` included.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        let plain = self.get(name, |_| true).map(|value| value.text).unwrap_or_default();
        let extra = self.values.get(&format!("extra-{name}"));
        let extra = extra.into_iter().flatten().map(|value| value.text.as_str());
        std::iter::once(plain.as_str())
            .chain(extra)
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    }

    fn file(&mut self, path: &Path, origin: &dyn Fn(PathBuf) -> Origin, depth: usize) -> bool {
        match fs::read(path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                self.text(&text, path, origin(path.to_owned()), origin, depth);
                true
            }
            Err(_) => false,
        }
    }

    fn text(
        &mut self,
        text: &str,
        path: &Path,
        own: Origin,
        included: &dyn Fn(PathBuf) -> Origin,
        depth: usize,
    ) {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let mut problem = |what: &str| {
                let place =
                    if own == Origin::Environment { "NIX_CONFIG".into() } else { path.display().to_string() };
                self.problems.push(format!("{place}, line {}: {what}", number + 1));
            };
            match words[..] {
                [] => {}
                [include @ ("include" | "!include"), name] => {
                    let file = path.parent().unwrap_or(Path::new("/")).join(name);
                    if depth >= DEPTH_MAX {
                        problem("too many includes within each other");
                    } else if !self.file(&file, included, depth + 1) && include == "include" {
                        self.problems.push(format!(
                            "{}, line {}: {} can't be read",
                            path.display(),
                            number + 1,
                            file.display()
                        ));
                    }
                }
                [name, "=", ref value @ ..] => {
                    let value = Value { text: value.join(" "), origin: own.clone() };
                    self.values.entry(name.to_owned()).or_default().push(value);
                }
                _ => problem("not `name = value`"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files in a directory of their own, and the environment that leads to them.
    fn settings(files: &[(&str, &str)], variables: &[(&str, &str)]) -> (tempfile::TempDir, Settings) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let at = |name: &str| directory.path().join(name).display().to_string();
        let mut environ =
            format!("NIX_CONF_DIR={}\0HOME={}\0XDG_CONFIG_DIRS={}\0", at("etc"), at("home"), at("xdg"));
        for (name, value) in variables {
            environ.push_str(&format!("{name}={value}\0"));
        }
        let settings = Settings::load(&Environment::of_process(environ.as_bytes()));
        (directory, settings)
    }

    fn text(settings: &Settings, name: &str) -> Option<String> {
        settings.get(name, |_| true).map(|value| value.text)
    }

    #[test]
    fn later_values_replace_earlier_ones_and_extra_ones_append() {
        let conf = "# a comment\nbuild-hook = /a # the first\n\nbuild-hook=/no\nbuild-hook =  /b   c\n\
                    experimental-features = flakes\nextra-experimental-features = nix-command external-builders\n";
        let (_directory, settings) = settings(&[("etc/nix.conf", conf)], &[]);
        assert_eq!(text(&settings, "build-hook").as_deref(), Some("/b c"));
        assert_eq!(settings.words("experimental-features"), ["flakes", "nix-command", "external-builders"]);
        // `a=b` without blanks is what Nix refuses as well.
        assert_eq!(settings.problems.len(), 1);
        assert!(
            settings.problems[0].ends_with("nix.conf, line 4: not `name = value`"),
            "{:?}",
            settings.problems
        );
    }

    #[test]
    fn includes_are_followed_from_where_they_stand_and_only_plain_ones_must_be_there() {
        let (_directory, settings) = settings(
            &[
                ("etc/nix.conf", "include more/a.conf\n!include not-there.conf\ninclude missing.conf\n"),
                ("etc/more/a.conf", "include b.conf\n"),
                ("etc/more/b.conf", "build-hook = /from-b\n"),
            ],
            &[],
        );
        let value = settings.get("build-hook", |_| true).unwrap();
        assert_eq!(value.text, "/from-b");
        assert!(matches!(&value.origin, Origin::System(path) if path.ends_with("more/b.conf")));
        assert_eq!(settings.problems.len(), 1);
        assert!(settings.problems[0].contains("missing.conf can't be read"));
    }

    #[test]
    fn a_file_that_includes_itself_comes_to_an_end() {
        let (_directory, settings) =
            settings(&[("etc/nix.conf", "include nix.conf\nbuild-hook = /x\n")], &[]);
        assert_eq!(text(&settings, "build-hook").as_deref(), Some("/x"));
        assert!(settings.problems[0].contains("too many includes"));
    }

    #[test]
    fn the_environment_counts_more_than_users_and_users_more_than_the_system() {
        let files = [
            ("etc/nix.conf", "build-hook = /system\ncores = 1\nsandbox = true\n"),
            ("xdg/nix/nix.conf", "build-hook = /xdg\ncores = 2\n"),
            ("home/.config/nix/nix.conf", "build-hook = /home\n"),
        ];
        let (_first, settings) = settings(&files, &[]);
        assert_eq!(text(&settings, "build-hook").as_deref(), Some("/home"));
        assert_eq!(text(&settings, "cores").as_deref(), Some("2"));
        assert_eq!(text(&settings, "sandbox").as_deref(), Some("true"));
        let outside = settings.get("build-hook", |origin| !matches!(origin, Origin::User(_))).unwrap();
        assert_eq!(outside.text, "/system");
        let (_second, settings) =
            self::settings(&files, &[("NIX_CONFIG", "build-hook = /env\nsubstitute = false")]);
        let value = settings.get("build-hook", |_| true).unwrap();
        assert_eq!((value.text.as_str(), value.origin), ("/env", Origin::Environment));
    }
}
