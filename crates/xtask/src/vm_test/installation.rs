//! `host-agent install` in a machine that has nothing of ours, and `uninstall`, after which it has nothing again.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::machine::Machine;
use super::manifest::Manifest;

/// Where we keep the list of the machine's files.
const MANIFEST: &str = "files-before.json";
/// Seconds for either, the first boot of a slot included.
pub const LIMIT: u64 = 300;

impl Machine {
    /// Takes the list of the machine's files, then installs.
    pub fn install_first(&mut self) -> Result<()> {
        // A Nix that is used makes its directories; they are not ours.
        self.must(self.root("nix-store").args(["--gc", "--print-roots"]))?;
        self.must(self.user("nix-store")?.args(["--gc", "--print-roots"]))?;
        let before = Manifest::of(Path::new("/"))?;
        fs::write(self.scratch(MANIFEST), serde_json::to_vec(&before)?)?;
        self.configure()?;
        self.install()?;
        self.daemon_answers(240)
    }

    /// What the machine's owner writes: the guest, and that one may log in. The rest is as it comes.
    fn configure(&self) -> Result<()> {
        let guest = self.plan.guest.as_str();
        let text = format!("guest = \"{guest}\"\n\n[ssh]\nenable = true\n");
        let file = self.config_file();
        fs::create_dir_all(file.parent().context("no directory")?)?;
        fs::write(&file, text).with_context(|| format!("failed to write {}", file.display()))
    }

    /// `host-agent install`, from the payload.
    pub fn install(&mut self) -> Result<()> {
        let program = self.plan.payload.join("bin/host-agent");
        let finished = self.run(self.root(program).arg("install"), LIMIT)?.must_succeed()?;
        for line in String::from_utf8_lossy(&finished.stdout).lines() {
            self.say(line);
        }
        Ok(())
    }

    /// `host-agent uninstall`; the machine's files must be as before.
    pub fn uninstall(&mut self) -> Result<()> {
        let finished = self.run(&mut self.host_agent(&["uninstall"]), LIMIT)?.must_succeed()?;
        for line in String::from_utf8_lossy(&finished.stdout).lines() {
            self.say(line);
        }
        // The owner's own.
        let config = self.config_file();
        if config.exists() {
            fs::remove_file(&config)?;
            let _ = fs::remove_dir(config.parent().context("no directory")?);
        }
        let file = self.scratch(MANIFEST);
        let before: Manifest = serde_json::from_slice(&fs::read(&file)?)?;
        let differences = before.differences(&Manifest::of(Path::new("/"))?);
        ensure!(
            differences.is_empty(),
            "the machine's files are not as before:\n  {}",
            differences.join("\n  ")
        );
        self.say("the machine's files are as before");
        Ok(())
    }
}
