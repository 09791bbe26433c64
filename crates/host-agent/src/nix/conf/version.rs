//! What a version of Nix can do for us.
//!
//! The boundaries are those of the releases: `external-builders` came with 2.32.0; from 2.25.0 to 2.33 the default of
//! `build-hook` is put back after `nix.conf` has been read, so that the setting has no effect there.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A version of Nix, or of Lix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NixVersion {
    /// 2 so far.
    pub major: u32,
    /// What tells releases apart.
    pub minor: u32,
    /// It is Lix, which counts on from 2.90 by itself.
    pub lix: bool,
}

/// Where a Nix takes `build-hook` from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookSetting {
    /// From `nix.conf`, like every setting.
    NixConf,
    /// From everywhere but `nix.conf`.
    NotNixConf,
    /// It has no hook that we can speak to.
    Nowhere,
}

/// A text has no version in it.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("failed to find a version in '{0}'; it looks like 2.34.8")]
pub struct VersionError(String);

impl NixVersion {
    /// Whether the setting `external-builders` exists.
    pub fn has_external_builders(self) -> bool {
        !self.lix && self.at_least(2, 32)
    }

    /// Whether `--rebuild` and `--check` reach external builders: 2.33 alone builds locally then, or fails.
    pub fn rebuilds_through_external_builders(self) -> bool {
        self.has_external_builders() && (self.major, self.minor) != (2, 33)
    }

    /// Whether it takes no more than 64 levels of directories, or had better not: see [`crate::nix::depth`].
    pub fn limits_depth(self) -> bool {
        if self.lix { self.at_least(2, 93) } else { self.at_least(2, 24) }
    }

    /// Where `build-hook` is read from.
    pub fn hook_setting(self) -> HookSetting {
        if !self.at_least(2, 3) || (self.lix && self.at_least(2, 94)) {
            HookSetting::Nowhere
        } else if !self.lix && self.at_least(2, 25) && !self.at_least(2, 34) {
            HookSetting::NotNixConf
        } else {
            HookSetting::NixConf
        }
    }

    fn at_least(self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }
}

impl fmt::Display for NixVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.lix { "Lix" } else { "Nix" };
        write!(f, "{name} {}.{}", self.major, self.minor)
    }
}

/// From `2.34.8`, or from all that `nix --version` prints, such as `nix (Lix, like Nix) 2.93.1`.
impl FromStr for NixVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let text = text.trim();
        let number = text.rsplit([' ', '-']).find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let mut parts = number.unwrap_or_default().split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => {
                Ok(Self { major, minor, lix: text.to_ascii_lowercase().contains("lix") })
            }
            _ => Err(VersionError(text.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> NixVersion {
        text.parse().unwrap()
    }

    #[test]
    fn reads_what_the_programs_print() {
        for (text, shown) in [
            ("2.34.8", "Nix 2.34"),
            ("nix-store (Nix) 2.8.0\n", "Nix 2.8"),
            ("nix (Nix) 2.36pre20260822_88b09c6", "Nix 2.36"),
            ("nix (Lix, like Nix) 2.93.1", "Lix 2.93"),
            ("nix (Determinate Nix 3.11.2) 2.31.1", "Nix 2.31"),
            ("lix-2.94", "Lix 2.94"),
        ] {
            assert_eq!(version(text).to_string(), shown);
        }
        for text in ["", "nix", "2", "two.three"] {
            assert!(text.parse::<NixVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn knows_where_each_reads_the_hook_from() {
        use HookSetting::{NixConf, NotNixConf, Nowhere};
        for (text, setting) in [
            ("2.2", Nowhere),
            ("2.3.16", NixConf),
            ("2.24.9", NixConf),
            ("2.25.0", NotNixConf),
            ("2.33.6", NotNixConf),
            ("2.34.0", NixConf),
            ("lix-2.90", NixConf),
            ("lix-2.94", Nowhere),
        ] {
            assert_eq!(version(text).hook_setting(), setting, "{text}");
        }
    }

    #[test]
    fn knows_which_take_no_deep_trees() {
        for (text, limits) in
            [("2.8.0", false), ("2.23.3", false), ("2.24.4", true), ("2.34.8", true), ("2.36pre1", true)]
        {
            assert_eq!(version(text).limits_depth(), limits, "{text}");
        }
        assert!(!version("lix-2.92").limits_depth() && version("lix-2.93").limits_depth());
    }

    #[test]
    fn knows_which_have_external_builders() {
        for (text, has, rebuilds) in [
            ("2.31.5", false, false),
            ("2.32.0", true, true),
            ("2.33.1", true, false),
            ("2.34.8", true, true),
            ("lix-2.93", false, false),
        ] {
            assert_eq!(version(text).has_external_builders(), has, "{text}");
            assert_eq!(version(text).rebuilds_through_external_builders(), rebuilds, "{text}");
        }
    }
}
