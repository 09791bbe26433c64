//! The two keys of a machine: the host's, by which clients know it, and the client's, which alone may log in.
//!
//! Each is made once and never replaced, not even one that can't be understood: whoever relies on it would be locked out. A
//! new key appears under its name complete and with its mode, or not at all.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey, PublicKey};
use thiserror::Error;

use super::login::{HostKey, Login};
use super::settings::{SshConfig, directory};

/// Largest file that is read as a key, bytes; one of ed25519 has about 400.
const KEY_MAX: u64 = 16 << 10;

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A file operation failed.
    #[error("failed to {step} {path}: {error}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others can read a private key.
    #[error(
        "failed to trust the private key {path}: its mode is {mode:04o}, so others can have read it; `chmod 0600 {path}`, or \
         move it away for a new one",
        path = path.display()
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is something else.
    #[error(
        "failed to understand {path} as an ed25519 private key without passphrase ({reason}); it is not replaced: move it away \
         for a new one",
        path = path.display()
    )]
    NotAKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No key could be made.
    #[error("failed to make a key: {0}")]
    Make(String),
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |error| KeyError::Io { step, path, error }
}

/// Files of this machine's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// The host's private key.
    pub host: PathBuf,
    /// The client's private key.
    pub client: PathBuf,
    /// What a client needs to know this host, in the form of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
    pub known_hosts: PathBuf,
}

impl KeyFiles {
    /// Where the configuration has them.
    pub fn new(config: &SshConfig, state_directory: &Path) -> Self {
        let directory = directory(state_directory);
        Self {
            host: directory.join("host_ed25519"),
            client: config.client_key(state_directory),
            known_hosts: directory.join("known_hosts"),
        }
    }

    /// Reads the keys, after making those that are missing. The client's file is needed no more afterwards.
    pub fn open(&self, port: u16) -> Result<Login, KeyError> {
        let host = key(&self.host, "darling-builder host")?;
        let client = key(&self.client, "darling-builder client")?;
        replace(&self.known_hosts, &known_hosts(host.public_key(), port)?)?;
        let text = host.to_openssh(LineEnding::LF).map_err(|error| KeyError::Make(error.to_string()))?;
        Ok(Login { host_key: HostKey::new(text.to_string()), authorized_key: line(client.public_key())? })
    }
}

/// The key in this file, or a new one.
fn key(path: &Path, comment: &str) -> Result<PrivateKey, KeyError> {
    if let Some(parent) = path.parent()
        && !parent.is_dir()
    {
        // Whatever the umask: what is public in it is for everybody.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .and_then(|()| fs::set_permissions(parent, Permissions::from_mode(0o755)))
            .map_err(failed("make", parent))?;
    }
    let key = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path, comment)?;
            read(path)?
        }
        _ => read(path)?,
    };
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    if public.symlink_metadata().is_err() {
        replace(&public, &format!("{}\n", line(key.public_key())?))?;
    }
    Ok(key)
}

/// The key in this file, which must be nobody else's to read.
pub fn read(path: &Path) -> Result<PrivateKey, KeyError> {
    use std::io::Read;
    let not_a_key = |reason: String| KeyError::NotAKey { path: path.to_owned(), reason };
    // Not blocking, should it be a pipe.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(failed("read", path))?;
    let metadata = file.metadata().map_err(failed("read", path))?;
    if !metadata.is_file() || metadata.len() > KEY_MAX {
        return Err(not_a_key("not a small file".into()));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(KEY_MAX).read_to_string(&mut text).map_err(failed("read", path))?;
    let key = PrivateKey::from_openssh(&text).map_err(|error| not_a_key(error.to_string()))?;
    if key.is_encrypted() || key.algorithm() != Algorithm::Ed25519 {
        return Err(not_a_key(format!("{}, {}", key.algorithm(), key.cipher())));
    }
    Ok(key)
}

/// Makes a new key of this name. If somebody else was faster, that one stays.
fn make(path: &Path, comment: &str) -> Result<(), KeyError> {
    let making = |error: ssh_key::Error| KeyError::Make(error.to_string());
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(making)?;
    key.set_comment(comment);
    let text = key.to_openssh(LineEnding::LF).map_err(making)?;
    let scratch = write_scratch(path, &text, 0o600)?;
    // Unlike a rename, this replaces nothing.
    let linked = fs::hard_link(&scratch, path);
    let _ = fs::remove_file(&scratch);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("make", path)(error)),
        _ => Ok(()),
    }
}

/// Puts a file, mode 0644, in the place of another.
fn replace(path: &Path, text: &str) -> Result<(), KeyError> {
    let scratch = write_scratch(path, text, 0o644)?;
    fs::rename(&scratch, path).map_err(failed("write", path))
}

/// A complete file of this mode beside `path`.
fn write_scratch(path: &Path, text: &str, mode: u32) -> Result<PathBuf, KeyError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let scratch = path.with_file_name(name);
    // Of a process with this number that was killed here.
    let _ = fs::remove_file(&scratch);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&scratch)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })();
    written.map_err(failed("write", &scratch))?;
    Ok(scratch)
}

fn line(key: &PublicKey) -> Result<String, KeyError> {
    key.to_openssh().map_err(|error| KeyError::Make(error.to_string()))
}

fn known_hosts(key: &PublicKey, port: u16) -> Result<String, KeyError> {
    // A port is part of the name unless it is 22 (ssh(1)).
    let name = |host: &str| if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    Ok(format!("{},{} {}\n", name("127.0.0.1"), name("localhost"), line(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> KeyFiles {
        KeyFiles::new(&SshConfig::default(), directory)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn keys_are_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let first = files.open(2222).unwrap();
        assert_eq!((mode(&files.host), mode(&files.client), mode(&files.known_hosts)), (0o600, 0o600, 0o644));
        let texts = || [&files.host, &files.client].map(|path| fs::read(path).unwrap());
        let before = texts();
        assert_ne!(before[0], before[1]);
        assert_eq!(files.open(2222).unwrap(), first);
        assert_eq!(texts(), before);
        let public = fs::read_to_string(files.client.with_extension("pub")).unwrap();
        assert_eq!(public.trim_end(), first.authorized_key);
        assert!(first.authorized_key.starts_with("ssh-ed25519 AAAA"));
        let names: Vec<_> = fs::read_dir(files.host.parent().unwrap()).unwrap().flatten().collect();
        assert_eq!(names.len(), 5, "something was left: {names:?}");
    }

    #[test]
    fn two_machines_have_different_keys() {
        let [one, other] = [(), ()].map(|()| {
            let directory = tempfile::tempdir().unwrap();
            files(directory.path()).open(2222).unwrap()
        });
        assert_ne!(one.authorized_key, other.authorized_key);
        assert_ne!(one.host_key, other.host_key);
    }

    #[test]
    fn the_host_is_known_by_its_key_at_its_port() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        files.open(2222).unwrap();
        files.open(2200).unwrap();
        let known = fs::read_to_string(&files.known_hosts).unwrap();
        let public = fs::read_to_string(files.host.with_extension("pub")).unwrap();
        assert_eq!(known, format!("[127.0.0.1]:2200,[localhost]:2200 {public}"));
        files.open(22).unwrap();
        let known = fs::read_to_string(&files.known_hosts).unwrap();
        assert_eq!(known, format!("127.0.0.1,localhost {public}"));
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        files.open(2222).unwrap();
        for path in [&files.host, &files.client] {
            fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
            let error = files.open(2222).unwrap_err();
            assert!(matches!(&error, KeyError::Open { path: open, mode: 0o640 } if open == path), "{error}");
            fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
            files.open(2222).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        fs::create_dir(files.host.parent().unwrap()).unwrap();
        for text in [&b""[..], b"not a key", b"\xff\xfe", &[b'x'; 100_000]] {
            fs::write(&files.host, text).unwrap();
            fs::set_permissions(&files.host, Permissions::from_mode(0o600)).unwrap();
            files.open(2222).unwrap_err();
            assert_eq!(fs::read(&files.host).unwrap(), text);
        }
        fs::remove_file(&files.host).unwrap();
        // A link to nowhere is in use, too.
        std::os::unix::fs::symlink("/no/such/key", &files.host).unwrap();
        files.open(2222).unwrap_err();
        assert!(files.host.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn secrets_are_not_printed() {
        let directory = tempfile::tempdir().unwrap();
        let login = files(directory.path()).open(2222).unwrap();
        assert!(!format!("{login:?}").contains("PRIVATE"));
    }
}
