//! What came of one derivation.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::diffoscope;
use super::known::KnownList;
use super::rebuild::{Attempt, Rebuild, Rebuilt};
use super::tree_difference::{self, Difference};

/// One derivation and its verdict.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The `.drv` file.
    pub derivation: PathBuf,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// The same bytes.
    Match,
    /// Not the same.
    Mismatch(Mismatch),
    /// Not the same, and it is known why.
    Known {
        /// Why.
        reason: String,
        /// What differs.
        #[serde(flatten)]
        mismatch: Mismatch,
    },
    /// A build failed.
    BuildFailure {
        /// `true`: it could be built once, but not again.
        again: bool,
        /// The end of what was printed.
        message: String,
    },
    /// It could not be built again here, so nothing is known.
    NotCompared {
        /// Why.
        reason: String,
    },
}

/// Two results of one derivation.
#[derive(Debug, Default, Serialize)]
pub struct Mismatch {
    /// What the store has.
    pub first: Option<PathBuf>,
    /// What was built now; kept until garbage is collected.
    pub second: Option<PathBuf>,
    /// Entries that differ.
    pub differences: Vec<Difference>,
    /// What diffoscope says.
    pub diffoscope: Option<String>,
    /// What could not be looked at.
    pub problem: Option<String>,
}

/// Judges one derivation; with `diffoscope`, asks that about a mismatch.
pub fn judge(rebuild: &Rebuild<'_>, known: &KnownList, derivation: &Path, diffoscope: bool) -> Judged {
    let verdict = match rebuild.run(derivation) {
        Ok(Rebuilt::Same) => Verdict::Match,
        Ok(Rebuilt::Differs(paths)) => differs(known, derivation, paths, diffoscope),
        Ok(Rebuilt::Failed(attempt, message)) => {
            Verdict::BuildFailure { again: attempt == Attempt::Second, message }
        }
        Ok(Rebuilt::NotRebuilt(reason)) => Verdict::NotCompared { reason },
        Err(error) => Verdict::NotCompared { reason: error.to_string() },
    };
    Judged { derivation: derivation.into(), verdict }
}

fn differs(
    known: &KnownList,
    derivation: &Path,
    paths: Option<(PathBuf, PathBuf)>,
    diffoscope: bool,
) -> Verdict {
    let mut mismatch = Mismatch::default();
    match paths {
        Some((first, second)) => {
            match tree_difference::differences(&first, &second) {
                Ok(differences) => mismatch.differences = differences,
                Err(error) => mismatch.problem = Some(error.to_string()),
            }
            if diffoscope {
                mismatch.diffoscope = diffoscope::report(&first, &second);
            }
            (mismatch.first, mismatch.second) = (Some(first), Some(second));
        }
        None => mismatch.problem = Some("Nix has not kept what was built now".into()),
    }
    let differences: Vec<_> = mismatch.differences.iter().collect();
    match known.reason(derivation_name(derivation), &differences) {
        Some(reason) => Verdict::Known { reason: reason.to_owned(), mismatch },
        None => Verdict::Mismatch(mismatch),
    }
}

/// `hello-1.0` of `/nix/store/<32 characters>-hello-1.0.drv`.
fn derivation_name(derivation: &Path) -> &str {
    let name = derivation.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".drv").unwrap_or(name);
    name.split_once('-').map_or(name, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_without_hash_and_suffix() {
        let path = Path::new("/nix/store/0c6fdckjcpd2wkbgzp1lnhaiz8m7gr5j-python3-3.12.drv");
        assert_eq!(derivation_name(path), "python3-3.12");
    }
}
