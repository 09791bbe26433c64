//! What Nix checks of a local build's outputs and leaves to a hook: fixed hashes, allowed and disallowed references,
//! sizes, cycles.
//!
//! Wording as in Nix (`src/libstore/build/derivation-check.cc`), because tools read it; the hash mismatch as Nix prints
//! it, indentation included.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use super::attributes::{AttributeError, Attributes, strings};
use super::closure::{Closure, PathInfo};
use super::derivation::{Derivation, Output};
use super::text_encoding::base64;
use crate::request::{DigestAlgorithm, PreparedOutput};
use crate::store_path::StoreName;

/// What is wrong with an output.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckError {
    /// A fixed output has another hash.
    #[error(
        "hash mismatch in fixed-output derivation '{derivation}':\n         specified: {specified}\n            got:    {got}"
    )]
    HashMismatch {
        /// Absolute path of the derivation.
        derivation: String,
        /// The hash it must have.
        specified: String,
        /// The hash it has.
        got: String,
    },
    /// A fixed output refers to something.
    #[error(
        "fixed-output derivations must not reference store paths: '{derivation}' references {count} distinct paths, e.g. '{example}'"
    )]
    FixedReferences {
        /// Absolute path of the derivation.
        derivation: String,
        /// How many paths it refers to.
        count: usize,
        /// One of them.
        example: String,
    },
    /// Outputs refer to each other in a circle.
    #[error(
        "cycle detected in build of '{derivation}' in the references of output '{from}' from output '{to}'"
    )]
    Cycle {
        /// Absolute path of the derivation.
        derivation: String,
        /// Output whose references close the circle.
        from: String,
        /// Output that it refers to.
        to: String,
    },
    /// An output is too large.
    #[error("path '{path}' is too large at {size} bytes; limit is {limit} bytes")]
    TooLarge {
        /// The output.
        path: String,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// What an output reaches is too large.
    #[error("closure of path '{path}' is too large at {size} bytes; limit is {limit} bytes")]
    ClosureTooLarge {
        /// The output.
        path: String,
        /// Size of its closure.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// An output refers to what it may not.
    #[error("output '{path}' is not allowed to refer to the following paths:{}", .bad.iter().map(|path| format!("\n  {path}")).collect::<String>())]
    Disallowed {
        /// The output.
        path: String,
        /// What it refers to.
        bad: Vec<String>,
    },
    /// A list names neither a store path nor an output.
    #[error("derivation contains an illegal reference specifier '{0}'")]
    Specifier(String),
    /// An attribute is of the wrong type.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
}

/// What is checked of one output. An absent list checks nothing, an empty one of allowed paths allows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Checks {
    /// Requisites do not include the output itself.
    ignore_self: bool,
    max_size: Option<u64>,
    max_closure_size: Option<u64>,
    allowed_references: Option<Vec<Vec<u8>>>,
    allowed_requisites: Option<Vec<Vec<u8>>>,
    disallowed_references: Option<Vec<Vec<u8>>>,
    disallowed_requisites: Option<Vec<Vec<u8>>>,
}

impl Checks {
    /// For this output of the derivation.
    fn of(attributes: &Attributes, output: &str) -> Result<Self, AttributeError> {
        if let Attributes::Environment(_) = attributes {
            return Ok(Self {
                ignore_self: true,
                max_size: None,
                max_closure_size: None,
                allowed_references: attributes.strings("allowedReferences")?,
                allowed_requisites: attributes.strings("allowedRequisites")?,
                disallowed_references: attributes.strings("disallowedReferences")?,
                disallowed_requisites: attributes.strings("disallowedRequisites")?,
            });
        }
        let Some(checks) = attributes.structured("outputChecks").and_then(|all| all.get(output)) else {
            return Ok(Self::default());
        };
        let list = |name: &str| checks.get(name).map(|value| strings(value, name)).transpose();
        let number = |name: &str| match checks.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| AttributeError::Type {
                name: format!("outputChecks.{output}.{name}"),
                expected: "a whole number",
            }),
        };
        Ok(Self {
            ignore_self: false,
            max_size: number("maxSize")?,
            max_closure_size: number("maxClosureSize")?,
            allowed_references: list("allowedReferences")?,
            allowed_requisites: list("allowedRequisites")?,
            disallowed_references: list("disallowedReferences")?,
            disallowed_requisites: list("disallowedRequisites")?,
        })
    }

    fn needs_closure(&self) -> bool {
        self.max_closure_size.is_some()
            || self.allowed_requisites.is_some()
            || self.disallowed_requisites.is_some()
    }
}

/// Whether checking this derivation's outputs takes what the store knows of its inputs.
pub fn needs_closure(derivation: &Derivation) -> Result<bool, CheckError> {
    for name in derivation.outputs.keys() {
        if Checks::of(&derivation.attributes, name)?.needs_closure() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Drops the references of outputs for which the derivation says so (`unsafeDiscardReferences`, structured attributes
/// only).
pub fn discard_references(derivation: &Derivation, outputs: &mut [PreparedOutput]) -> Result<(), CheckError> {
    let Some(discarded) = derivation.attributes.structured("unsafeDiscardReferences") else { return Ok(()) };
    for output in outputs {
        match discarded.get(&output.name) {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => output.references.clear(),
            Some(_) => {
                let name = format!("unsafeDiscardReferences.{}", output.name);
                return Err(AttributeError::Type { name, expected: "a Boolean" }.into());
            }
        }
    }
    Ok(())
}

/// Checks all outputs that were built. `inputs` is needed only if [`needs_closure`] says so.
pub fn check_outputs(
    derivation: &Derivation,
    outputs: &[PreparedOutput],
    inputs: &Closure,
    store: &Path,
) -> Result<(), CheckError> {
    let absolute = |path: &StoreName| path.in_store(store).display().to_string();
    check_cycles(derivation, outputs, store)?;
    let mut known = inputs.clone();
    known.0.extend(outputs.iter().map(|output| {
        let info = PathInfo {
            nar_sha256: output.nar_sha256.to_vec(),
            nar_size: output.nar_size,
            references: output.references.iter().cloned().collect(),
        };
        (output.path.clone(), info)
    }));
    for output in outputs {
        check_fixed(derivation, output, store)?;
        let checks = Checks::of(&derivation.attributes, &output.name)?;
        if let Some(limit) = checks.max_size.filter(|limit| output.nar_size > *limit) {
            return Err(CheckError::TooLarge { path: absolute(&output.path), size: output.nar_size, limit });
        }
        if let Some(limit) = checks.max_closure_size {
            let size = known.size(&output.path);
            if size > limit {
                return Err(CheckError::ClosureTooLarge { path: absolute(&output.path), size, limit });
            }
        }
        let references: BTreeSet<_> = output.references.iter().cloned().collect();
        let mut requisites = known.reach([output.path.clone()]);
        if checks.ignore_self {
            requisites.remove(&output.path);
        }
        for (list, used, allowed) in [
            (&checks.allowed_references, &references, true),
            (&checks.allowed_requisites, &requisites, true),
            (&checks.disallowed_references, &references, false),
            (&checks.disallowed_requisites, &requisites, false),
        ] {
            let Some(list) = list else { continue };
            let named = specified(list, derivation, store)?;
            let bad: Vec<_> =
                used.iter().filter(|path| named.contains(*path) != allowed).map(absolute).collect();
            if !bad.is_empty() {
                return Err(CheckError::Disallowed { path: absolute(&output.path), bad });
            }
        }
    }
    Ok(())
}

/// The paths that a list names, directly or by output.
fn specified(
    list: &[Vec<u8>],
    derivation: &Derivation,
    store: &Path,
) -> Result<BTreeSet<StoreName>, CheckError> {
    list.iter()
        .map(|item| {
            let output = std::str::from_utf8(item).ok().and_then(|name| derivation.outputs.get(name));
            StoreName::from_path(store, item)
                .ok()
                .or_else(|| output.and_then(Output::path).cloned())
                .ok_or_else(|| CheckError::Specifier(item.escape_ascii().to_string()))
        })
        .collect()
}

fn check_fixed(derivation: &Derivation, output: &PreparedOutput, store: &Path) -> Result<(), CheckError> {
    let Some(Output::Fixed { digest, expected, .. }) = derivation.outputs.get(&output.name) else {
        return Ok(());
    };
    let path = || derivation.path.in_store(store).display().to_string();
    let got: &[u8] = output.digest.as_deref().unwrap_or_default();
    if got != expected {
        return Err(CheckError::HashMismatch {
            derivation: path(),
            specified: sri(digest.algorithm, expected),
            got: sri(digest.algorithm, got),
        });
    }
    match output.references.first() {
        None => Ok(()),
        Some(example) => Err(CheckError::FixedReferences {
            derivation: path(),
            count: output.references.len(),
            example: example.in_store(store).display().to_string(),
        }),
    }
}

fn sri(algorithm: DigestAlgorithm, digest: &[u8]) -> String {
    format!("{}-{}", algorithm.as_str(), base64(digest))
}

/// Refuses circles between outputs; a reference to oneself is none. New Nix would register them.
fn check_cycles(derivation: &Derivation, outputs: &[PreparedOutput], store: &Path) -> Result<(), CheckError> {
    let by_path: BTreeMap<_, _> = outputs.iter().map(|output| (&output.path, output)).collect();
    let mut done = BTreeSet::new();
    for start in outputs {
        // Depth first; `trail` holds each output on the way and the references of it that are still to follow.
        let mut trail = vec![(start, start.references.iter())];
        while let Some((output, references)) = trail.last_mut() {
            let output = *output;
            let next = references
                .filter(|path| **path != output.path && !done.contains(*path))
                .find_map(|path| by_path.get(path).copied());
            match next {
                None => {
                    done.insert(&output.path);
                    trail.pop();
                }
                Some(next) if trail.iter().any(|(above, _)| above.path == next.path) => {
                    return Err(CheckError::Cycle {
                        derivation: derivation.path.in_store(store).display().to_string(),
                        from: output.name.clone(),
                        to: next.name.clone(),
                    });
                }
                Some(next) => trail.push((next, next.references.iter())),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
