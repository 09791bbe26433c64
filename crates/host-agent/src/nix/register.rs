//! Making outputs valid: one `nix-store --register-validity --hash-given` for all of them.
//!
//! It takes no path lock (the goal that waits for us holds those), checks nothing that we give it, and does it in one
//! transaction. Starting it takes most of its time, so it is started when the build is and waits for its input; if the
//! build fails it is ended without any, which registers nothing.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use thiserror::Error;

use super::store_command::NixProgram;
use super::text_encoding::hex;
use crate::store_path::StoreName;

/// What is registered of one output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The output.
    pub path: StoreName,
    /// SHA-256 of its NAR serialisation.
    pub nar_sha256: [u8; 32],
    /// Length of its NAR serialisation, bytes.
    pub nar_size: u64,
    /// What it refers to.
    pub references: Vec<StoreName>,
}

/// Why outputs were not registered.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// The command could not be started.
    #[error(
        "failed to start `nix-store --register-validity`: {0}; put Nix's commands on the PATH of the Nix daemon"
    )]
    Start(io::Error),
    /// Talking to it failed.
    #[error("failed to talk to `nix-store --register-validity`: {0}")]
    Io(io::Error),
    /// It refused.
    #[error("`nix-store --register-validity` failed ({status}): {stderr}")]
    Refused {
        /// Exit status or signal.
        status: String,
        /// What it printed.
        stderr: String,
    },
}

/// A registration that waits for its input.
#[derive(Debug)]
pub struct Registrar {
    child: Option<Child>,
}

impl Registrar {
    /// Starts the command, which opens the store and then waits.
    pub fn start(nix: &NixProgram) -> Result<Self, RegisterError> {
        let mut command = nix.command("nix-store");
        command
            .args(["--store", "local", "--register-validity", "--hash-given"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Self { child: Some(command.spawn().map_err(RegisterError::Start)?) })
    }

    /// Registers all outputs of a derivation, or none.
    pub fn register(
        mut self,
        store: &Path,
        deriver: &StoreName,
        outputs: &[Registration],
    ) -> Result<(), RegisterError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let stdin = child.stdin.take();
        let written = stdin.map_or(Ok(()), |mut stdin| stdin.write_all(&encode(store, deriver, outputs)));
        let mut stderr = Vec::new();
        if let Some(mut pipe) = child.stderr.take() {
            pipe.read_to_end(&mut stderr).map_err(RegisterError::Io)?;
        }
        let status = child.wait().map_err(RegisterError::Io)?;
        if !status.success() {
            let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
            return Err(RegisterError::Refused { status: status.to_string(), stderr });
        }
        // A command that has read everything and succeeded has also left its input open until then.
        written.map_err(RegisterError::Io)
    }
}

impl Drop for Registrar {
    /// Ends a command that was not used: without input it registers nothing.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Lines for standard input: path, hash, size, deriver, number of references, references. Each ends in a newline; a
/// last line without one would be an error.
fn encode(store: &Path, deriver: &StoreName, outputs: &[Registration]) -> Vec<u8> {
    let absolute = |path: &StoreName| path.in_store(store).display().to_string();
    let mut text = String::new();
    for output in outputs {
        let mut lines = vec![
            absolute(&output.path),
            hex(&output.nar_sha256),
            output.nar_size.to_string(),
            absolute(deriver),
            output.references.len().to_string(),
        ];
        lines.extend(output.references.iter().map(absolute));
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_register_validity_reads() {
        let name = |letter: char| {
            StoreName::parse(format!("{}-{letter}", letter.to_string().repeat(32)).as_bytes()).unwrap()
        };
        let output = Registration {
            path: name('a'),
            nar_sha256: [0xab; 32],
            nar_size: 120,
            references: vec![name('a'), name('b')],
        };
        let text = encode(Path::new("/nix/store"), &name('d'), &[output]);
        insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r"
        /nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a
        abababababababababababababababababababababababababababababababab
        120
        /nix/store/dddddddddddddddddddddddddddddddd-d
        2
        /nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a
        /nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b
        ");
    }
}
