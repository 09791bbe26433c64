//! The user's guide, taken at its word: every command that stands in it on a line of its own is run.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::machine::Machine;

/// In the repository, and in a payload.
pub const PAGE: &str = "docs/darwin-builder.md";
/// Begins a block of commands, each on a line, for `sh`.
const BLOCK: &str = "```sh";
/// The guide has no less; a page that lost its commands would be no test.
const AT_LEAST: usize = 5;

impl Machine {
    /// Runs the guide's commands in their order: those of Nix as the ordinary user, others as root. Each must succeed.
    pub fn follow_the_guide(&mut self) -> Result<()> {
        let file = self.plan.payload.join(PAGE);
        let page = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
        let commands = commands(&page);
        ensure!(commands.len() >= AT_LEAST, "{} commands in {PAGE}: {commands:?}", commands.len());
        for line in commands {
            if line.starts_with("host-agent install") && !self.plan.install {
                self.note(format!("`{line}` is not run: this machine is not set up by it"));
                continue;
            }
            let mut shell = match line.starts_with("nix") {
                true => self.user("sh")?,
                false => self.root("sh"),
            };
            let finished = self.run(shell.args(["-c", line]), 120)?;
            finished.must_succeed().with_context(|| format!("the guide's command does not work: {line}"))?;
            self.say(format!("$ {line}"));
        }
        Ok(())
    }
}

/// The lines of all blocks of commands.
fn commands(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in page.lines().map(str::trim) {
        match line {
            BLOCK => inside = true,
            "```" => inside = false,
            "" => {}
            command if inside => commands.push(command),
            _ => {}
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_lines_of_shell_blocks_wherever_they_stand() {
        let page = "text\n```sh\none\n\ntwo --flag\n```\n1. item\n   ```sh\n   three\n   ```\n```\nnot this\n```\n```nix\nnor this\n```\n";
        assert_eq!(commands(page), ["one", "two --flag", "three"]);
    }

    #[test]
    fn the_guide_has_commands() {
        let page = include_str!("../../../../docs/darwin-builder.md");
        assert!(commands(page).len() >= AT_LEAST, "{:?}", commands(page));
        assert!(commands(page).contains(&"host-agent install"));
    }
}
