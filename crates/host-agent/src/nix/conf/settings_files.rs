//! What the user's own configuration says: `nix.conf` files with what they include, and units of systemd's.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::tree::{Tree, TreeError};

/// Files that one file may include, by and by.
const FILES_MAX: usize = 100;

/// Where systemd looks for units that an administrator or a package has put there.
const UNIT_DIRECTORIES: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

const UNIT: &str = "nix-daemon.service";

/// One setting where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name.
    pub name: String,
    /// Value, with single blanks between its words.
    pub value: String,
    /// The place.
    pub place: Place,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)
    }
}

/// The settings of `file` and of the files it includes, in the order in which Nix reads them.
///
/// As Nix parses them: `#` ends a line wherever it stands, words are split at blanks, `include` and `!include` take one
/// path, relative to the including file. Lines that Nix would complain about are passed over.
pub fn settings(tree: &Tree, file: &Path) -> Result<Vec<Setting>, TreeError> {
    let mut found = Vec::new();
    read(tree, file, &mut BTreeSet::new(), &mut found)?;
    Ok(found)
}

fn read(
    tree: &Tree,
    file: &Path,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<Setting>,
) -> Result<(), TreeError> {
    if seen.len() >= FILES_MAX || !seen.insert(file.into()) {
        return Ok(());
    }
    let Some(text) = tree.read(file)? else { return Ok(()) };
    for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["include" | "!include", path] => {
                read(tree, &file.parent().unwrap_or(Path::new("/")).join(path), seen, found)?;
            }
            [name, "=", value @ ..] => found.push(Setting {
                name: (*name).into(),
                value: value.join(" "),
                place: Place { file: file.into(), line: index + 1 },
            }),
            _ => {}
        }
    }
    Ok(())
}

/// Whether systemd runs here and knows a unit for nix-daemon.
pub fn systemd_runs_nix_daemon(tree: &Tree) -> Result<bool, TreeError> {
    if !tree.exists(Path::new("/run/systemd/system"))? {
        return Ok(false);
    }
    for directory in UNIT_DIRECTORIES {
        if tree.exists(&Path::new(directory).join(UNIT))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lines of nix-daemon's unit and of its drop-ins that speak of `NIX_CONFIG`; its value with `\n` between settings.
pub fn nix_config_in_units(tree: &Tree) -> Result<Vec<Setting>, TreeError> {
    let mut found = Vec::new();
    for directory in UNIT_DIRECTORIES {
        let mut files = vec![Path::new(directory).join(UNIT)];
        files.extend(tree.list(&Path::new(directory).join(format!("{UNIT}.d")))?);
        for file in files {
            let Some(text) = tree.read(&file)? else { continue };
            for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
                let comment = line.trim_start().starts_with(['#', ';']);
                let Some((_, value)) = line.split_once("NIX_CONFIG=").filter(|_| !comment) else { continue };
                found.push(Setting {
                    name: "NIX_CONFIG".into(),
                    value: value.into(),
                    place: Place { file: file.clone(), line: index + 1 },
                });
            }
        }
    }
    Ok(found)
}
