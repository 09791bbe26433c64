//! Which C library a program needs: the newest version among the symbols that it asks for.

/// The newest `GLIBC_2.N` that the file names.
pub fn newest(program: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let versions = program.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    versions.filter_map(|(at, _)| version(&program[at + MARK.len()..])).max()
}

/// `2.34` up to the end of the string.
fn version(text: &[u8]) -> Option<(u32, u32)> {
    let text = text.split(|&byte| byte == 0).next()?;
    let (major, minor) = std::str::from_utf8(text.get(..text.len().min(16))?).ok()?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_all_versions_counts_and_what_is_none_does_not() {
        assert_eq!(newest(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0"), Some((2, 34)));
        assert_eq!(newest(b"no such thing, GLIBC_"), None);
    }
}
