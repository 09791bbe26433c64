//! Placeholders: text that stands for an output's path until a build knows it.
//!
//! `builtins.placeholder "out"` may occur in an ordinary derivation too, so every builder's environment, arguments and
//! files go through here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::derivation::Output;
use super::text_encoding::nix_base32;

/// The placeholder of an output (Nix `hashPlaceholder`): 53 bytes, starting with `/`.
pub fn of_output(name: &str) -> String {
    format!("/{}", nix_base32(&Sha256::digest(format!("nix-output:{name}"))))
}

/// A derivation's placeholders, and what they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placeholders(Vec<(String, Vec<u8>)>);

impl Placeholders {
    /// For all outputs whose paths are known.
    pub fn new(store: &Path, outputs: &BTreeMap<String, Output>) -> Self {
        use std::os::unix::ffi::OsStringExt;
        let replacement =
            |path: &crate::store_path::StoreName| path.in_store(store).into_os_string().into_vec();
        let known =
            outputs.iter().filter_map(|(name, output)| Some((of_output(name), replacement(output.path()?))));
        Self(known.collect())
    }

    /// `text` with every placeholder replaced; a copy only if there is one.
    pub fn replace<'a>(&self, text: impl Into<Cow<'a, [u8]>>) -> Cow<'a, [u8]> {
        let mut text = text.into();
        for (placeholder, path) in &self.0 {
            let found: Vec<usize> = memchr::memmem::find_iter(&text, placeholder).collect();
            if found.is_empty() {
                continue;
            }
            let mut replaced = Vec::with_capacity(text.len());
            let mut end = 0;
            for start in found {
                replaced.extend_from_slice(&text[end..start]);
                replaced.extend_from_slice(path);
                end = start + placeholder.len();
            }
            replaced.extend_from_slice(&text[end..]);
            text = Cow::Owned(replaced);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_path::StoreName;

    #[test]
    fn out_has_the_placeholder_that_nix_gives_it() {
        assert_eq!(of_output("out"), "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9");
    }

    #[test]
    fn replaces_every_occurrence_and_nothing_else() {
        let path = |name: &str| StoreName::parse(format!("{}-{name}", "a".repeat(32)).as_bytes()).unwrap();
        let outputs = BTreeMap::from([
            ("dev".to_owned(), Output::InputAddressed(path("x-dev"))),
            ("out".to_owned(), Output::InputAddressed(path("x"))),
            ("unknown".to_owned(), Output::Floating),
        ]);
        let placeholders = Placeholders::new(Path::new("/nix/store"), &outputs);
        let text =
            format!("{0}/bin:{1}:{0}\u{fffd}{2}", of_output("out"), of_output("dev"), of_output("unknown"));
        let replaced = placeholders.replace(text.as_bytes());
        let (out, dev) =
            (path("x").in_store(Path::new("/nix/store")), path("x-dev").in_store(Path::new("/nix/store")));
        let expected =
            format!("{0}/bin:{1}:{0}\u{fffd}{2}", out.display(), dev.display(), of_output("unknown"));
        assert_eq!(replaced, expected.as_bytes());
        assert!(matches!(placeholders.replace(&b"nothing"[..]), Cow::Borrowed(_)));
    }
}
