//! From what the user names to a derivation.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::nix::store_command::{NixProgram, StoreCommandError, answer};

const STORE: &str = "/nix/store";

/// Why something is no derivation.
#[derive(Debug, Error)]
pub enum InstallableError {
    /// Nix does not understand it.
    #[error("failed to find the derivation of '{installable}': {error}", installable = installable.display())]
    Nix {
        /// As given.
        installable: OsString,
        /// Nix's words.
        error: StoreCommandError,
    },
    /// Nix does not know.
    #[error(
        "failed to find the derivation of '{installable}': the store does not have it; name the .drv file, which `nix-instantiate` \
         or `nix path-info --derivation` makes", installable = .0.display()
    )]
    NoDeriver(OsString),
}

/// The derivations that `installable` stands for.
///
/// It is a `.drv` file (also `.drv!out`, `.drv^out`: all outputs are built again anyway); a path in the store or a link
/// to one, whose derivation the store knows; an attribute of `file`, if there is one; or whatever `nix path-info
/// --derivation` understands.
pub fn derivations(
    nix: &NixProgram,
    installable: &OsStr,
    file: Option<&Path>,
) -> Result<Vec<PathBuf>, InstallableError> {
    if let Some(derivation) = derivation_file(installable) {
        return Ok(vec![derivation]);
    }
    let nix_error = |error| InstallableError::Nix { installable: installable.into(), error };
    let no_deriver = || InstallableError::NoDeriver(installable.into());
    let path = Path::new(installable).canonicalize().ok();
    let object = path.as_deref().and_then(store_object);
    let text = match (file, object) {
        (Some(file), _) => {
            let mut command = nix.command("nix-instantiate");
            answer("nix-instantiate", {
                command.arg(file).arg("-A").arg(installable);
                command
            })
        }
        (None, Some(object)) => {
            let mut command = nix.command("nix-store");
            answer("nix-store", {
                command.args(["--query", "--deriver"]).arg(object);
                command
            })
        }
        (None, None) => {
            let mut command = nix.command("nix");
            command.args(["--extra-experimental-features", "nix-command flakes"]);
            answer("nix", {
                command.args(["path-info", "--derivation"]).arg(installable);
                command
            })
        }
    };
    let found = lines(&text.map_err(nix_error)?);
    let known = found.iter().all(|path| derivation_file(path.as_os_str()).is_some() && path.exists());
    if found.is_empty() || !known {
        return Err(no_deriver());
    }
    Ok(found)
}

fn derivation_file(installable: &OsStr) -> Option<PathBuf> {
    let bytes = installable.as_bytes();
    let end = bytes.iter().position(|byte| b"!^".contains(byte)).unwrap_or(bytes.len());
    let bytes = &bytes[..end];
    let is = bytes.starts_with(STORE.as_bytes()) && bytes.ends_with(b".drv");
    is.then(|| PathBuf::from(OsStr::from_bytes(bytes)))
}

/// `/nix/store/name` of a path below it.
fn store_object(path: &Path) -> Option<PathBuf> {
    let name = path.strip_prefix(STORE).ok()?.components().next()?;
    Some(Path::new(STORE).join(name))
}

/// The paths in an answer of Nix's, a line each; `nix-instantiate` may append `!output`.
fn lines(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| match derivation_file(OsStr::from_bytes(line)) {
            Some(derivation) => derivation,
            None => PathBuf::from(OsString::from_vec(line.to_vec())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivation_file_is_taken_as_it_is_without_its_outputs() {
        for text in ["/nix/store/abc-x.drv", "/nix/store/abc-x.drv!out", "/nix/store/abc-x.drv^out,dev"] {
            assert_eq!(derivation_file(OsStr::new(text)), Some("/nix/store/abc-x.drv".into()));
        }
        for text in ["/nix/store/abc-x", "x.drv", "nixpkgs#hello"] {
            assert_eq!(derivation_file(OsStr::new(text)), None, "{text}");
        }
    }

    #[test]
    fn a_path_inside_a_store_object_stands_for_the_object() {
        assert_eq!(store_object(Path::new("/nix/store/abc-x/bin/x")), Some("/nix/store/abc-x".into()));
        assert_eq!(store_object(Path::new("/nix/store")), None);
        assert_eq!(store_object(Path::new("/home")), None);
    }
}
