//! The stages: what each is for, what it needs and how long it may take.
//!
//! A stage uses what a user has: the command line, Nix, ssh, systemd. None depends on another having run, except that the
//! builder must be up.

use anyhow::{Result, bail};

use super::machine::Machine;
use super::stages;
use crate::world::Guest;

/// One stage.
pub struct Stage {
    /// From 1.
    pub number: u8,
    /// One word.
    pub name: &'static str,
    /// What it shows.
    pub purpose: &'static str,
    /// What it can't do without.
    pub needs: &'static [Need],
    /// Seconds that it may take on an ordinary machine.
    pub limit: u64,
    /// Does it. An error is why it failed.
    pub run: fn(&mut Machine) -> Result<()>,
    /// What comes after `run` with a reset of the machine in between, where it can be reset.
    pub across_reset: Option<AcrossReset>,
    /// Breaks something that the stage must notice.
    pub sabotage: Sabotage,
}

/// A part of a stage with a reset of the machine in its middle.
pub struct AcrossReset {
    /// Before; what it returns is kept for `after`.
    pub before: fn(&mut Machine) -> Result<String>,
    /// After.
    pub after: fn(&mut Machine, &str) -> Result<()>,
}

/// What `--break` does.
pub struct Sabotage {
    /// For people.
    pub what: &'static str,
    /// Does it.
    pub act: fn(&mut Machine) -> Result<()>,
}

/// What a stage can't do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Darling as the guest.
    Darling,
    /// The listener for ssh, switched on in the configuration.
    Ssh,
    /// Sources and compiler for a package.
    PackageSources,
}

impl Need {
    /// Why the machine has it not, if so.
    pub fn missing(self, machine: &Machine) -> Result<Option<String>> {
        let missing = match self {
            Need::Darling if machine.plan.guest != Guest::Darling => {
                Some("needs Darling; this machine has the stand-in guest".to_owned())
            }
            Need::Ssh if machine.ssh()?.is_none() => {
                Some("ssh is not switched on (`[ssh] enable` in the configuration)".to_owned())
            }
            Need::PackageSources if !machine.plan.payload.join("toolchain").is_dir() => {
                Some("the machine was given no compiler and no sources".to_owned())
            }
            _ => None,
        };
        Ok(missing)
    }
}

/// All stages, in the order in which they run.
pub const STAGES: [Stage; 12] = [
    stages::boot::STAGE,
    stages::keys::STAGE,
    stages::prefix::STAGE,
    stages::agent::STAGE,
    stages::sshd::STAGE,
    stages::registration::STAGE,
    stages::store::STAGE,
    stages::build::STAGE,
    stages::log::STAGE,
    stages::failures::STAGE,
    stages::recovery::STAGE,
    stages::package::STAGE,
];

/// The stage with this number.
pub fn by_number(number: u8) -> Result<&'static Stage> {
    static ALL: [Stage; 12] = STAGES;
    match ALL.iter().find(|stage| stage.number == number) {
        Some(stage) => Ok(stage),
        None => bail!("there is no stage {number}; there are 1 to {}", ALL.len()),
    }
}

/// 1, 2, …
pub fn all_numbers() -> Vec<u8> {
    STAGES.iter().map(|stage| stage.number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_are_numbered_in_their_order() {
        assert_eq!(all_numbers(), (1..=12).collect::<Vec<u8>>());
    }

    #[test]
    fn the_page_lists_every_stage_as_it_is() {
        let page = include_str!("../../../../docs/vm-test.md");
        for stage in STAGES {
            let row = format!("| {} {} | {} |", stage.number, stage.name, stage.purpose);
            assert!(page.contains(&row), "docs/vm-test.md has no row: {row}");
            assert!(
                page.contains(stage.sabotage.what),
                "docs/vm-test.md does not say: {}",
                stage.sabotage.what
            );
        }
    }

    #[test]
    fn a_stage_that_is_not_there_is_named() {
        assert_eq!(by_number(13).err().unwrap().to_string(), "there is no stage 13; there are 1 to 12");
    }
}
