//! Whether an output's contents are known beforehand: only such a builder sees the network.
//!
//! `build.json` does not say, and what its environment says anybody can write. But a fixed output's path follows from
//! its hash and name, so a claim is proven by computing the path: under it, Nix registers nothing with another hash.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::nix::attributes::Attributes;
use crate::nix::text_encoding::{from_base64, from_hex, from_nix_base32, hex, nix_base32};
use crate::request::{DigestAlgorithm, DigestMethod};
use crate::store_path::StoreName;

/// What there is to say of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixedOutput {
    /// It claims no hash.
    No,
    /// Its output is where its hash says.
    Proven,
    /// It claims a hash, which does not lead to its output; why.
    Unproven(&'static str),
}

impl FixedOutput {
    /// Compares claim and path.
    pub fn of(attributes: &Attributes, outputs: &BTreeMap<String, StoreName>, store: &Path) -> Self {
        let Some(hash) = attributes.text("outputHash").filter(|hash| !hash.is_empty()) else {
            return Self::No;
        };
        let (Some(output), 1) = (outputs.get("out"), outputs.len()) else {
            return Self::Unproven("it has other outputs than one called 'out'");
        };
        let mode = attributes.text("outputHashMode");
        let method = match mode.as_deref() {
            None | Some(b"flat") => DigestMethod::Flat,
            Some(b"recursive" | b"nar") => DigestMethod::Recursive,
            Some(_) => return Self::Unproven("its outputHashMode is neither 'flat' nor 'recursive'"),
        };
        let Some((algorithm, digest)) = parse_hash(&hash, attributes.text("outputHashAlgo")) else {
            return Self::Unproven("its outputHash is not a hash of its outputHashAlgo");
        };
        let expected = hash_part(store, output.name(), algorithm, method, &digest);
        if output.hash_part() == expected {
            Self::Proven
        } else {
            Self::Unproven(
                "its output is not at the path that its hash gives (so it is when Nix makes a valid one again to compare)",
            )
        }
    }
}

const ALGORITHMS: [DigestAlgorithm; 4] =
    [DigestAlgorithm::Md5, DigestAlgorithm::Sha1, DigestAlgorithm::Sha256, DigestAlgorithm::Sha512];

/// A hash in any of the forms that Nix takes (`newHashAllowEmpty`, Nix `src/libutil/hash.cc`): `algorithm-base64`,
/// `algorithm:digits`, or digits of the algorithm named elsewhere.
fn parse_hash(text: &[u8], algorithm: Option<Cow<'_, [u8]>>) -> Option<(DigestAlgorithm, Vec<u8>)> {
    let named = |name: &[u8]| ALGORITHMS.into_iter().find(|algorithm| algorithm.as_str().as_bytes() == name);
    let elsewhere = match algorithm.as_deref() {
        None | Some(b"") => None,
        Some(name) => Some(named(name)?),
    };
    let agrees = |algorithm| elsewhere.is_none_or(|elsewhere| elsewhere == algorithm).then_some(algorithm);
    let prefix = |separator: u8| {
        let at = text.iter().position(|byte| *byte == separator)?;
        Some((agrees(named(&text[..at])?)?, &text[at + 1..]))
    };
    let fits = |algorithm: DigestAlgorithm| move |digest: &Vec<u8>| digest.len() == algorithm.len();
    if let Some((algorithm, digits)) = prefix(b'-') {
        return from_base64(digits).filter(fits(algorithm)).map(|digest| (algorithm, digest));
    }
    let (algorithm, digits) = match prefix(b':') {
        Some(found) => found,
        None => (elsewhere?, text),
    };
    let bytes = algorithm.len();
    let digest = if digits.len() == bytes * 2 {
        from_hex(digits)
    } else if digits.len() == (bytes * 8).div_ceil(5) {
        from_nix_base32(digits)
    } else if digits.len() == bytes.div_ceil(3) * 4 {
        from_base64(digits)
    } else {
        None
    };
    digest.filter(fits(algorithm)).map(|digest| (algorithm, digest))
}

/// The hash part of a fixed output's path (Nix `makeFixedOutputPath`, `src/libstore/store-api.cc`): a recursive SHA-256
/// is named directly, everything else through one more hash.
fn hash_part(
    store: &Path,
    name: &str,
    algorithm: DigestAlgorithm,
    method: DigestMethod,
    digest: &[u8],
) -> String {
    let (kind, inner) = match (method, algorithm) {
        (DigestMethod::Recursive, DigestAlgorithm::Sha256) => ("source", hex(digest)),
        (method, algorithm) => {
            let recursive = if method == DigestMethod::Recursive { "r:" } else { "" };
            let text = format!("fixed:out:{recursive}{}:{}:", algorithm.as_str(), hex(digest));
            ("output:out", hex(&Sha256::digest(text)))
        }
    };
    let mut fingerprint = format!("{kind}:sha256:{inner}:").into_bytes();
    fingerprint.extend_from_slice(store.as_os_str().as_bytes());
    fingerprint.extend_from_slice(format!(":{name}").as_bytes());
    let mut compressed = [0; 20];
    for (index, byte) in Sha256::digest(fingerprint).iter().enumerate() {
        compressed[index % 20] ^= byte;
    }
    nix_base32(&compressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "hello\n", in the ways that Nix writes its hash.
    const HELLO: [&str; 4] = [
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq",
        "sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=",
        "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    ];

    fn judge(pairs: &[(&str, &str)], output: &str) -> FixedOutput {
        let environment =
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let attributes = Attributes::Environment(environment.collect());
        let outputs = BTreeMap::from([("out".to_owned(), StoreName::parse(output.as_bytes()).unwrap())]);
        FixedOutput::of(&attributes, &outputs, Path::new("/nix/store"))
    }

    // What `nix-store --print-fixed-path` of Nix 2.34.8 says.
    const FLAT: &str = "8zv8i345w2xn27jrxj4cyjc6x3b4am1q-hello";
    const RECURSIVE: &str = "h49ab8arnrvi4xz30rdbxgfh6jh5gda1-hello";
    const FLAT_SHA1: &str = "032avhrrgjp8441c41iid7ywc92j4z76-hello";

    #[test]
    fn every_form_of_a_hash_leads_to_the_path_that_nix_gives_it() {
        for hash in HELLO {
            assert_eq!(
                judge(&[("outputHash", hash), ("outputHashAlgo", "sha256")], FLAT),
                FixedOutput::Proven
            );
            let mode = ("outputHashMode", "recursive");
            assert_eq!(
                judge(&[("outputHash", hash), ("outputHashAlgo", "sha256"), mode], RECURSIVE),
                FixedOutput::Proven
            );
        }
        for hash in &HELLO[2..] {
            assert_eq!(judge(&[("outputHash", hash)], FLAT), FixedOutput::Proven);
            assert_eq!(judge(&[("outputHash", hash), ("outputHashAlgo", "")], FLAT), FixedOutput::Proven);
        }
        let sha1 = ("outputHash", "f572d396fae9206628714fb2ce00f72e94f2258f");
        assert_eq!(judge(&[sha1, ("outputHashAlgo", "sha1")], FLAT_SHA1), FixedOutput::Proven);
    }

    #[test]
    fn a_claim_that_does_not_lead_to_the_output_is_not_believed() {
        let unproven =
            |pairs: &[(&str, &str)], output: &str| matches!(judge(pairs, output), FixedOutput::Unproven(_));
        let (hash, algorithm) = (("outputHash", HELLO[0]), ("outputHashAlgo", "sha256"));
        assert!(unproven(&[hash, algorithm], RECURSIVE));
        assert!(unproven(&[hash, algorithm], &format!("{}-other", &FLAT[..32])));
        assert!(unproven(&[hash], FLAT));
        assert!(unproven(&[hash, ("outputHashAlgo", "sha512")], FLAT));
        assert!(unproven(&[("outputHash", HELLO[2]), ("outputHashAlgo", "sha1")], FLAT));
        assert!(unproven(&[hash, algorithm, ("outputHashMode", "text")], FLAT));
        assert!(unproven(&[("outputHash", "sha256-????"), algorithm], FLAT));
        assert_eq!(judge(&[algorithm], FLAT), FixedOutput::No);
    }
}
