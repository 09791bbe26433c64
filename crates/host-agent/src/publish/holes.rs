//! The parts of a file that hold data, and those that don't.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// What a file has at some position, up to the position that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Something to read.
    Data(u64),
    /// Zeros, which take no space.
    Hole(u64),
}

/// What `file`, of `size` bytes, has at `position`, which lies before its end. Never an empty part. Moves the file's own
/// offset. A file system that does not tell has data only (lseek(2), `SEEK_DATA`).
pub(super) fn part_at(file: &File, position: u64, size: u64) -> io::Result<Part> {
    let data = match lseek(file, offset(position)?, Whence::SeekData) {
        // Nothing but a hole up to the end.
        Err(Errno::ENXIO) => return Ok(Part::Hole(size)),
        Err(Errno::EINVAL) => return Ok(Part::Data(size)),
        Err(errno) => return Err(errno.into()),
        Ok(data) => u64::try_from(data).unwrap_or(position),
    };
    if data > position {
        return Ok(Part::Hole(data.min(size)));
    }
    match u64::try_from(lseek(file, offset(position)?, Whence::SeekHole)?) {
        Ok(hole) if hole > position => Ok(Part::Data(hole.min(size))),
        _ => Ok(Part::Data(size)),
    }
}

/// A position for the kernel.
pub(super) fn offset(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_follow_each_other_and_cover_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"data", 3 * MIB).unwrap();
        file.write_all_at(&[1; 1000], 9 * MIB).unwrap();
        file.set_len(12 * MIB + 1).unwrap();
        let size = 12 * MIB + 1;
        let mut parts = Vec::new();
        let mut position = 0;
        while position < size {
            let part = part_at(&file, position, size).unwrap();
            let (Part::Data(end) | Part::Hole(end)) = part;
            assert!(end > position && end <= size);
            parts.push(part);
            position = end;
        }
        let is_data = |at: u64| {
            let part = parts.iter().find(|part| match part {
                Part::Data(end) | Part::Hole(end) => *end > at,
            });
            matches!(part, Some(Part::Data(_)))
        };
        assert!(is_data(3 * MIB) && is_data(9 * MIB + 999));
        assert!(!is_data(0) && !is_data(6 * MIB) && !is_data(12 * MIB), "{parts:?}");
    }

    #[test]
    fn a_file_without_holes_is_one_part() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 5000], 0).unwrap();
        assert_eq!(part_at(&file, 0, 5000).unwrap(), Part::Data(5000));
        assert_eq!(part_at(&file, 4999, 5000).unwrap(), Part::Data(5000));
    }
}
