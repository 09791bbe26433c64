//! The files of a package, below a directory that its maker then packs: programs, units, manual, completions. Nothing that
//! depends on a machine, and no record: a package manager has its own.

use std::path::Path;

use super::InstallError;
use super::files::Files;
use super::layout::{Layout, Pages, Wish};
use super::units::{self, Places};
use crate::config::{Config, DEFAULT_PATH, GuestKind};

/// Below the prefix.
const UNIT_DIRECTORY: &str = "lib/systemd/system";

/// Writes them.
pub fn write(root: &Path, prefix: &Path, running: &Path, pages: &Pages) -> Result<(), InstallError> {
    let files = Files::new(root.into());
    let layout = Layout::new(running, prefix, GuestKind::Darling, pages)?;
    let config = Config::default();
    let places =
        Places { program: &layout.program.clone(), config_file: Path::new(DEFAULT_PATH), config: &config };
    let units = units::render(places)?;
    let directory = prefix.join(UNIT_DIRECTORY);
    let units = units.into_iter().map(|(name, text)| Wish::text(directory.join(name), text));
    for wish in layout.into_wishes().into_iter().chain(units) {
        files.write(&wish.path, &wish.contents)?;
    }
    Ok(())
}
