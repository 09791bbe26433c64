//! Who may ask: root, members of Nix's build group, and uids named in the configuration.
//!
//! The kernel says who is at the other end of a Unix socket (SO_PEERCRED); nothing that the peer sends matters.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::config::Config;

/// Whoever has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whether `peer` may ask for builds; the reason if not.
pub(super) fn admit(peer: Peer, config: &Config) -> Result<(), String> {
    if peer.uid == 0 || config.allowed_uids.contains(&peer.uid) {
        return Ok(());
    }
    let group = Group::from_name(&config.build_group).ok().flatten().map(|group| group.gid);
    if let Some(group) = group
        && groups_of(peer).contains(&group)
    {
        return Ok(());
    }
    Err(format!(
        "uid {} is neither root nor a member of the group '{}'; add it to `allowed-uids` in the daemon's configuration \
         if it may build",
        peer.uid, config.build_group
    ))
}

fn groups_of(peer: Peer) -> Vec<Gid> {
    let primary = Gid::from_raw(peer.gid);
    let name =
        User::from_uid(Uid::from_raw(peer.uid)).ok().flatten().and_then(|user| CString::new(user.name).ok());
    match name {
        Some(name) => getgrouplist(&name, primary).unwrap_or_else(|_| vec![primary]),
        None => vec![primary],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_named_uids_are_admitted_and_others_refused_with_what_to_do() {
        let config = Config {
            allowed_uids: vec![1234],
            build_group: "no-such-group-at-all".into(),
            ..Config::default()
        };
        assert_eq!(admit(Peer { uid: 0, gid: 0 }, &config), Ok(()));
        assert_eq!(admit(Peer { uid: 1234, gid: 99 }, &config), Ok(()));
        insta::assert_snapshot!(
            admit(Peer { uid: 65534, gid: 65534 }, &config).unwrap_err(),
            @"uid 65534 is neither root nor a member of the group 'no-such-group-at-all'; add it to `allowed-uids` in the daemon's configuration if it may build"
        );
    }
}
