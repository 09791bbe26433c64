//! diffoscope's report of two trees, where it is installed.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// A report is cut there, bytes.
const REPORT_MAX: u64 = 1 << 20;

/// What diffoscope prints of the two; `None` if it is not on `PATH`. Its exit status says only that they differ.
pub fn report(first: &Path, second: &Path) -> Option<String> {
    let mut child = Command::new("diffoscope")
        .args(["--text", "-", "--max-text-report-size", &REPORT_MAX.to_string()])
        .args([first, second])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut text = Vec::new();
    let read = child.stdout.take().map(|stdout| stdout.take(REPORT_MAX).read_to_end(&mut text));
    // It ends by itself once nobody reads.
    let _ = child.wait();
    read?.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
