//! What is left of root's rights: in a slot's first process, and in what it starts.
//!
//! The same whoever started the daemon: under systemd the unit's `CapabilityBoundingSet` is this list as well.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// What a slot's first process uses, and Darling's launcher and server, which it starts as root.
pub const KEPT: [Capability; 13] = [
    // Mounts and namespaces: the slot's, and Darling's own overlay.
    Capability::CAP_SYS_ADMIN,
    // Entering the mount namespace that Darling makes (setns(2)).
    Capability::CAP_SYS_CHROOT,
    // The slot's interfaces.
    Capability::CAP_NET_ADMIN,
    // The slot's uid; Darling's launcher, which has it as its real one.
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    // What follows is given up by everything that is started.
    Capability::CAP_SETPCAP,
    // Files of the slot's uid.
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    // Processes of the slot's uid, and what is in /proc about them.
    Capability::CAP_KILL,
    Capability::CAP_SYS_PTRACE,
    // Darling raises its limit of open files.
    Capability::CAP_SYS_RESOURCE,
];

/// Those of [`KEPT`] that Darling's launcher has.
pub const OF_LAUNCHER: &[Capability] = &[
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_KILL,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_RESOURCE,
];

/// Gives up whatever is not in `kept`, here and in all that this process will ever start. Needs CAP_SETPCAP.
pub(super) fn keep(kept: &[Capability]) -> Result<(), CapsError> {
    pass_on(kept)?;
    let kept: CapsHashSet = kept.iter().copied().collect();
    let permitted = &caps::read(None, CapSet::Permitted)? & &kept;
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)
}

/// Passes nothing on that is not in `kept`: what this process has it keeps, until it changes its uids or executes. Needs CAP_SETPCAP.
pub(super) fn pass_on(kept: &[Capability]) -> Result<(), CapsError> {
    for capability in caps::all() {
        // A kernel that is older than the list knows no such capability, and nobody can have it.
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::clear(None, CapSet::Inheritable)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_slot_keeps_what_the_unit_leaves_the_daemon() {
        let units: toml::Value =
            toml::from_str(include_str!("../../../../units/darling-builder.toml")).unwrap();
        let unit: BTreeSet<&str> = units["service"]["Service"]["CapabilityBoundingSet"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let kept: Vec<String> = KEPT.iter().map(Capability::to_string).collect();
        assert_eq!(kept.iter().map(String::as_str).collect::<BTreeSet<_>>(), unit);
        assert!(OF_LAUNCHER.iter().all(|right| KEPT.contains(right)));
    }
}
