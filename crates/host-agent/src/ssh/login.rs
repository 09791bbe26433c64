//! What makes a slot one that can be logged into: the files of its `sshd`, and how that is started.
//!
//! They can't be written in the slot, so that nobody who has logged in can change who else may. The host's key can be read by
//! the slot's uid, because `sshd` has no other; it is therefore no secret to whoever has logged in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `sshd` in every guest.
pub const SSHD: &str = "/usr/sbin/sshd";

/// Its arguments: one connection, on its standard input and output; its log on standard error.
pub const SSHD_ARGUMENTS: [&str; 4] = ["-i", "-e", "-f", CONFIG];

/// Names that can log in. All are the slot's uid.
pub const USERS: [&str; 2] = ["builder", "root"];

/// Directory of these files in the slot's root.
pub const DIRECTORY: &str = "run/db/ssh";

/// Seconds for logging in.
pub const GRACE_SECONDS: u64 = 30;

// Guests see the slot's root here.
const CONFIG: &str = "/Volumes/SystemRoot/run/db/ssh/sshd_config";

/// The keys of a slot that can be logged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The host's private key.
    pub host_key: HostKey,
    /// The public key that may log in, as a line without its end.
    pub authorized_key: String,
}

/// A private key in OpenSSH's form; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey(String);

impl HostKey {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HostKey")
    }
}

/// A file of `sshd`'s in [`DIRECTORY`].
#[derive(Debug, PartialEq, Eq)]
pub struct LoginFile<'a> {
    /// Its name.
    pub name: &'static str,
    /// What is in it.
    pub contents: std::borrow::Cow<'a, str>,
    /// Whether only the slot's uid may read it. Darling's `sshd` takes no key of another owner or with another mode.
    pub secret: bool,
}

impl Login {
    /// All of them.
    pub fn files(&self) -> [LoginFile<'_>; 3] {
        [
            LoginFile { name: "sshd_config", contents: config().into(), secret: false },
            LoginFile { name: "host_key", contents: self.host_key.0.as_str().into(), secret: true },
            // `restrict` says again what the configuration says of forwarding, whatever is still to be invented.
            LoginFile {
                name: "authorized_keys",
                contents: format!("restrict,pty {}\n", self.authorized_key).into(),
                secret: false,
            },
        ]
    }
}

/// Keys only, no forwarding of any kind. Nothing that OpenSSH 8.1, which Darling has, does not know.
fn config() -> String {
    let users = USERS.join(" ");
    let directory = format!("/Volumes/SystemRoot/{DIRECTORY}");
    format!(
        "HostKey {directory}/host_key\n\
         AuthorizedKeysFile {directory}/authorized_keys\n\
         AllowUsers {users}\n\
         AuthenticationMethods publickey\n\
         PubkeyAuthentication yes\n\
         PasswordAuthentication no\n\
         ChallengeResponseAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         HostbasedAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         DisableForwarding yes\n\
         AllowTcpForwarding no\n\
         AllowStreamLocalForwarding no\n\
         AllowAgentForwarding no\n\
         X11Forwarding no\n\
         PermitTunnel no\n\
         PermitUserEnvironment no\n\
         PermitUserRC no\n\
         StrictModes yes\n\
         LoginGraceTime {GRACE_SECONDS}\n\
         MaxAuthTries 3\n\
         UseDNS no\n\
         PrintMotd no\n\
         PrintLastLog no\n\
         LogLevel INFO\n\
         PidFile none\n\
         Subsystem sftp internal-sftp\n"
    )
}

/// Who has logged in, if that is what this line of `sshd`'s log says. What a client sends can't look like it: `sshd` escapes
/// ends of lines, and no other line begins so.
pub fn logged_in(line: &str) -> Option<&str> {
    let user = line.strip_prefix("Accepted publickey for ")?.split(' ').next()?;
    USERS.contains(&user).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_allows_keys_and_nothing_else() {
        insta::assert_snapshot!(config());
        assert!(config().contains(&format!("AllowUsers {}\n", USERS.join(" "))));
    }

    #[test]
    fn only_the_hosts_key_is_secret() {
        let login =
            Login { host_key: HostKey::new("secret\n".into()), authorized_key: "ssh-ed25519 AAAA x".into() };
        let files = login.files();
        assert_eq!(
            files.each_ref().map(|file| (file.name, file.secret)),
            [("sshd_config", false), ("host_key", true), ("authorized_keys", false)]
        );
        assert_eq!(files[2].contents, "restrict,pty ssh-ed25519 AAAA x\n");
    }

    #[test]
    fn a_login_is_told_from_what_merely_looks_like_one() {
        let line = "Accepted publickey for builder from UNKNOWN port 65535 ssh2: ED25519 SHA256:x";
        assert_eq!(logged_in(line), Some("builder"));
        for line in [
            "Accepted publickey for nobody from UNKNOWN port 65535 ssh2",
            "Accepted password for builder from UNKNOWN port 65535 ssh2",
            "Invalid user Accepted publickey for builder from UNKNOWN port 65535",
            " Accepted publickey for builder from UNKNOWN port 65535 ssh2",
            "Accepted publickey for ",
            "",
        ] {
            assert_eq!(logged_in(line), None, "{line}");
        }
    }
}
