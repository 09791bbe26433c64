//! Against files made here, whole and damaged.

use super::*;

const ELEVEN: Version = Version { major: 11, minor: 0 };

/// A file in the making.
struct File {
    magic: u32,
    cpu: u32,
    kind: u32,
    commands: Vec<Vec<u8>>,
    body: usize,
}

fn command(kind: u32, fields: &[u8]) -> Vec<u8> {
    let mut fields = fields.to_vec();
    fields.resize(fields.len().next_multiple_of(8), 0);
    [&kind.to_le_bytes()[..], &(fields.len() as u32 + 8).to_le_bytes(), &fields].concat()
}

fn segment(name: &str, address: u64, size: u64, file_offset: u64, file_size: u64) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    let numbers: Vec<u8> =
        [address, size, file_offset, file_size, 0, 0].iter().flat_map(|n: &u64| n.to_le_bytes()).collect();
    command(LC_SEGMENT_64, &[padded, numbers].concat())
}

fn library(name: &str) -> Vec<u8> {
    command(LC_LOAD_DYLIB, &[&24u32.to_le_bytes()[..], &[0; 12], name.as_bytes(), &[0]].concat())
}

fn build_version(platform: u32, version: u32) -> Vec<u8> {
    let numbers = [platform, version, 0, 0];
    command(LC_BUILD_VERSION, &numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>())
}

impl File {
    /// As zig links it: data segments with odd sizes.
    fn good() -> Self {
        Self {
            magic: MAGIC_64,
            cpu: CPU_TYPE_X86_64,
            kind: EXECUTE,
            commands: vec![
                segment("__PAGEZERO", 0, 1 << 32, 0, 0),
                segment("__TEXT", 1 << 32, 0x1234, 0, 0x1234),
                segment("__DATA_CONST", (1 << 32) + 0x2000, 0x10, 0x2000, 0x10),
                segment("__DATA", (1 << 32) + 0x3000, 0x2c88, 0x3000, 0x1000),
                segment("__LINKEDIT", (1 << 32) + 0x6000, 0x1000, 0x4000, 0x10),
                build_version(PLATFORM_MACOS, 0x000b_0000),
                command(LC_MAIN, &[0; 16]),
                library(LIBRARY),
            ],
            body: 0x5000,
        }
    }

    fn with(mut self, index: usize, command: Vec<u8>) -> Self {
        self.commands[index] = command;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let commands = self.commands.concat();
        let mut bytes: Vec<u8> =
            [self.magic, self.cpu, 3, self.kind, self.commands.len() as u32, commands.len() as u32, 0, 0]
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
        bytes.extend(commands);
        bytes.resize(bytes.len().max(self.body), 0);
        bytes
    }

    fn faults(&self) -> Vec<String> {
        let mut bytes = self.bytes();
        align_data(&mut bytes).unwrap();
        MachO::parse(&bytes).unwrap().faults(ELEVEN)
    }
}

fn error(bytes: &[u8]) -> String {
    format!("{:#}", MachO::parse(bytes).unwrap_err())
}

#[test]
fn takes_a_good_file_after_rounding_its_data_segments() {
    let mut bytes = File::good().bytes();
    let before = MachO::parse(&bytes).unwrap().faults(ELEVEN);
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(before[1].starts_with("the size of segment __DATA in memory, 0x2c88, is no multiple"));

    let original = bytes.clone();
    assert_eq!(align_data(&mut bytes).unwrap(), 2);
    let program = MachO::parse(&bytes).unwrap();
    assert_eq!(program.faults(ELEVEN), Vec::<String>::new());
    let sizes: Vec<u64> = program.segments.iter().map(|segment| segment.size).collect();
    assert_eq!(sizes, [1 << 32, 0x1234, 0x1000, 0x3000, 0x1000]);
    // Two sizes, and nothing else: bytes that differ lie within them.
    let changed: Vec<usize> = (0..bytes.len()).filter(|index| bytes[*index] != original[*index]).collect();
    assert!(changed.len() <= 4, "{changed:?}");

    assert_eq!(align_data(&mut bytes).unwrap(), 0);
    assert_eq!(
        program.to_string(),
        "Mach-O x86_64 executable, macOS 11.0 or later, imports /usr/lib/libSystem.B.dylib"
    );
}

#[test]
fn takes_the_older_form_of_the_minimum_version() {
    let old = command(LC_VERSION_MIN_MACOSX, &[0x000b_0000u32.to_le_bytes(), [0; 4]].concat());
    assert_eq!(File::good().with(5, old).faults(), Vec::<String>::new());
}

#[test]
fn names_every_fault() {
    let mut arm = File::good();
    arm.cpu = 0x0100_000c;
    assert_eq!(arm.faults(), ["it is for CPU type 0x100000c, not for x86_64"]);
    let mut library_file = File::good();
    library_file.kind = 6;
    assert_eq!(library_file.faults(), ["its file type is 6, not 2 (an executable)"]);
    let newer = File::good().with(5, build_version(PLATFORM_MACOS, 0x000e_0200));
    assert_eq!(newer.faults(), ["it needs macOS 14.2, 11.0 was asked for"]);
    let older = File::good().with(5, build_version(PLATFORM_MACOS, 0x000a_0d00));
    assert_eq!(older.faults(), ["it needs macOS 10.13, 11.0 was asked for"]);
    let phone = File::good().with(5, build_version(2, 0x000b_0000));
    assert_eq!(phone.faults(), ["it is for another platform than macOS alone"]);
    let none = File::good().with(5, command(0x1b, &[0; 16]));
    assert_eq!(none.faults(), ["it names no minimum version of macOS, 11.0 was asked for"]);
    let entry = File::good().with(6, command(0x1b, &[0; 16]));
    assert_eq!(entry.faults(), ["it names no entry point"]);
    let mut iconv = File::good();
    iconv.commands.push(library("/usr/lib/libiconv.2.dylib"));
    assert_eq!(
        iconv.faults(),
        [
            "it imports /usr/lib/libSystem.B.dylib, /usr/lib/libiconv.2.dylib, only /usr/lib/libSystem.B.dylib is allowed"
        ]
    );
    let overlap = File::good().with(4, segment("__LINKEDIT", (1 << 32) + 0x5000, 0x1000, 0x4000, 0x10));
    assert_eq!(overlap.faults(), ["segments __DATA and __LINKEDIT overlap in memory"]);
}

#[test]
fn says_what_other_files_are() {
    assert_eq!(error(b""), "it is too short for any program: it is cut");
    assert_eq!(error(b"\x7fELF\x02\x01"), "it is an ELF file, a program for Linux");
    assert_eq!(error(b"#!/bin/sh\n"), "it is no Mach-O file (it begins with [23, 21, 2f, 62])");
    assert_eq!(error(b"\xca\xfe\xba\xbe\0\0\0\x02"), "it holds several programs (a universal file), not one");
    assert_eq!(error(b"\xce\xfa\xed\xfe"), "it is a 32-bit Mach-O file");
}

#[test]
fn refuses_damaged_load_commands() {
    let beyond = File::good().with(3, segment("__DATA", 1 << 33, 0x1000, 0x4fff, 2));
    assert!(error(&beyond.bytes()).ends_with("segment __DATA goes beyond the file's end"));
    let wraps = File::good().with(3, segment("__DATA", u64::MAX, 2, 0, 0));
    assert!(error(&wraps.bytes()).ends_with("segment __DATA wraps"));
    let outside = command(LC_LOAD_DYLIB, &[&9999u32.to_le_bytes()[..], &[0; 12]].concat());
    assert!(error(&File::good().with(7, outside).bytes()).ends_with("its name is outside"));
    let mut zero = File::good().bytes();
    zero[HEADER_LEN + 4..HEADER_LEN + 8].fill(0);
    assert_eq!(error(&zero), "load command 0 has 0 bytes");
    let mut many = File::good().bytes();
    many[16..20].fill(0xff);
    assert_eq!(error(&many), "load command 8 is cut: it is cut");
    let mut few = File::good().bytes();
    few[16] = 7;
    assert!(error(&few).starts_with("its load commands end "));
    let mut long = File::good().bytes();
    long[20..24].fill(0xff);
    assert_eq!(error(&long), "its load commands have 4294967295 bytes and the file ends before");
}

#[test]
fn refuses_to_change_a_signed_file() {
    let mut signed = File::good();
    signed.commands.push(command(LC_CODE_SIGNATURE, &[0; 8]));
    let message = align_data(&mut signed.bytes()).unwrap_err().to_string();
    assert_eq!(message, "it is signed, and changing it would break the signature");
}

#[test]
fn never_panics_on_damage() {
    let good = File::good().bytes();
    let interesting = HEADER_LEN + File::good().commands.concat().len();
    for len in 0..=interesting {
        // Cut short: what is left of the body is missing as well.
        assert!(MachO::parse(&good[..len]).is_err(), "{len}");
    }
    for at in 0..interesting {
        for value in [0, 1, 7, 0x7f, 0x80, 0xff] {
            let mut damaged = good.clone();
            damaged[at] = value;
            if let Ok(program) = MachO::parse(&damaged) {
                let _ = program.faults(ELEVEN);
                let _ = program.to_string();
            }
            let _ = align_data(&mut damaged);
        }
    }
}
