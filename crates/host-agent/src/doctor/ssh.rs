//! Logging in over ssh: whether somebody answers, and whether the keys are nobody else's to read. Builds don't need it, so
//! nothing here is worse than a warning.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::Finding;
use crate::config::Config;
use crate::ssh::keys::{KeyError, KeyFiles, read};

/// Enough for a slot that is booted for this question.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Lines before the version of the protocol, at most (RFC 4253, 4.2, sets no limit).
const LINES_MAX: usize = 20;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if !config.ssh.enable {
        return vec![Finding::fine("ssh", "off (`ssh.enable`)")];
    }
    vec![answer(config.ssh.port.get()), keys(&KeyFiles::new(&config.ssh, &config.state_directory))]
}

fn answer(port: u16) -> Finding {
    const NAME: &str = "ssh";
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match version(address) {
        Ok(version) => Finding::fine(NAME, format!("{version} answers on {address}")),
        Err(error) => Finding::warning(
            NAME,
            format!("no sshd answers on {address}: {error}"),
            "see that the daemon runs with this configuration, sshd above, and the daemon's log",
        ),
    }
}

/// What the `sshd` at this address says it is.
fn version(address: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut said = Vec::new();
    for line in BufReader::new(stream.take(8 << 10)).lines().take(LINES_MAX) {
        let line = line?;
        if line.starts_with("SSH-") {
            return Ok(line);
        }
        said.push(line);
    }
    Err(io::Error::other(if said.is_empty() { "it hung up".into() } else { said.join("; ") }))
}

fn keys(files: &KeyFiles) -> Finding {
    const NAME: &str = "ssh-keys";
    match [&files.host, &files.client].into_iter().try_for_each(|path| check(path)) {
        Ok(()) => Finding::fine(
            NAME,
            format!(
                "{} logs in; {} and it are nobody else's to read",
                files.client.display(),
                files.host.display()
            ),
        ),
        Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::untried(NAME)
        }
        Err(error) => {
            Finding::warning(NAME, error, "mend that, then restart the daemon, which makes what is missing")
        }
    }
}

fn check(path: &Path) -> Result<(), KeyError> {
    read(path).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::super::Severity;
    use super::*;

    fn answered(text: &'static [u8]) -> Finding {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(text).unwrap());
        let finding = answer(port);
        server.join().unwrap();
        finding
    }

    #[test]
    fn an_sshd_is_known_by_its_version_and_anything_else_is_quoted() {
        let finding = answered(b"some remark\r\nSSH-2.0-OpenSSH_8.1\r\n");
        assert_eq!(finding.severity, Severity::Fine);
        assert!(
            finding.detail.starts_with("SSH-2.0-OpenSSH_8.1 answers on 127.0.0.1:"),
            "{}",
            finding.detail
        );
        let finding = answered(b"darling-builder: too many sessions, end one\r\n");
        assert_eq!(finding.severity, Severity::Warning);
        assert!(
            finding.detail.ends_with(": darling-builder: too many sessions, end one"),
            "{}",
            finding.detail
        );
        assert!(answered(b"").detail.ends_with(": it hung up"));
    }

    #[test]
    fn keys_that_others_can_read_are_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let files = KeyFiles::new(&Config::default().ssh, directory.path());
        assert_eq!(keys(&files).severity, Severity::Warning);
        files.open(2222).unwrap();
        assert_eq!(keys(&files).severity, Severity::Fine);
        std::fs::set_permissions(&files.client, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(keys(&files).detail.contains("0644"));
    }
}
