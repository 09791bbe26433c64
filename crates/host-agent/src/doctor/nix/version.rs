//! Which Nix, and what it can be asked to use.

use crate::nix::conf::version::{HookSetting, NixVersion};

/// A Nix, as `nix-store --version` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// What decides what it can do.
    pub(super) number: NixVersion,
    /// Whose it is, and its version, as it was told.
    pub(super) text: String,
}

impl Version {
    /// From lines such as `nix-store (Nix) 2.8.0`, `nix (Determinate Nix 3.8.4) 2.30.1` or `nix (Lix, like Nix) 2.93.0`, which
    /// warnings may precede.
    pub(super) fn parse(output: &str) -> Option<Self> {
        let line = output.lines().find(|line| line.starts_with("nix"))?;
        let (who, number) = line.split_once(" (")?.1.rsplit_once(") ")?;
        let text = format!("{} {}", who.trim_end_matches(", like Nix"), number.trim());
        Some(Self { number: line.parse().ok()?, text })
    }

    /// Whether `build-hook` in `/etc/nix/nix.conf` is ignored: the default is put back after the file is read.
    pub(super) fn ignores_hook_in_nix_conf(&self) -> bool {
        self.number.hook_setting() == HookSetting::NotNixConf
    }

    /// Whether it has a build hook that we can speak to.
    pub(super) fn has_hook(&self) -> bool {
        self.number.hook_setting() != HookSetting::Nowhere
    }

    /// Whether it has the setting `external-builders`.
    pub(super) fn has_external_builders(&self) -> bool {
        self.number.has_external_builders()
    }

    /// Name, number and front ends.
    pub(super) fn describe(&self) -> String {
        let can = match (self.has_hook(), self.has_external_builders()) {
            (true, true) => "build hook, external builders",
            (true, false) => "build hook",
            (false, _) => "none of our front ends",
        };
        format!("{}: {can}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_what_each_nix_can_use() {
        let lines = [
            "nix-store (Nix) 2.3.16",
            "nix-store (Nix) 2.8.0",
            "nix (Nix) 2.24.12",
            "nix (Nix) 2.26.3",
            "nix (Nix) 2.33.6",
            "nix (Nix) 2.34.8",
            "nix (Nix) 2.36.0pre20260101_abcdef0",
            "nix (Determinate Nix 3.8.4) 2.30.1",
            "nix (Lix, like Nix) 2.93.0",
            "nix (Lix, like Nix) 2.94.0",
        ];
        let told: Vec<String> = lines
            .iter()
            .map(|line| {
                let version = Version::parse(&format!("warning: something\n{line}\n")).unwrap();
                let ignores = if version.ignores_hook_in_nix_conf() { "; ignores nix.conf" } else { "" };
                version.describe() + ignores
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn other_output_is_no_version() {
        for output in ["", "nix", "nix-store (Nix) x", "bash 5.2", "nix-store (Nix) 2"] {
            assert_eq!(Version::parse(output), None, "{output}");
        }
    }
}
