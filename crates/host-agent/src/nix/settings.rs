//! The settings block: the first thing that Nix tells a hook.
//!
//! Every setting that Nix knows (91 in 2.8, 122 in 2.34; Lix 2.93 sends only those that were changed), as text. Unknown
//! names are kept for a hook that we may chain to and are otherwise ignored. Values may be secrets (`access-tokens`),
//! so nothing here shows one: errors name the setting only, and `Debug` prints names.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::time::Duration;

use thiserror::Error;

use super::wire::{self, WireError, WireReader};

/// Most settings; Nix has about 120.
const COUNT_MAX: usize = 4096;
/// Longest name, bytes; Nix's longest has 38.
const NAME_MAX: u64 = 1 << 10;
/// Longest value, bytes. Lists of keys, hosts or builders can be long, but a value comes from a configuration file
/// that a person keeps or from one environment variable (at most 128 KiB on Linux).
const VALUE_MAX: u64 = 16 << 20;
/// Most bytes of all values together.
const TOTAL_MAX: usize = 64 << 20;

/// Where Nix looks for machines unless told otherwise.
pub const DEFAULT_BUILDERS: &str = "@/etc/nix/machines";

/// What the hook uses of Nix's settings, and all of them as they came.
#[derive(Clone)]
pub struct Settings {
    /// CPUs for a builder; 0 means all.
    pub cores: u32,
    /// Most time that a builder may run.
    pub timeout: Option<Duration>,
    /// Most time that a builder may be silent.
    pub max_silent_time: Option<Duration>,
    /// Most bytes that a builder may print.
    pub max_build_log_size: Option<u64>,
    /// Keep the build directory of a failed build.
    pub keep_failed: bool,
    /// The store that Nix builds for, e.g. `auto` or `daemon`.
    pub store: String,
    /// Machines that Nix's own hook may use; empty means none.
    pub builders: String,
    /// Values for `impureEnvVars` that come before those of the hook's own environment (Nix 2.19 and later).
    pub impure_env: BTreeMap<Vec<u8>, Vec<u8>>,
    raw: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why the settings could not be read.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The framing broke.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A value is not of the setting's type.
    #[error("setting '{name}' is not {expected}")]
    Value {
        /// Name of the setting.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl Settings {
    /// Reads the block.
    pub fn read<R: Read>(reader: &mut WireReader<R>) -> Result<Self, SettingsError> {
        let mut raw = Vec::new();
        let mut total = 0;
        while reader.integer("settings")? != 0 {
            let name = reader.string(NAME_MAX, "name of a setting")?;
            let value = reader.string(VALUE_MAX, "value of a setting")?;
            total += name.len() + value.len();
            if total > TOTAL_MAX {
                return Err(WireError::TooLong {
                    what: "settings",
                    length: total as u64,
                    limit: TOTAL_MAX as u64,
                }
                .into());
            }
            raw.push((name, value));
            if raw.len() > COUNT_MAX {
                return Err(WireError::TooMany {
                    what: "settings",
                    count: raw.len() as u64,
                    limit: COUNT_MAX as u64,
                }
                .into());
            }
        }
        Self::from_raw(raw)
    }

    /// Understands what is used of them; a setting that is absent has Nix's default.
    fn from_raw(raw: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, SettingsError> {
        let values = Values(&raw);
        let some = |value: u64| (value > 0).then_some(value);
        Ok(Self {
            cores: u32::try_from(values.number("cores")?).unwrap_or(u32::MAX),
            timeout: some(values.number("timeout")?).map(Duration::from_secs),
            max_silent_time: some(values.number("max-silent-time")?).map(Duration::from_secs),
            max_build_log_size: some(values.number("max-build-log-size")?),
            keep_failed: values.flag("keep-failed")?,
            store: values.text("store", "auto")?,
            builders: values.text("builders", DEFAULT_BUILDERS)?,
            impure_env: values.pairs("impure-env"),
            raw,
        })
    }

    /// The block again, for the hook that we chain to.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in &self.raw {
            wire::put_integer(&mut block, 1);
            wire::put_string(&mut block, name);
            wire::put_string(&mut block, value);
        }
        wire::put_integer(&mut block, 0);
        block
    }

    /// Settings as if Nix had sent just these.
    #[cfg(test)]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self::from_raw(
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
        )
        .unwrap()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.raw.iter().map(|(name, _)| name.escape_ascii().to_string());
        f.debug_tuple("Settings").field(&names.collect::<Vec<_>>()).finish()
    }
}

struct Values<'a>(&'a [(Vec<u8>, Vec<u8>)]);

impl<'a> Values<'a> {
    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &'static str, default: &str) -> Result<String, SettingsError> {
        match self.get(name) {
            None => Ok(default.to_owned()),
            Some(value) => String::from_utf8(value.to_vec())
                .map_err(|_| SettingsError::Value { name, expected: "text in UTF-8" }),
        }
    }

    fn number(&self, name: &'static str) -> Result<u64, SettingsError> {
        let text = self.text(name, "0")?;
        text.trim().parse().map_err(|_| SettingsError::Value { name, expected: "a whole number" })
    }

    fn flag(&self, name: &'static str) -> Result<bool, SettingsError> {
        match self.get(name) {
            None | Some(b"false") => Ok(false),
            Some(b"true") => Ok(true),
            Some(_) => Err(SettingsError::Value { name, expected: "'true' or 'false'" }),
        }
    }

    /// `name=value` separated by blanks; what has no `=` is ignored, as Nix does.
    fn pairs(&self, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut pairs = BTreeMap::new();
        for pair in super::attributes::words(self.get(name).unwrap_or_default()) {
            if let Some(split) = pair.iter().position(|byte| *byte == b'=') {
                pairs.entry(pair[..split].to_vec()).or_insert_with(|| pair[split + 1..].to_vec());
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
        Settings::of(pairs).encode()
    }

    #[test]
    fn reads_the_first_entry_that_nix_2_8_sends() {
        let mut captured = b"\x01\0\0\0\0\0\0\0\
            \x13\0\0\0\0\0\0\0accept-flake-config\0\0\0\0\0\
            \x05\0\0\0\0\0\0\0false\0\0\0"
            .to_vec();
        captured.extend_from_slice(&[0; 8]);
        let settings = Settings::read(&mut WireReader::new(&captured[..])).unwrap();
        insta::assert_snapshot!(format!("{settings:?}"), @r#"Settings(["accept-flake-config"])"#);
        assert_eq!(settings.encode(), captured);
    }

    #[test]
    fn understands_what_it_uses_and_keeps_the_rest() {
        let bytes = block(&[
            ("access-tokens", "github.com=secret"),
            ("cores", "3"),
            ("impure-env", "http_proxy=http://proxy:1 nonsense https_proxy=a=b"),
            ("keep-failed", "true"),
            ("max-build-log-size", "1000"),
            ("max-silent-time", "0"),
            ("timeout", "60"),
            ("unheard-of", ""),
        ]);
        let settings = Settings::read(&mut WireReader::new(&bytes[..])).unwrap();
        assert_eq!(settings.cores, 3);
        assert_eq!(settings.timeout, Some(Duration::from_secs(60)));
        assert_eq!(settings.max_silent_time, None);
        assert_eq!(settings.max_build_log_size, Some(1000));
        assert!(settings.keep_failed);
        assert_eq!((settings.store.as_str(), settings.builders.as_str()), ("auto", DEFAULT_BUILDERS));
        assert_eq!(settings.impure_env[b"https_proxy".as_slice()], b"a=b");
        assert_eq!(settings.encode(), bytes);
    }

    #[test]
    fn shows_no_value_in_errors_or_debug_output() {
        let bytes = block(&[("access-tokens", "hunter2")]);
        let settings = Settings::read(&mut WireReader::new(&bytes[..])).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        let error = Settings::from_raw(vec![(b"timeout".to_vec(), b"hunter2".to_vec())]).unwrap_err();
        insta::assert_snapshot!(error, @"setting 'timeout' is not a whole number");
    }

    #[test]
    fn refuses_a_block_without_end() {
        let bytes = block(&[("cores", "1")]);
        let error = Settings::read(&mut WireReader::new(&bytes[..bytes.len() - 8])).unwrap_err();
        insta::assert_snapshot!(error, @"input ended in the middle of settings");
    }
}
