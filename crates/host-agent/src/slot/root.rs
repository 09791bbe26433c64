//! The minimal root that a slot sees instead of the host's: built on a tmpfs, then pivoted to.
//!
//! Only what a guest needs is there. Nothing of the host can be reached afterwards but through mounts made here; the
//! store's source is mounted as well, read-only, but covered, so that only the descriptor returned leads to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root, sethostname};
use thiserror::Error;

use super::plan::{BootPlan, SlotNetwork};
use super::{pasta, system_v};
use crate::mount::{Attributes, Extent, attach, clone_tree, set_attributes};
use crate::request::BUILD_DIR;
use crate::ssh::login::{self, Login};

/// Directory in the slot for the agent and its socket. Short: socket addresses are cut at 104 bytes inside Darling.
pub const AGENT_DIR: &str = "/run/db";

const COVERED_STORE: &str = "run/.store";

/// Most pseudo-terminals of a slot; the machine's all have a limit together (kernel.pty.max, 4096).
const TERMINALS: u32 = 256;

/// Bytes of a tmpfs for which it may hold one file, of whatever size: an empty one takes a kilobyte of the kernel's memory.
const BYTES_PER_FILE: u64 = 4096;

/// Options of a tmpfs: bytes, and not more files than there could be with something in them.
pub(crate) fn tmpfs_options(mode: &str, bytes: u64) -> String {
    format!("mode={mode},size={bytes},nr_inodes={}", (bytes / BYTES_PER_FILE).max(64))
}

/// A step of making the root that failed.
#[derive(Debug, Error)]
#[error("failed to {step}: {error}")]
pub struct RootError {
    step: String,
    error: io::Error,
}

/// Names the step that an error belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, RootError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, RootError> {
        self.map_err(|error| RootError { step: step(), error: error.into() })
    }
}

/// Builds the root of the plan and makes it this process's. Returns the covered store's directory.
pub fn enter(plan: &BootPlan) -> Result<OwnedFd, RootError> {
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .step(|| "make mounts private to the slot".into())?;
    let root = Root { path: &plan.mountpoint };
    root.tmpfs("", &tmpfs_options("0755", 32 << 20))?;
    for directory in
        ["dev", "etc", "proc", "tmp", "run", &AGENT_DIR[1..], "nix", "var", "Volumes", &BUILD_DIR[1..]]
    {
        root.directory(directory)?;
    }
    root.devices()?;
    root.accounts(plan)?;
    root.tmpfs("tmp", &tmpfs_options("1777", plan.tmpfs_bytes))?;
    mount(
        Some("proc"),
        &root.at("proc"),
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        none,
    )
    .step(|| "mount /proc in the slot".into())?;
    system_v::limit(&root.at("proc"), plan.tmpfs_bytes)
        .step(|| "limit shared memory, semaphores and queues in the slot".into())?;

    let guarded = Attributes { no_suid: true, no_dev: true, ..Attributes::default() };
    let store = plan.store.strip_prefix("/").unwrap_or(&plan.store);
    // Shared: what is mounted there later appears in a guest that has mounts of its own as well.
    let shared = Attributes { propagation: libc::MS_SHARED, ..guarded };
    root.bind(&plan.view, store, shared)?;
    root.bind(&plan.build, &BUILD_DIR[1..], guarded)?;
    for path in plan.guest.host_paths() {
        root.show(&path)?;
    }
    if plan.network != SlotNetwork::Loopback {
        root.network_files(&plan.network)?;
    }
    plan.guest.furnish(&root, plan)?;
    if let Some(login) = &plan.login {
        root.login_files(login, plan.uid)?;
    }

    root.bind(&plan.store, COVERED_STORE, Attributes { read_only: true, ..guarded })?;
    let covered: OwnedFd = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(root.at(COVERED_STORE))
        .step(|| "open the store's mount".into())?
        .into();
    root.tmpfs(COVERED_STORE, "mode=0000,size=4k,nr_inodes=1")?;

    chdir(root.path).step(|| "enter the slot's root".into())?;
    pivot_root(".", ".").step(|| "make the slot's root the root".into())?;
    umount2(".", MntFlags::MNT_DETACH).step(|| "leave the host's root".into())?;
    chdir("/").step(|| "enter the slot's root".into())?;
    sethostname("localhost").step(|| "name the slot's host".into())?;
    Ok(covered)
}

/// Options of the tmpfs that is a slot's `/dev/shm`.
pub(crate) fn shm_options() -> String {
    tmpfs_options("1777", 64 << 20)
}

/// The new root while it is being built, at its place in the host's tree.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    path: &'a Path,
}

impl Root<'_> {
    /// Where a path of the slot (with or without leading slash) is on the host for now.
    pub fn at(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        self.path.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Makes a directory, mode 0755, with its parents.
    pub fn directory(&self, inside: impl AsRef<Path>) -> Result<(), RootError> {
        let path = self.at(inside);
        fs::create_dir_all(&path).step(|| format!("make {} in the slot", path.display()))
    }

    /// Makes a file, mode 0644.
    pub fn file(&self, inside: impl AsRef<Path>, contents: &[u8]) -> Result<(), RootError> {
        let path = self.at(inside);
        fs::write(&path, contents).step(|| format!("write {} in the slot", path.display()))
    }

    /// Makes a symbolic link.
    pub fn link(&self, inside: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), RootError> {
        let path = self.at(inside);
        symlink(target, &path).step(|| format!("make the link {} in the slot", path.display()))
    }

    /// Mounts a tmpfs on an existing directory.
    pub fn tmpfs(&self, inside: impl AsRef<Path>, options: &str) -> Result<(), RootError> {
        let path = self.at(inside);
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
            .step(|| format!("mount a tmpfs on {} in the slot", path.display()))
    }

    /// Binds one host file or directory, alone, to a place that is made for it.
    pub fn bind(
        &self,
        host: &Path,
        inside: impl AsRef<Path>,
        attributes: Attributes,
    ) -> Result<(), RootError> {
        let inside = inside.as_ref();
        let shown = || format!("show {} as /{} in the slot", host.display(), inside.display());
        let target = self.at(inside);
        let kind = fs::metadata(host).step(shown)?;
        if kind.is_dir() {
            self.directory(inside)?;
        } else {
            if let Some(parent) = inside.parent() {
                self.directory(parent)?;
            }
            if !target.exists() {
                self.file(inside, b"")?;
            }
        }
        // The host's own mounts may be below (an NFS /usr/local, say): a directory is shown as the host sees it.
        let extent = if attributes.propagation == 0 { Extent::Recursive } else { Extent::This };
        let host = fs::canonicalize(host).step(shown)?;
        let tree = clone_tree(cwd(), &path_cstring(&host).step(shown)?, extent).step(shown)?;
        set_attributes(&tree, attributes, extent).step(shown)?;
        attach(&tree, cwd(), &path_cstring(&target).step(shown)?).step(shown)
    }

    /// Shows a path of the host at the same place, read-only: a link as a link, anything else bound; nothing if the
    /// host has no such path.
    pub fn show(&self, host: &Path) -> Result<(), RootError> {
        match fs::symlink_metadata(host) {
            Ok(kind) if kind.is_symlink() => {
                let target = fs::read_link(host).step(|| format!("read the link {}", host.display()))?;
                self.link(host, target)
            }
            Ok(_) => {
                let inside = host.strip_prefix("/").unwrap_or(host);
                self.bind(
                    host,
                    inside,
                    Attributes { read_only: true, no_suid: true, ..Attributes::default() },
                )
            }
            Err(_) => Ok(()),
        }
    }

    fn devices(&self) -> Result<(), RootError> {
        self.tmpfs("dev", &tmpfs_options("0755", 4 << 20))?;
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            let inside = format!("dev/{device}");
            self.bind(
                Path::new(&format!("/{inside}")),
                &inside,
                Attributes { no_suid: true, ..Attributes::default() },
            )?;
        }
        self.directory("dev/pts")?;
        mount(
            Some("devpts"),
            &self.at("dev/pts"),
            Some("devpts"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            Some(format!("newinstance,ptmxmode=0666,mode=0620,max={TERMINALS}").as_str()),
        )
        .step(|| "mount /dev/pts in the slot".into())?;
        self.directory("dev/shm")?;
        self.tmpfs("dev/shm", &shm_options())?;
        for (name, target) in [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            self.link(format!("dev/{name}"), target)?;
        }
        Ok(())
    }

    fn accounts(&self, plan: &BootPlan) -> Result<(), RootError> {
        let id = plan.uid;
        let users = match &plan.login {
            None => format!(
                "root:x:0:0:System administrator:/var/empty:/noshell\n\
                 nixbld:x:{id}:{id}:Nix build user:{BUILD_DIR}:/noshell\n"
            ),
            // What can log in is the slot's uid, whatever it is called.
            Some(_) => login::USERS.map(|user| format!("{user}:x:{id}:{id}::{BUILD_DIR}:/bin/sh\n")).concat(),
        };
        let nobody = "nobody:x:65534:65534:Nobody:/:/noshell\n";
        self.file("etc/passwd", format!("{users}{nobody}").as_bytes())?;
        self.file("etc/group", format!("root:x:0:\nnixbld:!:{id}:\nnogroup:x:65534:\n").as_bytes())?;
        self.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")?;
        self.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    }

    /// What `sshd` reads, on a read-only mount: whoever logs in has the uid that a host's key must belong to.
    fn login_files(&self, login: &Login, uid: u32) -> Result<(), RootError> {
        let directory = Path::new(login::DIRECTORY);
        self.directory(directory)?;
        self.tmpfs(directory, &tmpfs_options("0755", 1 << 20))?;
        for file in login.files() {
            let inside = directory.join(file.name);
            self.file(&inside, file.contents.as_bytes())?;
            let path = self.at(&inside);
            if file.secret {
                chown(&path, Some(uid), Some(uid))
                    .and_then(|()| set_mode(&path, 0o400))
                    .step(|| format!("give {} to the slot", path.display()))?;
            }
        }
        let none: Option<&Path> = None;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(none, &self.at(directory), none, flags, none).step(|| "make sshd's files read-only".into())
    }

    /// What a fixed-output build needs to find and trust a server.
    fn network_files(&self, network: &SlotNetwork) -> Result<(), RootError> {
        for name in ["etc/resolv.conf", "etc/services", "etc/hosts"] {
            // Copied, not bound: on many hosts these are links to places that the slot does not have.
            if let Ok(mut contents) = fs::read(Path::new("/").join(name)) {
                if name == "etc/resolv.conf" && matches!(network, SlotNetwork::Pasta(_)) {
                    contents = asking_pasta(&contents);
                }
                self.file(name, &contents)?;
            }
        }
        for path in ["/etc/ssl", "/etc/pki", "/etc/ca-certificates"] {
            if Path::new(path).is_dir() {
                self.show(Path::new(path))?;
            }
        }
        Ok(())
    }
}

/// A resolv.conf(5) with pasta's resolver in the place of the host's, which may be one on its loopback.
fn asking_pasta(host: &[u8]) -> Vec<u8> {
    let others = host.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"nameserver"));
    let mut asking = others.collect::<Vec<_>>().concat();
    if asking.last().is_some_and(|last| *last != b'\n') {
        asking.push(b'\n');
    }
    asking.extend_from_slice(format!("nameserver {}\n", pasta::RESOLVER).as_bytes());
    asking
}

/// Sets the mode of a path.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn cwd() -> std::os::fd::BorrowedFd<'static> {
    nix::fcntl::AT_FDCWD.as_fd()
}

fn path_cstring(path: &Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasta_is_asked_in_the_place_of_the_hosts_resolvers() {
        let host =
            b"# made by hand\nnameserver 127.0.0.53\noptions edns0\nnameserver ::1\nsearch example.org";
        assert_eq!(
            String::from_utf8_lossy(&asking_pasta(host)),
            "# made by hand\noptions edns0\nsearch example.org\nnameserver 169.254.1.1\n"
        );
        assert_eq!(asking_pasta(b""), b"nameserver 169.254.1.1\n");
    }

    #[test]
    fn a_tmpfs_holds_no_more_files_than_could_have_something_in_them() {
        assert_eq!(tmpfs_options("1777", 64 << 20), "mode=1777,size=67108864,nr_inodes=16384");
        assert_eq!(tmpfs_options("0755", 4096), "mode=0755,size=4096,nr_inodes=64");
    }
}
