//! Nix's own remote builder on loopback: an sshd of our own, in a mount namespace with a store of its own.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::world::limited::{self, Running, wait_until};
use crate::world::session::Session;

const DIRECTORY: &str = "/scratch/remote";
const PORT: u16 = 2223;

/// An sshd that runs.
#[derive(Debug)]
pub struct Remote {
    _sshd: Running,
}

impl Remote {
    /// Starts it and builds nothing yet.
    pub fn start(session: &Session) -> Result<Self> {
        fs::create_dir_all(format!("{DIRECTORY}/nix/store"))?;
        fs::create_dir_all("/run/sshd")?;
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(format!("{DIRECTORY}/{key}"));
            limited::run(&mut keygen, Duration::from_secs(20))?.must_succeed()?;
        }
        fs::copy(format!("{DIRECTORY}/user.pub"), format!("{DIRECTORY}/authorized"))?;
        // The same Nix on the other side: no sandbox, and willing to build for the platform.
        let program = format!("{DIRECTORY}/nix-store");
        fs::write(
            &program,
            "#!/bin/sh\nexport NIX_CONF_DIR=/run/nix-conf\n\
             export NIX_CONFIG=\"$(printf 'build-users-group =\\nsandbox = false\\nsubstituters =\\nextra-platforms = x86_64-darwin\\n')\"\n\
             exec nix-store \"$@\"\n",
        )?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::write(
            format!("{DIRECTORY}/sshd_config"),
            format!(
                "Port {PORT}\nListenAddress 127.0.0.1\nHostKey {DIRECTORY}/host\nAuthorizedKeysFile {DIRECTORY}/authorized\n\
                 PasswordAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPidFile none\nUseDNS no\n"
            ),
        )?;
        let script = format!(
            "mount --bind {DIRECTORY}/nix /nix && exec /usr/sbin/sshd -D -e -f {DIRECTORY}/sshd_config"
        );
        let mut sshd = Command::new("unshare");
        let mut sshd = limited::start(sshd.args(["--mount", "sh", "-c", &script]))?;
        let up = wait_until(Duration::from_secs(10), || {
            Ok(!sshd.is_running()? || TcpStream::connect(("127.0.0.1", PORT)).is_ok())
        })?;
        ensure!(up && sshd.is_running()?, "sshd: {}", String::from_utf8_lossy(&sshd.stderr_so_far()?));
        let remote = Self { _sshd: sshd };
        let mut try_it = Command::new("ssh");
        try_it.args(["-p", &PORT.to_string()]).args(options()).args([
            "root@127.0.0.1",
            &program,
            "--version",
        ]);
        let tried = limited::run(&mut try_it, Duration::from_secs(20))?
            .must_succeed()
            .context("ssh does not work")?;
        let version = String::from_utf8_lossy(&tried.stdout).into_owned();
        ensure!(version.contains(&session.world.nix), "the other side has {version}");
        Ok(remote)
    }

    /// Makes a Nix command use it instead of our hook.
    pub fn configure(&self, command: &mut Command) {
        let builder = format!(
            "ssh://root@127.0.0.1?remote-program={DIRECTORY}/nix-store x86_64-darwin {DIRECTORY}/user 4 1 big-parallel"
        );
        let mut options_text = format!("-p {PORT}");
        for option in options() {
            options_text.push(' ');
            options_text.push_str(&option);
        }
        command.env("NIX_SSHOPTS", options_text);
        command.env(
            "NIX_CONFIG",
            format!(
                "build-users-group =\nsandbox = false\nsubstituters =\nmax-jobs = 2\ncores = 2\nbuilders = {builder}\n"
            ),
        );
    }
}

fn options() -> Vec<String> {
    [
        "-i".into(),
        format!("{DIRECTORY}/user"),
        "-oStrictHostKeyChecking=no".into(),
        "-oUserKnownHostsFile=/dev/null".into(),
        "-oLogLevel=ERROR".into(),
        "-oBatchMode=yes".into(),
    ]
    .into()
}
