//! A new prefix, before Darling sees it: the directories and accounts that its launcher would put into one.
//!
//! Made here because the launcher has the server give every directory of Darling's own tree to the user, one copy into the
//! overlay each: a sixth of a second for each boot, and system directories that a builder can write to.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;

use crate::slot::root::set_mode;

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

/// Makes the prefix for this uid and gid, in the slot's root.
pub(super) fn make(prefix: &Path, id: u32) -> io::Result<()> {
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
    for (name, contents) in accounts(id) {
        let path = prefix.join("private/etc").join(name);
        fs::write(&path, contents)?;
        set_mode(&path, 0o644)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
