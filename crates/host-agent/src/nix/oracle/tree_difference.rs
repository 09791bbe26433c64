//! How two trees of files differ, in what a store keeps of them: names, types, whether a file is executable, contents,
//! where links lead. Times and owners don't count.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Bytes that are compared at once.
const BLOCK: usize = 64 << 10;

/// One entry that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Relative to the trees' roots; empty for the roots themselves.
    #[serde(serialize_with = "lossy")]
    pub path: Vec<u8>,
    /// What differs.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum Kind {
    /// The second tree does not have it.
    OnlyFirst,
    /// The first tree does not have it.
    OnlySecond,
    /// One is a directory, say, and the other a file.
    Type {
        /// In the first tree.
        first: EntryType,
        /// In the second tree.
        second: EntryType,
    },
    /// Only one of the two files is executable.
    Executable {
        /// It is the one in the first tree.
        first: bool,
    },
    /// The files' bytes.
    Contents {
        /// Size in the first tree, bytes.
        first_size: u64,
        /// Size in the second tree, bytes.
        second_size: u64,
        /// The first byte that differs, counted from 0.
        at: u64,
    },
    /// The links' targets.
    Target {
        /// In the first tree.
        #[serde(serialize_with = "lossy")]
        first: Vec<u8>,
        /// In the second tree.
        #[serde(serialize_with = "lossy")]
        second: Vec<u8>,
    },
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryType {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Something that no store holds.
    Other,
}

/// An entry can't be looked at.
#[derive(Debug, Error)]
#[error("failed to compare {path}: {error}", path = path.display())]
pub struct CompareError {
    path: PathBuf,
    error: io::Error,
}

type Result<T> = std::result::Result<T, CompareError>;

fn lossy<S: Serializer>(bytes: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// Everything in which the two differ, sorted by path.
pub fn differences(first: &Path, second: &Path) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    // Not by recursion: a builder may nest directories deeper than our stack.
    let mut ahead = vec![PathBuf::new()];
    while let Some(path) = ahead.pop() {
        let (a, b) = (at(first, &path), at(second, &path));
        let (a_data, b_data) = (metadata(&a)?, metadata(&b)?);
        let kind = match (entry_type(&a_data), entry_type(&b_data)) {
            (EntryType::Directory, EntryType::Directory) => {
                compare_names(&path, (&names(&a)?, &names(&b)?), &mut ahead, &mut found);
                None
            }
            (EntryType::File, EntryType::File) => {
                if let Some(kind) = compare_modes(&a_data, &b_data) {
                    found.push(Difference { path: path.as_os_str().as_bytes().into(), kind });
                }
                compare_contents((&a, &a_data), (&b, &b_data))?
            }
            (EntryType::Link, EntryType::Link) => {
                let (first, second) = (target(&a)?, target(&b)?);
                (first != second).then_some(Kind::Target { first, second })
            }
            (first, second) => (first != second).then_some(Kind::Type { first, second }),
        };
        found.extend(kind.map(|kind| Difference { path: path.into_os_string().into_vec(), kind }));
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Without a slash at the end, which would follow a link.
fn at(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.into() } else { root.join(path) }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CompareError + '_ {
    |error| CompareError { path: path.into(), error }
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).map_err(failed(path))
}

fn target(path: &Path) -> Result<Vec<u8>> {
    Ok(fs::read_link(path).map_err(failed(path))?.into_os_string().into_vec())
}

fn entry_type(metadata: &Metadata) -> EntryType {
    let kind = metadata.file_type();
    if kind.is_file() {
        EntryType::File
    } else if kind.is_dir() {
        EntryType::Directory
    } else if kind.is_symlink() {
        EntryType::Link
    } else {
        debug_assert!(kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device());
        EntryType::Other
    }
}

fn names(directory: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(directory).map_err(failed(directory))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>().map_err(failed(directory))?;
    names.sort();
    Ok(names)
}

/// Names in both are to be looked at; the others are differences.
fn compare_names(
    path: &Path,
    (first, second): (&[OsString], &[OsString]),
    ahead: &mut Vec<PathBuf>,
    found: &mut Vec<Difference>,
) {
    let (mut first, mut second) = (first.iter().peekable(), second.iter().peekable());
    let below = |name: &OsStr| path.join(name);
    let only = |name: &OsStr, kind| Difference { path: below(name).into_os_string().into_vec(), kind };
    loop {
        let order = match (first.peek(), second.peek()) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        match order {
            Ordering::Less => found.extend(first.next().map(|name| only(name, Kind::OnlyFirst))),
            Ordering::Greater => found.extend(second.next().map(|name| only(name, Kind::OnlySecond))),
            Ordering::Equal => {
                second.next();
                ahead.extend(first.next().map(|name| below(name)));
            }
        }
    }
}

fn compare_modes(first: &Metadata, second: &Metadata) -> Option<Kind> {
    // The owner's bit is what a store goes by.
    let executable = |data: &Metadata| data.mode() & 0o100 != 0;
    (executable(first) != executable(second)).then(|| Kind::Executable { first: executable(first) })
}

fn compare_contents(
    (first, first_data): (&Path, &Metadata),
    (second, second_data): (&Path, &Metadata),
) -> Result<Option<Kind>> {
    let open = |path: &Path| File::open(path).map_err(failed(path));
    let (mut a, mut b) = (open(first)?, open(second)?);
    let (mut a_block, mut b_block) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    loop {
        let a_got = fill(&mut a, &mut a_block).map_err(failed(first))?;
        let b_got = fill(&mut b, &mut b_block).map_err(failed(second))?;
        let (a_got, b_got) = (&a_block[..a_got], &b_block[..b_got]);
        if a_got != b_got {
            let same = a_got.iter().zip(b_got).take_while(|(a, b)| a == b).count();
            return Ok(Some(Kind::Contents {
                first_size: first_data.len(),
                second_size: second_data.len(),
                at: at + same as u64,
            }));
        }
        if a_got.is_empty() {
            return Ok(None);
        }
        at += a_got.len() as u64;
    }
}

/// Reads until the block is full or the file ends.
fn fill(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < block.len() {
        match file.read(&mut block[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let (a, b) = (place.path().join("a"), place.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        (place, a, b)
    }

    fn only(a: &Path, b: &Path) -> Difference {
        let mut found = differences(a, b).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn equal_trees_differ_in_nothing_whatever_their_times() {
        let (_place, a, b) = two();
        for root in [&a, &b] {
            fs::create_dir_all(root.join("deep/er")).unwrap();
            fs::write(root.join("deep/er/file"), vec![7; BLOCK * 2 + 1]).unwrap();
            symlink("/nowhere", root.join("link")).unwrap();
        }
        File::open(a.join("deep/er/file")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(differences(&a, &b).unwrap(), []);
    }

    #[test]
    fn finds_names_that_only_one_has_without_going_into_them() {
        let (_place, a, b) = two();
        fs::create_dir_all(a.join("x/inner")).unwrap();
        fs::write(b.join("y"), "").unwrap();
        fs::write(b.join(OsStr::from_bytes(b"z\xff")), "").unwrap();
        let found = differences(&a, &b).unwrap();
        let shown: Vec<_> = found.iter().map(|it| (it.path.as_slice(), it.kind.clone())).collect();
        assert_eq!(
            shown,
            [
                (b"x".as_slice(), Kind::OnlyFirst),
                (b"y".as_slice(), Kind::OnlySecond),
                (b"z\xff".as_slice(), Kind::OnlySecond)
            ]
        );
    }

    #[test]
    fn finds_the_first_byte_that_differs() {
        let (_place, a, b) = two();
        let mut bytes = vec![1; BLOCK + 100];
        fs::write(a.join("f"), &bytes).unwrap();
        bytes[BLOCK + 5] = 2;
        fs::write(b.join("f"), &bytes).unwrap();
        let size = bytes.len() as u64;
        assert_eq!(
            only(&a, &b).kind,
            Kind::Contents { first_size: size, second_size: size, at: BLOCK as u64 + 5 }
        );
        // One is the beginning of the other.
        fs::write(b.join("f"), vec![1; BLOCK]).unwrap();
        let expected = Kind::Contents { first_size: size, second_size: BLOCK as u64, at: BLOCK as u64 };
        assert_eq!(only(&a, &b).kind, expected);
    }

    #[test]
    fn finds_types_modes_and_targets() {
        let (_place, a, b) = two();
        fs::write(a.join("type"), "").unwrap();
        fs::create_dir(b.join("type")).unwrap();
        let found = only(&a, &b);
        assert_eq!(found.kind, Kind::Type { first: EntryType::File, second: EntryType::Directory });
        fs::remove_dir(b.join("type")).unwrap();
        fs::write(b.join("type"), "").unwrap();
        // Only whether it is executable counts.
        fs::set_permissions(a.join("type"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(differences(&a, &b).unwrap(), []);
        fs::set_permissions(a.join("type"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(only(&a, &b).kind, Kind::Executable { first: true });
        fs::remove_file(a.join("type")).unwrap();
        fs::remove_file(b.join("type")).unwrap();
        symlink("x", a.join("link")).unwrap();
        symlink("y", b.join("link")).unwrap();
        let target = Kind::Target { first: b"x".into(), second: b"y".into() };
        assert_eq!(only(&a, &b), Difference { path: b"link".into(), kind: target });
    }

    #[test]
    fn roots_can_be_files_and_links_are_not_followed() {
        let (place, a, b) = two();
        fs::write(place.path().join("f"), "1").unwrap();
        fs::write(place.path().join("g"), "2").unwrap();
        let found = only(&place.path().join("f"), &place.path().join("g"));
        assert!(found.path.is_empty());
        symlink(&a, place.path().join("to-a")).unwrap();
        let found = only(&place.path().join("to-a"), &b);
        assert_eq!(found.kind, Kind::Type { first: EntryType::Link, second: EntryType::Directory });
    }
}
