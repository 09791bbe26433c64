//! Tests of installing into a directory that stands for a machine's root: what is said, what is there afterwards, and that
//! uninstalling leaves the tree as it was, to the byte.

mod removing;
mod staging;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::nix_settings::NixSettings;
use super::plan::{self, Wanted};
use super::{InstallError, Plan, carry_out, layout, removal, show, systemd};
use crate::config::GuestKind;
use crate::nix::conf::proposal::{self, Proposal};

/// A machine with Nix and an unpacked archive of ours.
struct Machine {
    directory: tempfile::TempDir,
    pages: layout::Pages,
    guest: Option<GuestKind>,
    prefix: PathBuf,
    systemd: Option<systemd::State>,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Self {
            directory,
            pages: vec![("share/man/man1/host-agent.1".into(), b"a manual page".to_vec())],
            guest: Some(GuestKind::Linux),
            prefix: "/usr/local".into(),
            systemd: None,
        };
        machine.put("root/etc/nix/nix.conf", "build-users-group = nixbld");
        fs::create_dir_all(machine.at("root/usr/local/bin")).unwrap();
        machine.release("one");
        machine
    }

    /// The archive is this release's.
    fn release(&self, release: &str) {
        for name in ["host-agent", "darwin-agent", "darwin-agent-macho"] {
            let path = format!("archive/{name}");
            self.put(&path, &format!("{name} of release {release}"));
            fs::set_permissions(self.at(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn root(&self) -> PathBuf {
        self.at("root")
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn plan(&self) -> Result<Plan, InstallError> {
        let (root, running) = (self.root(), self.at("archive/host-agent"));
        let wanted = Wanted {
            root: &root,
            running: &running,
            prefix: &self.prefix,
            guest: self.guest,
            pages: &self.pages,
            systemd: self.systemd,
        };
        plan::plan(&wanted, |config, program| {
            let wanted = proposal::Wanted {
                front_end: None,
                program: program.into(),
                hook: program.with_file_name(crate::cli::HOOK_NAME),
                config: None,
                systems: config.systems.clone(),
            };
            let proposal = Proposal::new("2.34.8".parse().unwrap(), &wanted).unwrap();
            Ok(Some(NixSettings::told(&self.root(), Path::new("/etc/nix"), proposal)))
        })
    }

    fn removal(&self) -> Option<Plan> {
        let nix = NixSettings::forgotten(&self.root(), Path::new("/etc/nix"));
        removal::plan(&self.root(), nix, self.systemd, false).unwrap()
    }

    /// Carries it out, and returns what was told.
    fn carry_out(&self, plan: &Plan) -> String {
        let mut told = String::new();
        carry_out::carry_out(plan, &self.root(), &mut |line| told.push_str(&format!("{line}\n"))).unwrap();
        self.shorten(&(told + &show::notes(&plan.notes)))
    }

    fn install(&self) -> String {
        self.carry_out(&self.plan().unwrap())
    }

    fn uninstall(&self) -> String {
        self.carry_out(&self.removal().unwrap())
    }

    /// Without the temporary directory's name.
    fn shorten(&self, text: &str) -> String {
        text.replace(self.directory.path().to_str().unwrap(), "")
    }

    /// Everything below the root: kind, mode, owner, and contents or target.
    fn listing(&self) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut ahead = vec![self.root()];
        while let Some(path) = ahead.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let contents = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path, (metadata.mode(), metadata.uid(), contents));
        }
        found
    }

    fn names(&self) -> String {
        self.listing()
            .into_iter()
            .map(|(path, (mode, ..))| format!("{mode:06o} {}\n", self.shorten(path.to_str().unwrap())))
            .collect()
    }
}
