//! The compiler, put together for the store: our `darwin-cc`, zig with what it needs for macOS, and zig's cache with its
//! runtime for the target, so that no build compiles that first.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::darwin::zig;
use crate::progress;
use crate::workspace::{Workspace, cargo};

/// Names under which `darwin-cc` is called. `ld` is only looked for: configure scripts of gettext's give up without one, and would
/// take the host's.
const NAMES: [&str; 6] = ["gcc", "clang", "x86_64-apple-darwin-cc", "ar", "ranlib", "ld"];

/// Parts of zig's `lib` that are of no use here: other systems' C libraries, C++, documentation.
const WITHOUT: [&str; 13] = [
    "libc/freebsd",
    "libc/glibc",
    "libc/mingw",
    "libc/musl",
    "libc/netbsd",
    "libc/openbsd",
    "libc/wasi",
    "libcxx",
    "libcxxabi",
    "libtsan",
    "docs",
    "init",
    "build-web",
];

/// Makes `directory`, unless it has been made from the same programs.
pub fn make(workspace: &Workspace, directory: &Path) -> Result<()> {
    let darwin = workspace.target.join("darwin");
    fs::create_dir_all(&darwin)?;
    let zig = zig::find(None, &darwin)?;
    let wrapper = build_wrapper(workspace)?;
    let mut stamp = fs::read(&wrapper)?;
    stamp.extend(format!("{} {NAMES:?}", zig.display()).into_bytes());
    let stamp_file = directory.with_extension("stamp");
    if fs::read(&stamp_file).is_ok_and(|old| old == stamp) && directory.exists() {
        return Ok(());
    }
    progress("putting the compiler together …");
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory.join("bin"))?;
    fs::copy(&wrapper, directory.join("bin/cc"))?;
    for name in NAMES {
        symlink("cc", directory.join("bin").join(name))?;
    }
    copy_zig(&zig, &directory.join("zig"))?;
    warm(directory)?;
    Ok(fs::write(stamp_file, stamp)?)
}

/// `darwin-cc`, static: a slot has the machine's libraries only where Darling needs them.
fn build_wrapper(workspace: &Workspace) -> Result<std::path::PathBuf> {
    progress("building darwin-cc, for Linux …");
    let status = cargo(&workspace.project)
        .args(["rustc", "--quiet", "--package", "xtask", "--bin", "darwin-cc", "--"])
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .status()?;
    ensure!(status.success(), "cargo rustc failed");
    Ok(workspace.target.join("debug/darwin-cc"))
}

fn copy_zig(zig: &Path, to: &Path) -> Result<()> {
    let home = zig.parent().context("zig has no directory")?;
    fs::create_dir(to)?;
    let copied = Command::new("cp").arg("-r").arg(zig).arg(home.join("lib")).arg(to).status()?;
    ensure!(copied.success(), "failed to copy {}", home.display());
    for name in WITHOUT {
        let path = to.join("lib").join(name);
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
    }
    let headers = to.join("lib/libc/include");
    for entry in fs::read_dir(&headers)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.contains("macos") && !name.contains("darwin") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Compiles and links a program, for what zig leaves in its cache.
fn warm(directory: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    fs::write(scratch.path().join("a.c"), "int main(void) { return 0; }\n")?;
    let cache = directory.join("cache");
    let output = Command::new(directory.join("bin/cc"))
        .args(["-O1", "-o", "a", "a.c"])
        .current_dir(&scratch)
        .env("ZIG_GLOBAL_CACHE_DIR", &cache)
        .env("ZIG_LOCAL_CACHE_DIR", &cache)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!("the compiler does not work: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
