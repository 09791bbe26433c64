//! Members of static libraries that have the name of something in libSystem.
//!
//! Apple's linker takes a function from the first library on the command line that has it. zig's takes it from a shared
//! library even if a static one comes first, and so calls libSystem's `glob` with the structure of GNU make's own `glob`.
//! Such members are therefore linked as the object files that they are.
//!
//! Formats: ar as described by ar(5) of BSD (names after the header) and of GNU (a table of long names); Mach-O symbols as in
//! `mach-o/nlist.h`.

use std::collections::HashSet;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_LEN: usize = 60;
const MACH_O_64: u32 = 0xfeed_facf;
const LC_SYMTAB: u32 = 2;

/// Symbols that a text stub (.tbd) names.
pub fn stub_symbols(text: &str) -> HashSet<&str> {
    text.split([' ', ',', '[', ']', '\n', '\'', '"']).filter(|word| word.starts_with('_')).collect()
}

/// Members of a static library that define one of these symbols, unless it is among those `taken` already: the first library
/// that has it counts, and a library may be named twice. What they define is taken then.
pub fn conflicting<'a>(
    archive: &'a [u8],
    symbols: &HashSet<&str>,
    taken: &mut HashSet<String>,
) -> Vec<&'a [u8]> {
    let wanted = |member: &&[u8]| {
        let defined = defined(member);
        let first = !defined.iter().any(|symbol| taken.contains(*symbol));
        let wanted = first && defined.iter().any(|symbol| symbols.contains(symbol));
        if wanted {
            taken.extend(defined.into_iter().map(str::to_owned));
        }
        wanted
    };
    members(archive).filter(wanted).collect()
}

/// Contents of the members; it ends where the file makes no sense any more.
fn members(archive: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = archive.strip_prefix(MAGIC).unwrap_or_default();
    std::iter::from_fn(move || {
        let header = rest.get(..HEADER_LEN)?;
        let size: usize = field(header, 48, 58)?.parse().ok()?;
        let mut contents = rest.get(HEADER_LEN..)?.get(..size)?;
        if let Some(length) = field(header, 0, 16)?.strip_prefix("#1/") {
            contents = contents.get(length.parse().ok()?..)?;
        }
        rest = rest.get(HEADER_LEN + size.next_multiple_of(2)..).unwrap_or_default();
        Some(contents)
    })
}

fn field(header: &[u8], from: usize, to: usize) -> Option<&str> {
    std::str::from_utf8(header.get(from..to)?).ok().map(str::trim_end)
}

/// Names of the functions and data that a Mach-O object defines for others.
fn defined(object: &[u8]) -> Vec<&str> {
    symbols(object).unwrap_or_default()
}

fn symbols(object: &[u8]) -> Option<Vec<&str>> {
    if number(object, 0)? != MACH_O_64 {
        return None;
    }
    let mut at = 32;
    for _ in 0..number(object, 16)? {
        let (kind, size) = (number(object, at)?, number(object, at + 4)? as usize);
        if kind == LC_SYMTAB {
            let [table, count, names] =
                [8, 12, 16].map(|field| number(object, at + field).map(|value| value as usize));
            let names = object.get(names?..)?;
            let entries = object.get(table?..)?.chunks_exact(16).take(count?);
            return Some(entries.filter_map(|entry| external(entry, names)).collect());
        }
        at += size.max(8);
    }
    Some(Vec::new())
}

/// The name in a symbol table's entry if it is defined and external, and no debugging entry.
fn external<'a>(entry: &[u8], names: &'a [u8]) -> Option<&'a str> {
    let kind = *entry.get(4)?;
    if kind & 0xe0 != 0 || kind & 1 == 0 || kind & 0x0e == 0 {
        return None;
    }
    let name = names.get(number(entry, 0)? as usize..)?;
    std::str::from_utf8(name.split(|byte| *byte == 0).next()?).ok()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[..4].copy_from_slice(&MACH_O_64.to_le_bytes());
        bytes[16] = 1;
        for value in [LC_SYMTAB, 24, 56, 1, 72, name.len() as u32 + 2] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([1, 0, 0, 0, kind, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(name.bytes().chain([0]));
        bytes
    }

    fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, contents) in members {
            bytes.extend(format!("{name:<16}{:<32}{:<10}`\n", 0, contents.len()).bytes());
            bytes.extend(contents);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    #[test]
    fn finds_the_members_that_define_what_the_system_has() {
        let symbols = stub_symbols("exports:\n  - symbols: [ _glob, _fnmatch,\n   '_odd name' ]");
        let mut long = b"a long name.o\0\0\0".to_vec();
        long.extend(object("_fnmatch", 0x0f));
        let archive = archive(&[
            ("glob.o/", object("_glob", 0x0f)),
            ("own.o/", object("_own", 0x0f)),
            ("user.o/", object("_glob", 0x01)),
            ("#1/16", long),
        ]);
        let found = conflicting(&archive, &symbols, &mut HashSet::new());
        assert_eq!(found, [&object("_glob", 0x0f)[..], &object("_fnmatch", 0x0f)[..]]);
    }

    #[test]
    fn the_first_library_that_has_a_symbol_counts() {
        let symbols = stub_symbols("_glob _xprintf");
        let mut taken = HashSet::new();
        let first = archive(&[("glob.o/", object("_glob", 0x0f))]);
        let second = archive(&[("g.o/", object("_glob", 0x0f)), ("x.o/", object("_xprintf", 0x0f))]);
        assert_eq!(conflicting(&first, &symbols, &mut taken).len(), 1);
        assert_eq!(conflicting(&second, &symbols, &mut taken), [&object("_xprintf", 0x0f)[..]]);
        assert!(conflicting(&first, &symbols, &mut taken).is_empty());
    }

    #[test]
    fn survives_any_cut_of_an_archive() {
        let symbols = stub_symbols("_glob _fnmatch");
        let archive = archive(&[("glob.o/", object("_glob", 0x0f)), ("b.o/", object("_fnmatch", 0x0f))]);
        for length in 0..archive.len() - 1 {
            assert!(conflicting(&archive[..length], &symbols, &mut HashSet::new()).len() < 2);
        }
    }
}
