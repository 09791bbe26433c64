//! A new prefix, before Darling sees it: the directories and accounts that its launcher would put into one.
//!
//! Made here because the launcher has the server give every directory of Darling's own tree to the user, one copy into the
//! overlay each: a sixth of a second for each boot, and system directories that a builder can write to.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;

use crate::request::BUILD_DIR;
use crate::slot::root::set_mode;
use crate::ssh::login;

/// What the launcher makes, and what else must be writable. Parents first.
const DIRECTORIES: [&str; 20] = [
    "",
    "Volumes",
    "Applications",
    "usr",
    "usr/local",
    "usr/local/share",
    "private",
    "private/tmp",
    "private/var",
    "private/var/log",
    "private/var/db",
    "private/var/root",
    "private/var/run",
    "private/var/tmp",
    "private/etc",
    "private/etc/ssh",
    "var",
    "var/run",
    "var/tmp",
    "var/log",
];

/// Of these, the ones that are Darling's system, which builders only read.
const SYSTEM: [&str; 3] = ["usr", "private", "private/etc"];

/// What a slot with a way out has of the host's, and Darling's programs look for in the prefix. Darling's own tree names resolvers of its
/// makers' choice.
const NETWORK_FILES: [&str; 2] = ["hosts", "resolv.conf"];

/// Makes the prefix for this uid and gid, in the slot's root; with accounts to log in to if `login`, else a build's.
pub(super) fn make(prefix: &Path, id: u32, login: bool) -> io::Result<()> {
    for directory in DIRECTORIES {
        let path = prefix.join(directory);
        DirBuilder::new().mode(0o755).create(&path)?;
        if !SYSTEM.contains(&directory) {
            chown(&path, Some(id), Some(id))?;
        }
    }
    for shared in ["private/tmp", "private/var/tmp", "var/tmp"] {
        set_mode(&prefix.join(shared), 0o1777)?;
    }
    for (name, contents) in if login { login_accounts(id) } else { accounts(id) } {
        let path = prefix.join("private/etc").join(name);
        fs::write(&path, contents)?;
        set_mode(&path, 0o644)?;
    }
    Ok(())
}

/// Has them looked up as the slot does whose `/etc` this is.
pub(super) fn look_up_as(etc: &Path, prefix: &Path) -> io::Result<()> {
    for name in NETWORK_FILES {
        let path = prefix.join("private/etc").join(name);
        // Not every host has every file.
        if let Ok(contents) = fs::read(etc.join(name)) {
            fs::write(&path, contents)?;
            set_mode(&path, 0o644)?;
        }
    }
    Ok(())
}

/// The build user has the slot's uid. Darling's own programs look up root first.
fn accounts(id: u32) -> [(&'static str, String); 3] {
    [
        (
            "passwd",
            format!(
                "root:*:0:0:System Administrator:/var/root:/bin/sh\n\
                 nixbld:*:{id}:{id}:Nix build user:/Users/nixbld:/bin/bash\n"
            ),
        ),
        (
            "master.passwd",
            format!(
                "root:*:0:0::0:0:System Administrator:/var/root:/bin/sh\n\
                 nixbld:*:{id}:{id}::0:0:Nix build user:/Users/nixbld:/bin/bash\n"
            ),
        ),
        ("group", format!("wheel:*:0:root,nixbld\nnixbld:*:{id}:nixbld\n")),
    ]
}

/// Whoever logs in has the slot's uid, also as root: `sshd` runs with that one and can't become another.
fn login_accounts(id: u32) -> [(&'static str, String); 3] {
    let lines = |entry: &dyn Fn(&str) -> String| login::USERS.iter().map(|user| entry(user)).collect();
    [
        ("passwd", lines(&|user| format!("{user}:*:{id}:{id}:{user}:{BUILD_DIR}:/bin/bash\n"))),
        ("master.passwd", lines(&|user| format!("{user}:*:{id}:{id}::0:0:{user}:{BUILD_DIR}:/bin/bash\n"))),
        ("group", format!("wheel:*:0:{users}\nbuilder:*:{id}:{users}\n", users = login::USERS.join(","))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_as_outside() {
        let directory = tempfile::tempdir().unwrap();
        let prefix = directory.path().join("prefix");
        fs::create_dir_all(prefix.join("private/etc")).unwrap();
        fs::write(directory.path().join("resolv.conf"), "nameserver 169.254.1.1\n").unwrap();
        look_up_as(directory.path(), &prefix).unwrap();
        let found = fs::read_to_string(prefix.join("private/etc/resolv.conf")).unwrap();
        assert_eq!(found, "nameserver 169.254.1.1\n");
        assert!(!prefix.join("private/etc/hosts").exists());
    }

    #[test]
    fn accounts_to_log_in_to_are_all_the_slots_uid() {
        let all: Vec<String> = login_accounts(2_000_000_000)
            .into_iter()
            .map(|(name, text)| format!("{name}:\n{text}"))
            .collect();
        insta::assert_snapshot!(all.join(""), @"
        passwd:
        builder:*:2000000000:2000000000:builder:/build:/bin/bash
        root:*:2000000000:2000000000:root:/build:/bin/bash
        master.passwd:
        builder:*:2000000000:2000000000::0:0:builder:/build:/bin/bash
        root:*:2000000000:2000000000::0:0:root:/build:/bin/bash
        group:
        wheel:*:0:builder,root
        builder:*:2000000000:builder,root
        ");
    }

    #[test]
    fn accounts_are_those_of_the_build_user() {
        let all: Vec<String> =
            accounts(2_000_000_000).into_iter().map(|(name, text)| format!("{name}:\n{text}")).collect();
        insta::assert_snapshot!(all.join(""), @"
        passwd:
        root:*:0:0:System Administrator:/var/root:/bin/sh
        nixbld:*:2000000000:2000000000:Nix build user:/Users/nixbld:/bin/bash
        master.passwd:
        root:*:0:0::0:0:System Administrator:/var/root:/bin/sh
        nixbld:*:2000000000:2000000000::0:0:Nix build user:/Users/nixbld:/bin/bash
        group:
        wheel:*:0:root,nixbld
        nixbld:*:2000000000:nixbld
        ");
    }

    #[test]
    fn every_directory_comes_after_its_parent() {
        for (index, directory) in DIRECTORIES.iter().enumerate() {
            if let Some((parent, _)) = directory.rsplit_once('/') {
                assert!(DIRECTORIES[..index].contains(&parent), "{directory}");
            }
        }
        assert!(SYSTEM.iter().all(|directory| DIRECTORIES.contains(directory)));
    }
}
