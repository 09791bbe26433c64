//! What a builder finds around it: environment, arguments and files in the build directory.
//!
//! Equal to what Nix's local builder gives (Nix `src/libstore/build/local-derivation-goal.cc` 2.8,
//! `src/libstore/unix/build/derivation-builder.cc` 2.34), in Nix's order: later entries replace earlier ones, so a
//! derivation may set `HOME` but not `TMPDIR`.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::ByteString;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::attributes::{AttributeError, Attributes, words};
use super::derivation::Derivation;
use super::placeholder::Placeholders;
use super::settings::Settings;
use super::structured_attrs;
use super::text_encoding::nix_base32;
use crate::request::{BUILD_DIR, BuildFile};

/// Generations of Nix that differ in what a builder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 2.3: attribute files are numbered, and no variable names the structured attributes' files.
    Nix23,
    /// 2.4 and later.
    Current,
}

/// What of the building Nix goes into a builder's environment.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The store directory.
    pub store: &'a Path,
    /// Nix's settings.
    pub settings: &'a Settings,
    /// CPUs of this machine.
    pub cpus: usize,
    /// Which Nix it is.
    pub dialect: Dialect,
    /// Values for `impureEnvVars`: the environment of the Nix that builds, which is the hook's own.
    pub inherited: fn(&[u8]) -> Option<Vec<u8>>,
}

/// Exported references graphs, in the form that the derivation's attributes call for.
#[derive(Debug, Default)]
pub struct ExportedGraphs {
    /// Files for plain attributes.
    pub files: Vec<(String, Vec<u8>)>,
    /// Entries for structured attributes.
    pub values: Vec<(String, Value)>,
}

/// A builder's environment and files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    files: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The value of a variable in this process's environment.
pub fn own_variable(name: &[u8]) -> Option<Vec<u8>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    // An empty name or one with `=` would make `var_os` panic or mean another variable.
    let usable = !name.is_empty() && !name.contains(&b'=') && !name.contains(&0);
    usable.then(|| std::env::var_os(std::ffi::OsStr::from_bytes(name)).map(OsStringExt::into_vec)).flatten()
}

impl Environment {
    /// For this derivation, placeholders not yet replaced.
    pub fn new(
        derivation: &Derivation,
        graphs: ExportedGraphs,
        around: &Surroundings<'_>,
    ) -> Result<Self, AttributeError> {
        let mut this = Self::default();
        this.set("PATH", "/path-not-set");
        this.set("HOME", "/homeless-shelter");
        this.set("NIX_STORE", around.store.display().to_string());
        let cores = match around.settings.cores {
            0 => around.cpus,
            cores => cores as usize,
        };
        this.set("NIX_BUILD_CORES", cores.to_string());
        match &derivation.attributes {
            Attributes::Environment(environment) => this.add_plain(environment, graphs.files, around.dialect),
            Attributes::Structured(object) => {
                let object = structured_attrs::complete(object, derivation.outputs.keys(), graphs.values);
                this.add_file_variable(
                    "NIX_ATTRS_SH_FILE",
                    structured_attrs::SHELL_FILE,
                    structured_attrs::shell(&object),
                );
                this.add_file_variable(
                    "NIX_ATTRS_JSON_FILE",
                    structured_attrs::JSON_FILE,
                    structured_attrs::json(&object),
                );
                if around.dialect == Dialect::Nix23 {
                    this.variables.retain(|name, _| !name.starts_with(b"NIX_ATTRS_"));
                }
            }
        }
        for name in ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
            this.set(name, BUILD_DIR);
        }
        if derivation.is_fixed() {
            this.set("NIX_OUTPUT_CHECKED", "1");
            for name in derivation.attributes.strings("impureEnvVars")?.unwrap_or_default() {
                let value = around.settings.impure_env.get(&name).cloned();
                let value = value.or_else(|| (around.inherited)(&name)).unwrap_or_default();
                this.variables.insert(name, value);
            }
        }
        this.set("NIX_LOG_FD", "2");
        this.set("TERM", "xterm-256color");
        Ok(this)
    }

    /// The environment of the builder, sorted by name.
    pub fn variables(&self, placeholders: &Placeholders) -> Vec<(ByteString, ByteString)> {
        let replaced = |text: &[u8]| ByteString::from(placeholders.replace(text).into_owned());
        self.variables.iter().map(|(name, value)| (replaced(name), replaced(value))).collect()
    }

    /// The files in its build directory, sorted by name.
    pub fn files(self, placeholders: &Placeholders) -> Vec<BuildFile> {
        let file = |(name, contents): (Vec<u8>, Vec<u8>)| BuildFile {
            name: name.into(),
            contents: placeholders.replace(contents).into_owned().into(),
        };
        self.files.into_iter().map(file).collect()
    }

    fn add_plain(
        &mut self,
        environment: &BTreeMap<Vec<u8>, Vec<u8>>,
        graphs: Vec<(String, Vec<u8>)>,
        dialect: Dialect,
    ) {
        let as_file: Vec<&[u8]> =
            environment.get(b"passAsFile".as_slice()).map(|names| words(names).collect()).unwrap_or_default();
        let mut number = 0;
        for (name, value) in environment {
            if !as_file.contains(&name.as_slice()) {
                self.variables.insert(name.clone(), value.clone());
                continue;
            }
            let file = match dialect {
                Dialect::Current => format!(".attr-{}", nix_base32(&Sha256::digest(name))),
                Dialect::Nix23 => format!(".attr-{number}"),
            };
            number += 1;
            let variable = [name.as_slice(), b"Path"].concat();
            self.variables.insert(variable, format!("{BUILD_DIR}/{file}").into_bytes());
            self.files.insert(file.into_bytes(), value.clone());
        }
        self.files.extend(graphs.into_iter().map(|(name, contents)| (name.into_bytes(), contents)));
    }

    fn add_file_variable(&mut self, variable: &str, file: &str, contents: Vec<u8>) {
        self.set(variable, format!("{BUILD_DIR}/{file}"));
        self.files.insert(file.into(), contents);
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.into(), value.into().into_bytes());
    }
}

#[cfg(test)]
mod tests;
