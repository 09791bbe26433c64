//! Derivations that are known to be non-deterministic, in a TOML file, each with the reason.
//!
//! ```toml
//! [[known]]
//! name = "python3-*"      # of the derivation, without hash and `.drv`; `*` stands for anything
//! files = ["lib/*.pyc"]   # only these may differ; left out: everything
//! reason = "byte code holds the time of its source"
//! ```

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use super::tree_difference::Difference;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownList {
    #[serde(default)]
    known: Vec<Known>,
}

/// One entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    name: String,
    files: Option<Vec<String>>,
    reason: String,
}

/// Why there is no list.
#[derive(Debug, Error)]
pub enum KnownError {
    /// It can't be read.
    #[error("failed to read {path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is not such a list.
    #[error("failed to understand {path}: {problem}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl KnownList {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, KnownError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| KnownError::Read { path: path.into(), error })?;
        Self::parse(&text).map_err(|problem| KnownError::Parse { path: path.into(), problem })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let list: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        match list.known.iter().find(|known| known.reason.trim().is_empty()) {
            Some(known) => Err(format!("the entry '{}' has no reason", known.name)),
            None => Ok(list),
        }
    }

    /// The reason why a derivation of this name may differ in these ways. None of the differences may be a file that its
    /// entry does not name; no differences at all stand for one that could not be looked at.
    pub fn reason(&self, name: &str, differences: &[&Difference]) -> Option<&str> {
        let covers = |known: &&Known| {
            glob(known.name.as_bytes(), name.as_bytes())
                && known.files.as_ref().is_none_or(|files| {
                    !differences.is_empty()
                        && differences.iter().all(|difference| {
                            files.iter().any(|file| glob(file.as_bytes(), &difference.path))
                        })
                })
        };
        self.known.iter().find(covers).map(|known| known.reason.as_str())
    }
}

/// Whether `text` is of the form `pattern`, in which `*` stands for any bytes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, t));
                p += 1;
            }
            (Some(byte), _) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::super::tree_difference::Kind;
    use super::*;

    const LIST: &str = r#"
        [[known]]
        name = "clock-*"
        reason = "writes the time"
        [[known]]
        name = "python3-*"
        files = ["lib/*.pyc"]
        reason = "byte code holds times"
    "#;

    fn difference(path: &str) -> Difference {
        Difference { path: path.into(), kind: Kind::OnlyFirst }
    }

    #[test]
    fn a_name_alone_covers_everything() {
        let list = KnownList::parse(LIST).unwrap();
        assert_eq!(list.reason("clock-1.0", &[&difference("bin/x")]), Some("writes the time"));
        assert_eq!(list.reason("clock-1.0", &[]), Some("writes the time"));
        assert_eq!(list.reason("o-clock-1.0", &[]), None);
    }

    #[test]
    fn files_cover_nothing_else() {
        let list = KnownList::parse(LIST).unwrap();
        let (pyc, program) = (difference("lib/a/b.pyc"), difference("bin/python3"));
        assert_eq!(list.reason("python3-3.12", &[&pyc]), Some("byte code holds times"));
        assert_eq!(list.reason("python3-3.12", &[&pyc, &program]), None);
        assert_eq!(list.reason("python3-3.12", &[]), None);
    }

    #[test]
    fn an_entry_needs_a_reason() {
        insta::assert_snapshot!(
            KnownList::parse("[[known]]\nname = \"x\"\nreason = \" \"\n").unwrap_err(),
            @"the entry 'x' has no reason"
        );
        assert!(KnownList::parse("[[known]]\nname = \"x\"\n").is_err());
        assert!(KnownList::parse("[[known]]\nname = \"x\"\nreason = \"y\"\nwhy = 1\n").is_err());
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbcd", false),
            ("*a*b", "xaxxab", true),
            ("a", "ab", false),
            ("", "", true),
            ("**", "x", true),
            ("a*", "ba", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), is, "{pattern} {text}");
        }
    }
}
