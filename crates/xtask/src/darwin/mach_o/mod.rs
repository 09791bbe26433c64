//! As much of the Mach-O format as decides whether Darling can start a program.
//!
//! Constants and layouts are those of `mach-o/loader.h` in Apple's xnu sources. The input may be anything: every read
//! is checked against the file.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

const MAGIC_64: u32 = 0xfeed_facf;
const CPU_TYPE_X86_64: u32 = 0x0100_0007;
const EXECUTE: u32 = 2;
const HEADER_LEN: usize = 32;

const LC_SEGMENT_64: u32 = 0x19;
const LC_LOAD_DYLIB: u32 = 0x0c;
const LC_LOAD_WEAK_DYLIB: u32 = 0x8000_0018;
const LC_REEXPORT_DYLIB: u32 = 0x8000_001f;
const LC_LAZY_LOAD_DYLIB: u32 = 0x20;
const LC_LOAD_UPWARD_DYLIB: u32 = 0x8000_0023;
const LC_CODE_SIGNATURE: u32 = 0x1d;
const LC_VERSION_MIN_MACOSX: u32 = 0x24;
const LC_BUILD_VERSION: u32 = 0x32;
const LC_MAIN: u32 = 0x8000_0028;

const PLATFORM_MACOS: u32 = 1;

/// Page size on x86_64.
const PAGE: u64 = 4096;

/// The one library that may be imported: it is part of every macOS and every Darling.
const LIBRARY: &str = "/usr/lib/libSystem.B.dylib";

/// A version of macOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 11 in 11.0.
    pub major: u16,
    /// 0 in 11.0.
    pub minor: u8,
}

impl Version {
    /// As in load commands: xxxx.yy.zz in nibbles.
    fn from_packed(packed: u32) -> Self {
        let [_patch, minor, low, high] = packed.to_le_bytes();
        Self { major: u16::from_le_bytes([low, high]), minor }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A part of the program in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    name: String,
    /// Where its load command is in the file.
    command: usize,
    address: u64,
    size: u64,
    file_offset: u64,
    file_size: u64,
}

impl Segment {
    fn is_data(&self) -> bool {
        self.name.starts_with("__DATA")
    }
}

/// What the header and the load commands of a 64-bit little-endian file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachO {
    cpu: u32,
    kind: u32,
    segments: Vec<Segment>,
    libraries: Vec<String>,
    /// Platform and oldest version, of each command that names one.
    minimum: Vec<(u32, Version)>,
    has_entry: bool,
    signed: bool,
}

impl fmt::Display for MachO {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == EXECUTE { "executable" } else { "file" };
        let cpu = if self.cpu == CPU_TYPE_X86_64 { "x86_64" } else { "foreign" };
        write!(f, "Mach-O {cpu} {kind}")?;
        for (_, version) in &self.minimum {
            write!(f, ", macOS {version} or later")?;
        }
        write!(f, ", imports {}", self.libraries.join(" "))
    }
}

impl MachO {
    /// Reads a header and all load commands.
    pub fn parse(file: &[u8]) -> Result<Self> {
        match number(file, 0).context("it is too short for any program")? {
            MAGIC_64 => {}
            0x464c_457f => bail!("it is an ELF file, a program for Linux"),
            0xbeba_feca | 0xbfba_feca => bail!("it holds several programs (a universal file), not one"),
            0xfeed_face => bail!("it is a 32-bit Mach-O file"),
            magic => bail!("it is no Mach-O file (it begins with {:02x?})", magic.to_le_bytes()),
        }
        let mut program = Self {
            cpu: number(file, 4)?,
            kind: number(file, 12)?,
            segments: Vec::new(),
            libraries: Vec::new(),
            minimum: Vec::new(),
            has_entry: false,
            signed: false,
        };
        let count = number(file, 16)?;
        let length = number(file, 20)? as usize;
        let commands = file
            .get(..HEADER_LEN.saturating_add(length))
            .with_context(|| format!("its load commands have {length} bytes and the file ends before"))?;
        let mut offset = HEADER_LEN;
        for index in 0..count {
            let (kind, size) =
                header(commands, offset).with_context(|| format!("load command {index} is cut"))?;
            ensure!(size >= 8 && size.is_multiple_of(8), "load command {index} has {size} bytes");
            let end = offset.checked_add(size).filter(|end| *end <= commands.len());
            let end = end.with_context(|| format!("load command {index} goes beyond the others"))?;
            program
                .take(kind, &commands[offset..end], offset, file.len())
                .with_context(|| format!("load command {index} ({kind:#x}) makes no sense"))?;
            offset = end;
        }
        ensure!(offset == commands.len(), "its load commands end {} bytes early", commands.len() - offset);
        Ok(program)
    }

    /// Adds what one load command says.
    fn take(&mut self, kind: u32, command: &[u8], offset: usize, file_len: usize) -> Result<()> {
        match kind {
            LC_SEGMENT_64 => {
                let segment = Segment {
                    name: text(command.get(8..24).context("it is cut")?)?,
                    command: offset,
                    address: long(command, 24)?,
                    size: long(command, 32)?,
                    file_offset: long(command, 40)?,
                    file_size: long(command, 48)?,
                };
                let end = segment.file_offset.checked_add(segment.file_size);
                ensure!(
                    end.is_some_and(|end| end <= file_len as u64),
                    "segment {} goes beyond the file's end",
                    segment.name
                );
                ensure!(
                    segment.address.checked_add(segment.size).is_some(),
                    "segment {} wraps",
                    segment.name
                );
                self.segments.push(segment);
            }
            LC_LOAD_DYLIB | LC_LOAD_WEAK_DYLIB | LC_REEXPORT_DYLIB | LC_LAZY_LOAD_DYLIB
            | LC_LOAD_UPWARD_DYLIB => {
                let name = command.get(number(command, 8)? as usize..).context("its name is outside")?;
                self.libraries.push(text(name)?);
            }
            LC_VERSION_MIN_MACOSX => {
                self.minimum.push((PLATFORM_MACOS, Version::from_packed(number(command, 8)?)));
            }
            LC_BUILD_VERSION => {
                self.minimum.push((number(command, 8)?, Version::from_packed(number(command, 12)?)));
            }
            LC_MAIN => self.has_entry = true,
            LC_CODE_SIGNATURE => self.signed = true,
            _ => {}
        }
        Ok(())
    }

    /// What keeps it from being started in Darling, in words; nothing if it is fit.
    pub fn faults(&self, minimum: Version) -> Vec<String> {
        let mut faults = Vec::new();
        if self.cpu != CPU_TYPE_X86_64 {
            faults.push(format!("it is for CPU type {:#x}, not for x86_64", self.cpu));
        }
        if self.kind != EXECUTE {
            faults.push(format!("its file type is {}, not 2 (an executable)", self.kind));
        }
        if !self.has_entry {
            faults.push("it names no entry point".to_owned());
        }
        match self.minimum[..] {
            [(PLATFORM_MACOS, version)] if version == minimum => {}
            [] => faults.push(format!("it names no minimum version of macOS, {minimum} was asked for")),
            [(PLATFORM_MACOS, version)] => {
                faults.push(format!("it needs macOS {version}, {minimum} was asked for"));
            }
            _ => faults.push("it is for another platform than macOS alone".to_owned()),
        }
        match &self.libraries[..] {
            [library] if library == LIBRARY => {}
            [] => faults.push("it imports no library".to_owned()),
            libraries => {
                faults.push(format!("it imports {}, only {LIBRARY} is allowed", libraries.join(", ")));
            }
        }
        if !self.segments.iter().any(|segment| segment.name == "__TEXT") {
            faults.push("it has no __TEXT segment".to_owned());
        }
        for segment in self.segments.iter().filter(|segment| segment.is_data()) {
            if !segment.size.is_multiple_of(PAGE) {
                faults.push(format!(
                    "the size of segment {} in memory, {:#x}, is no multiple of the page size, and Darling may leave \
                     its last page out",
                    segment.name, segment.size
                ));
            }
        }
        for (segment, next) in self.in_memory() {
            if segment.address + segment.size > next.address {
                faults.push(format!("segments {} and {} overlap in memory", segment.name, next.name));
            }
        }
        faults
    }

    /// Each segment with the one above it.
    fn in_memory(&self) -> Vec<(&Segment, &Segment)> {
        let mut segments: Vec<&Segment> = self.segments.iter().filter(|segment| segment.size > 0).collect();
        segments.sort_by_key(|segment| segment.address);
        segments.iter().copied().zip(segments.iter().copied().skip(1)).collect()
    }
}

/// Rounds the size in memory of every data segment up to whole pages; how many needed it. zig leaves them as they come,
/// and Darling's loader then may not map the last page of zero-initialised data. `__TEXT` must stay as it is: dyld
/// rejects one whose size in memory differs from that in the file.
pub fn align_data(file: &mut [u8]) -> Result<usize> {
    let program = MachO::parse(file)?;
    ensure!(!program.signed, "it is signed, and changing it would break the signature");
    let mut aligned = 0;
    for segment in program.segments.iter().filter(|segment| segment.is_data()) {
        let size = segment.size.checked_next_multiple_of(PAGE).context("a data segment is too large")?;
        if size != segment.size {
            let at = segment.command + 32;
            file.get_mut(at..at + 8).context("a load command is cut")?.copy_from_slice(&size.to_le_bytes());
            aligned += 1;
        }
    }
    Ok(aligned)
}

/// Kind and length of a load command.
fn header(commands: &[u8], offset: usize) -> Result<(u32, usize)> {
    Ok((number(commands, offset)?, number(commands, offset.saturating_add(4))? as usize))
}

fn number(bytes: &[u8], offset: usize) -> Result<u32> {
    let rest = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    rest.map(|bytes| u32::from_le_bytes(*bytes)).context("it is cut")
}

fn long(bytes: &[u8], offset: usize) -> Result<u64> {
    let rest = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    rest.map(|bytes| u64::from_le_bytes(*bytes)).context("it is cut")
}

/// Text up to the first NUL.
fn text(bytes: &[u8]) -> Result<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8(bytes[..end].to_vec()).context("a name is not text")
}

#[cfg(test)]
mod tests;
