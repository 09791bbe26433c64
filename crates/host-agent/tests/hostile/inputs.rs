//! Inputs stay what they are, and of the store nothing else is seen.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use host_agent::request::BuildRequest;
use host_agent::store_path::StoreName;

use crate::attack::{Attacker, Told, skipped};
use crate::harness::{Daemon, name};

/// Store objects: two that are shown and one that is not.
struct Objects {
    store: PathBuf,
    directory: StoreName,
    file: StoreName,
    hidden: StoreName,
}

/// All that could be changed about a file: device, number, mode, owners, links, times, contents.
type Facts = (u64, u64, u32, u32, u32, u64, [i64; 2], Vec<u8>);

impl Objects {
    /// Everybody may write to them: what keeps a builder from it is that they are inputs.
    fn new(daemon: &Daemon) -> Self {
        let objects = Self {
            store: daemon.store(),
            directory: name("directory"),
            file: name("file"),
            hidden: name("hidden"),
        };
        std::fs::create_dir(objects.path(&objects.directory)).unwrap();
        std::fs::write(objects.inside(), "inside").unwrap();
        std::fs::write(objects.path(&objects.file), "a file").unwrap();
        std::fs::write(objects.path(&objects.hidden), "hidden").unwrap();
        for path in objects.all() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        objects
    }

    fn path(&self, name: &StoreName) -> PathBuf {
        name.in_store(&self.store)
    }

    fn inside(&self) -> PathBuf {
        self.path(&self.directory).join("inside")
    }

    fn all(&self) -> [PathBuf; 4] {
        [self.path(&self.directory), self.inside(), self.path(&self.file), self.path(&self.hidden)]
    }

    fn facts(&self) -> Vec<Facts> {
        let facts = |path: &PathBuf| {
            let metadata = path.symlink_metadata().unwrap();
            let contents = match metadata.is_dir() {
                true => std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
                    .collect::<Vec<_>>()
                    .concat(),
                false => std::fs::read(path).unwrap(),
            };
            let times = [metadata.mtime(), metadata.ctime()];
            let ids = (metadata.dev(), metadata.ino(), metadata.mode(), metadata.uid(), metadata.gid());
            (ids.0, ids.1, ids.2, ids.3, ids.4, metadata.nlink(), times, contents)
        };
        self.all().iter().map(facts).collect()
    }

    fn request(&self, attacker: &Attacker<'_>, way: &str) -> BuildRequest {
        let (directory, file) = (self.path(&self.directory), self.path(&self.file));
        let handle = handle(&self.path(&self.hidden), &self.store);
        let (directory, file, hidden) = (directory.display(), file.display(), self.hidden.as_str());
        let made = if way == "link" { "" } else { "; echo > $out" };
        let mut request = attacker.request(&format!(
            "cd /build; $attacker inputs {way} {directory} {file} {hidden} {handle}{made}"
        ));
        request.inputs.extend([self.directory.clone(), self.file.clone()]);
        request
    }
}

/// What the file system knows it by (`struct file_handle` of name_to_handle_at(2)), as hexadecimal digits. Root opens the file by it.
#[allow(unsafe_code)]
fn handle(path: &Path, store: &Path) -> String {
    const BYTES: usize = 128;
    let mut handle = [0_u8; 8 + BYTES];
    handle[..4].copy_from_slice(&(BYTES as u32).to_ne_bytes());
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut mount = 0_i32;
    // SAFETY: the kernel writes as many bytes as the handle says it has, and one int.
    let named = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            0,
        )
    };
    assert_eq!(named, 0, "{}", std::io::Error::last_os_error());
    let store = std::fs::File::open(store).unwrap();
    // SAFETY: the kernel reads the handle, whose size is in it.
    let opened = unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, store.as_raw_fd(), handle.as_ptr(), libc::O_PATH)
    };
    assert!(opened >= 0, "{}", std::io::Error::last_os_error());
    let size = 8 + u32::from_ne_bytes(handle[..4].try_into().unwrap()) as usize;
    handle[..size].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attack(extra: &str, way: &str) -> Told {
    let daemon = Daemon::start(&format!("warm-slots = 0{extra}"));
    let attacker = Attacker::new(&daemon);
    let objects = Objects::new(&daemon);
    let before = objects.facts();
    let told = attacker.build(&objects.request(&attacker, way));
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
    assert_eq!(objects.facts(), before, "{}", told.log());
    told
}

#[test]
fn inputs_are_neither_written_nor_removed_nor_replaced_nor_given_away() {
    if skipped() {
        return;
    }
    attack("", "change").none_was_done_but(&[], 45);
}

#[test]
fn no_file_of_the_store_or_of_roots_gets_another_name() {
    if skipped() {
        return;
    }
    let told = attack("", "link");
    told.none_was_done_but(&[], 40);
    for what in ["file", "inside"] {
        for place in ["build", "output", "store"] {
            let came = told.came_of(&format!("link-{what}-into-{place}"));
            assert!(["EXDEV", "EPERM", "EROFS"].contains(&came), "{what} {place}: {came}");
        }
    }
}

#[test]
fn inputs_are_not_remounted_and_what_is_no_input_is_not_uncovered() {
    if skipped() {
        return;
    }
    let told = attack("", "mount");
    told.none_was_done_but(&[], 30);
    for what in [
        "remount-file",
        "unmount-directory",
        "uncover",
        "uncover-remount",
        "uncover-clone-/run",
        "handle-from-.",
    ] {
        assert_eq!(told.came_of(what), "EPERM", "{what}: {}", told.log());
    }
    assert_eq!(told.came_of("write-inside-after-directory"), "EROFS");
    assert_eq!(told.came_of("covered-list"), "EACCES");
}

#[test]
fn root_of_a_user_namespace_does_not_do_it_either() {
    if skipped() {
        return;
    }
    let told = attack("\nallow-user-namespaces = true", "mount-in-user-namespace");
    assert_eq!(told.came_of("enter"), "done", "{}", told.log());
    // To a copy of what it sees, with all that covers it.
    told.none_was_done_but(&["enter", "pivot"], 75);
    // The kernel locks what another namespace has mounted.
    for what in ["unmount-directory", "uncover"] {
        assert_eq!(told.came_of(what), "EINVAL", "{what}: {}", told.log());
    }
}
