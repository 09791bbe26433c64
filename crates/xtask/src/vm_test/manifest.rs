//! The files of a machine, to be compared: path, kind, mode, owner, and what a file or link holds.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What is not looked at: what the kernel makes, what every running system changes, and what Nix keeps of builds.
const LEFT_OUT: &[&str] = &[
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/tmp",
    "var/log",
    "var/lib/systemd",
    "var/lib/vm-test",
    "nix/store",
    "nix/var/nix/db",
    "nix/var/nix/temproots",
    // Builds that fail leave links there.
    "nix/var/nix/gcroots/auto",
    "nix/var/nix/gc.lock",
    "nix/var/nix/gc-socket",
    "nix/var/nix/daemon-socket",
    "nix/var/nix/userpool",
    "nix/var/log",
    // Where the payload is.
    "vm-test",
];

/// What Nix makes below a home directory or `/nix` when it is first used.
const OF_NIX: &[&str] = &[".cache", ".nix-profile", ".nix-defexpr", ".nix-channels", ".local"];

/// Every path with what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest(BTreeMap<PathBuf, String>);

impl Manifest {
    /// Everything below `root`, on whatever file system.
    pub fn of(root: &Path) -> Result<Self> {
        let mut manifest = Self::default();
        manifest.walk(root, root)?;
        Ok(manifest)
    }

    fn walk(&mut self, root: &Path, directory: &Path) -> Result<()> {
        for entry in
            fs::read_dir(directory).with_context(|| format!("failed to list {}", directory.display()))?
        {
            let path = entry?.path();
            let inside = path.strip_prefix(root)?;
            if LEFT_OUT.iter().any(|name| inside == Path::new(name)) || is_of_nix(inside) {
                continue;
            }
            let metadata = match fs::symlink_metadata(&path) {
                // Lists of the machine's own services change while we read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("failed to look at {}", path.display()))?,
            };
            let what = describe(&path, &metadata)?;
            self.0.insert(Path::new("/").join(inside), what);
            if metadata.is_dir() {
                self.walk(root, &path)?;
            }
        }
        Ok(())
    }

    /// A line for every path that `later` has not, has in addition, or has otherwise.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, before) in &self.0 {
            match later.0.get(path) {
                None => lines.push(format!("{} is gone ({before})", path.display())),
                Some(now) if now != before => lines.push(format!("{}: {before}, now {now}", path.display())),
                Some(_) => {}
            }
        }
        let new = later.0.iter().filter(|(path, _)| !self.0.contains_key(*path));
        lines.extend(new.map(|(path, what)| format!("{} is new ({what})", path.display())));
        lines
    }
}

fn is_of_nix(inside: &Path) -> bool {
    let name = inside.file_name().unwrap_or_default();
    let home = inside.starts_with("root") || inside.starts_with("home");
    home && OF_NIX.iter().any(|of_nix| name == *of_nix)
}

fn describe(path: &Path, metadata: &fs::Metadata) -> Result<String> {
    let kind = metadata.file_type();
    let owner = format!("{:04o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    Ok(if kind.is_symlink() {
        format!("link to {}", fs::read_link(path)?.display())
    } else if kind.is_dir() {
        format!("directory {owner}")
    } else if kind.is_file() {
        format!("file {owner}, {} bytes, {:016x}", metadata.len(), sum(path)?)
    } else if kind.is_socket() {
        format!("socket {owner}")
    } else {
        format!("special file {owner}")
    })
}

/// Tells two versions of a file apart; nobody forges here.
fn sum(path: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))?.hash(&mut hasher);
    path.as_os_str().as_bytes().hash(&mut hasher);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn tells_what_is_new_gone_or_changed_and_leaves_out_what_always_changes() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for directory in ["etc/nix", "var/log", "nix/store", "home/tester/.cache"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("etc/kept"), "1").unwrap();
        fs::write(at("etc/gone"), "1").unwrap();
        fs::write(at("etc/changed"), "1").unwrap();
        fs::write(at("etc/mode"), "1").unwrap();
        for file in ["etc/gone", "etc/mode"] {
            fs::set_permissions(at(file), fs::Permissions::from_mode(0o644)).unwrap();
        }
        symlink("kept", at("etc/link")).unwrap();
        let before = Manifest::of(root.path()).unwrap();
        assert_eq!(before.differences(&Manifest::of(root.path()).unwrap()), Vec::<String>::new());

        fs::remove_file(at("etc/gone")).unwrap();
        fs::write(at("etc/changed"), "2").unwrap();
        fs::set_permissions(at("etc/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(at("etc/link")).unwrap();
        symlink("changed", at("etc/link")).unwrap();
        fs::create_dir(at("etc/nix/new")).unwrap();
        for file in ["var/log/x", "nix/store/x", "home/tester/.cache/x"] {
            fs::write(at(file), "x").unwrap();
        }
        let lines = before.differences(&Manifest::of(root.path()).unwrap());
        let paths: Vec<_> = lines.iter().map(|line| line.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(paths, ["/etc/changed", "/etc/gone", "/etc/link", "/etc/mode", "/etc/nix/new"]);
        assert_eq!(lines[2], "/etc/link: link to kept, now link to changed");
        assert!(lines[1].starts_with("/etc/gone is gone (file 0644 "), "{}", lines[1]);
        assert!(lines[4].starts_with("/etc/nix/new is new (directory "), "{}", lines[4]);
    }
}
