//! The C compiler of `fixtures/packages`: a Linux program that a Darwin build script calls inside Darling.
//!
//! It lies in a directory that `cargo xtask packages` puts together, beside zig, and its name says what it is: `cc` and its
//! other names compile and link, `ar` and `ranlib` are zig's. What is linked gets its data segments rounded up to whole
//! pages, as Darling's loader needs them. Linked statically: it runs whatever libraries the machine has.
//!
//! ```text
//! <store path>/bin/cc          this program
//!              zig/zig         runs everything
//!              cache/          of zig, with its runtime compiled; copied to where builds may write
//! ```

mod archive;
#[path = "../../darwin/mach_o/mod.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the rest checks programs, for `cargo xtask darwin`"))]
mod mach_o;

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// Where zig keeps what it has compiled, unless `ZIG_GLOBAL_CACHE_DIR` says otherwise: the slot's build directory.
const CACHE: &str = "/build/.zig-cache";

/// Darling says it is macOS 11. zig's checks of undefined behaviour are its own idea, no other compiler has them on; so is debug
/// information, with which every program holds the times of its object files.
const FLAGS: [&str; 5] = ["cc", "-target", "x86_64-macos.11.0", "-fno-sanitize=undefined", "-g0"];

/// Options after which nothing is linked.
const NOT_LINKING: [&str; 8] = ["-c", "-S", "-E", "-M", "-MM", "-v", "--version", "-dumpmachine"];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    match run(Path::new(&name), &arguments.collect::<Vec<_>>()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("darwin-cc: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run(name: &Path, arguments: &[OsString]) -> Result<u8> {
    let own = std::env::current_exe().context("failed to find myself")?;
    let home = own.ancestors().nth(2).context("not in a bin directory")?;
    let mut command = Command::new(home.join("zig/zig"));
    if std::env::var_os("ZIG_GLOBAL_CACHE_DIR").is_none() {
        let cache = Path::new(CACHE);
        if !cache.exists() {
            copy_once(&home.join("cache"), cache).context("failed to copy zig's cache")?;
        }
        command.env("ZIG_GLOBAL_CACHE_DIR", cache).env("ZIG_LOCAL_CACHE_DIR", cache);
    }
    match name.file_name().and_then(OsStr::to_str).unwrap_or_default() {
        tool @ ("ar" | "ranlib") => return Err(command.arg(tool).args(arguments).exec().into()),
        _ => command.args(FLAGS).args(arguments),
    };
    let links = !arguments.iter().any(|argument| NOT_LINKING.iter().any(|option| argument == option));
    if !links {
        return Err(command.exec().into());
    }
    let members = Members::extract(arguments, home).context("failed to look into static libraries")?;
    let status = command.args(&members.files).status().context("failed to run zig")?;
    if status.success() {
        align(&output(arguments))?;
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(126))
}

/// Object files taken out of static libraries; removed in the end.
#[derive(Default)]
struct Members {
    directory: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Members {
    /// Those that libSystem would wrongly be preferred to, see [`archive`].
    fn extract(arguments: &[OsString], home: &Path) -> Result<Self> {
        let mut members = Self::default();
        let archives = archives(arguments);
        if archives.is_empty() {
            return Ok(members);
        }
        let stub = fs::read_to_string(home.join("zig/lib/libc/darwin/libSystem.tbd"))?;
        let symbols = archive::stub_symbols(&stub);
        let mut taken = HashSet::new();
        for path in archives {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            for member in archive::conflicting(&bytes, &symbols, &mut taken) {
                let directory = members.directory.get_or_insert_with(|| {
                    std::env::temp_dir().join(format!("darwin-cc-{}", std::process::id()))
                });
                fs::create_dir_all(&*directory)?;
                let file = directory.join(format!("{}.o", members.files.len()));
                fs::write(&file, member)?;
                members.files.push(file);
            }
        }
        Ok(members)
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Static libraries that are named, or found for `-l`.
fn archives(arguments: &[OsString]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = Vec::new();
    let mut after = "";
    for argument in arguments {
        let text = argument.to_str().unwrap_or_default();
        match (std::mem::take(&mut after), text) {
            ("-L", directory) => directories.push(directory),
            ("-o", _) => {}
            (_, "-L" | "-o") => after = text,
            (_, text) if text.ends_with(".a") && !text.starts_with('-') => found.push(PathBuf::from(text)),
            (_, text) => directories.extend(text.strip_prefix("-L")),
        }
    }
    let libraries = arguments.iter().filter_map(|argument| argument.to_str()?.strip_prefix("-l"));
    for library in libraries {
        let file = format!("lib{library}.a");
        found.extend(
            directories.iter().map(|directory| Path::new(directory).join(&file)).find(|path| path.exists()),
        );
    }
    found.dedup();
    found
}

/// What `-o` names.
fn output(arguments: &[OsString]) -> PathBuf {
    let mut output = PathBuf::from("a.out");
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "-o" {
            output = arguments.next().map(PathBuf::from).unwrap_or(output);
        } else if let Some(joined) = argument.to_str().and_then(|text| text.strip_prefix("-o")) {
            output = joined.into();
        }
    }
    output
}

/// Rounds up the data segments of what was linked; anything else but a Mach-O file is left alone.
fn align(output: &Path) -> Result<()> {
    let Ok(mut bytes) = fs::read(output) else { return Ok(()) };
    if !bytes.starts_with(&[0xcf, 0xfa, 0xed, 0xfe]) {
        return Ok(());
    }
    let shown = || format!("failed to align {}", output.display());
    if mach_o::align_data(&mut bytes).with_context(shown)? > 0 {
        fs::write(output, bytes).with_context(shown)?;
    }
    Ok(())
}

/// Copies a tree under another name and puts it in place at once: several compilers start together.
fn copy_once(from: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension(std::process::id().to_string());
    copy_tree(from, &new)?;
    match fs::rename(&new, to) {
        Err(_) if to.exists() => fs::remove_dir_all(new),
        result => result,
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            // Not fs::copy: modes in a store say read-only.
            fs::write(to, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
