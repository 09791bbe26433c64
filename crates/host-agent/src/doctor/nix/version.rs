//! Which Nix, and what it can be asked to use.

/// A version of Nix, as `nix-store --version` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// `Nix`, `Lix`, `Determinate Nix`.
    pub(super) flavour: Flavour,
    /// Major and minor number.
    pub(super) number: (u32, u32),
    /// As it was told.
    pub(super) text: String,
}

/// Whose Nix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Nix,
    Determinate,
    Lix,
}

impl Flavour {
    fn as_str(self) -> &'static str {
        match self {
            Flavour::Nix => "Nix",
            Flavour::Determinate => "Determinate Nix",
            Flavour::Lix => "Lix",
        }
    }
}

impl Version {
    /// From lines such as `nix-store (Nix) 2.8.0`, `nix (Determinate Nix 3.8.4) 2.30.1` or `nix (Lix, like Nix) 2.93.0`.
    pub(super) fn parse(output: &str) -> Option<Self> {
        let line = output.lines().find(|line| line.starts_with("nix"))?;
        let (who, text) = line.rsplit_once(") ")?;
        let flavour = match who {
            who if who.contains("Lix") => Flavour::Lix,
            who if who.contains("Determinate") => Flavour::Determinate,
            _ => Flavour::Nix,
        };
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
        let number = (numbers.next()??, numbers.next()??);
        Some(Self { flavour, number, text: text.trim().to_owned() })
    }

    /// Whether `build-hook` in `/etc/nix/nix.conf` is ignored: the default is put back after the file is read (2.25.0 to
    /// 2.33.6).
    pub(super) fn ignores_hook_in_nix_conf(&self) -> bool {
        self.flavour != Flavour::Lix && ((2, 25)..=(2, 33)).contains(&self.number)
    }

    /// The build hook's protocol; Lix 2.94 and later have another one.
    pub(super) fn has_hook(&self) -> bool {
        match self.flavour {
            Flavour::Lix => self.number < (2, 94),
            _ => self.number >= (2, 3),
        }
    }

    /// The setting `external-builders`: Nix 2.32 and later, not Lix.
    pub(super) fn has_external_builders(&self) -> bool {
        self.flavour != Flavour::Lix && self.number >= (2, 32)
    }

    /// Name, number and front ends.
    pub(super) fn describe(&self) -> String {
        let can = match (self.has_hook(), self.has_external_builders()) {
            (true, true) => "build hook, external builders",
            (true, false) => "build hook",
            (false, _) => "none of our front ends",
        };
        format!("{} {}: {can}", self.flavour.as_str(), self.text)
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
