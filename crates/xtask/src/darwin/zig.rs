//! The linker: `zig cc`, which brings stubs of libSystem for macOS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::install;
use crate::progress;

/// The version from PyPI that was tried; it writes classic dyld information, which Darling's dyld loads.
const PACKAGE: &str = "ziglang==0.17.1";

/// A zig: the given one, or one that was fetched before, or one fetched now into `directory`.
pub fn find(given: Option<&Path>, directory: &Path) -> Result<PathBuf> {
    if let Some(zig) = given {
        ensure!(works(zig), "{} does not run: --zig takes the path of the program zig", zig.display());
        return Ok(zig.to_owned());
    }
    let environment = directory.join("zig");
    if let Some(zig) = fetched(&environment) {
        return Ok(zig);
    }
    progress(&format!("fetching {PACKAGE} (about 100 MB) from PyPI into {} …", environment.display()));
    if !make_environment(&environment) {
        install::apt(&["python3-venv"], "python3 can't make a virtual environment")?;
        ensure!(make_environment(&environment), "failed to run python3 -m venv {}", environment.display());
    }
    let installed = Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", PACKAGE])
        .stdin(Stdio::null())
        .status()
        .context("failed to run pip")?;
    ensure!(installed.success(), "failed to fetch {PACKAGE}; give the path of a zig with --zig");
    fetched(&environment)
        .with_context(|| format!("{PACKAGE} holds no zig that runs here; give one with --zig"))
}

fn make_environment(environment: &Path) -> bool {
    Command::new("python3")
        .args(["-m", "venv"])
        .arg(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// zig in a virtual environment, whichever version of Python made it.
fn fetched(environment: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(environment.join("lib")).ok()?;
    pythons
        .flatten()
        .map(|python| python.path().join("site-packages/ziglang/zig"))
        .find(|zig| zig.is_file() && works(zig))
}

fn works(zig: &Path) -> bool {
    let version = Command::new(zig).arg("version").stdin(Stdio::null()).output();
    version.is_ok_and(|output| output.status.success())
}

/// A program that links as rustc expects a linker to.
pub fn linker(zig: &Path, directory: &Path) -> Result<PathBuf> {
    let path = directory.join("linker");
    let script = script(zig, &directory.join("zig-cache"));
    fs::write(&path, script).with_context(|| format!("failed to write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// The libc crate asks for -liconv, which zig has no stub for and nothing here uses. -s strips, because rustc would
/// need a program for it that Debian's lacks.
fn script(zig: &Path, cache: &Path) -> String {
    format!(
        "#!/bin/sh\n\
         # Made by `cargo xtask darwin`.\n\
         for argument; do\n    \
             shift\n    \
             [ \"$argument\" = -liconv ] || set -- \"$@\" \"$argument\"\n\
         done\n\
         export ZIG_GLOBAL_CACHE_DIR={}\n\
         exec {} cc -target x86_64-macos.11.0 -s \"$@\"\n",
        quoted(cache),
        quoted(zig),
    )
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_every_argument_but_iconv() {
        let directory = tempfile::tempdir().unwrap();
        let zig = directory.path().join("it's zig");
        fs::write(&zig, "#!/bin/sh\nprintf '<%s>' \"$@\"\n").unwrap();
        fs::set_permissions(&zig, fs::Permissions::from_mode(0o755)).unwrap();
        let linker = linker(&zig, directory.path()).unwrap();
        let output = Command::new(linker).args(["a b", "-liconv", "", "-lSystem", "*"]).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "<cc><-target><x86_64-macos.11.0><-s><a b><><-lSystem><*>"
        );
    }

    #[test]
    fn refuses_a_given_zig_that_does_not_run() {
        let error = find(Some(Path::new("/no/such/zig")), Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.to_string(), "/no/such/zig does not run: --zig takes the path of the program zig");
    }
}
