//! Runs other programs for what they say of themselves, and not for long.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program that only says its version takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Most that is read of it, bytes.
const OUTPUT_MAX: u64 = 64 << 10;

/// What the command prints, stdout and then stderr; `None` if it can't be run, fails, or takes too long.
pub(super) fn output(mut command: Command) -> Option<String> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    let (stdout, stderr) = (child.stdout.take()?, child.stderr.take()?);
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.take(OUTPUT_MAX).read_to_end(&mut bytes);
        let _ = stderr.take(OUTPUT_MAX).read_to_end(&mut bytes);
        bytes
    });
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                // Its reader may be held up by what it has started; it ends with this program.
                return None;
            }
        }
    };
    let bytes = reader.join().ok()?;
    status.success().then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_that_of_programs_that_succeed() {
        assert_eq!(output(sh("echo out; echo err >&2")), Some("out\nerr\n".into()));
        assert_eq!(output(sh("echo out; exit 1")), None);
        assert_eq!(output(Command::new("/no/such/program")), None);
    }
}
