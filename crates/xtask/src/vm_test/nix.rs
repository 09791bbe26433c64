//! Nix in the machine, as an ordinary user has it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::machine::Machine;
use crate::world::limited::Running;
use crate::world::session::{Build, Built};

/// The stages' own fixtures.
const FILE: &str = "fixtures/vm-test.nix";

impl Machine {
    /// An attribute of the stages' fixtures, which no earlier run has built.
    pub fn fixture(&self, attribute: &str) -> Build {
        let file = self.plan.payload.join(FILE);
        Build::at(&file, attribute).with(&["--argstr", "run", &self.token, "--argstr", "fault", self.fault])
    }

    /// Builds as the ordinary user; at most this long.
    pub fn build(&self, build: &Build, seconds: u64) -> Result<Built> {
        let mut command = build.command(self.user("nix-build")?);
        Ok(self.run(&mut command, seconds)?.into())
    }

    /// Starts to build.
    pub fn start_build(&self, build: &Build) -> Result<Running> {
        self.start(&mut build.command(self.user("nix-build")?))
    }

    /// The derivation that a build would build.
    pub fn instantiate(&self, build: &Build) -> Result<PathBuf> {
        let finished = self.must(&mut build.instantiation(self.user("nix-instantiate")?))?;
        let text = String::from_utf8(finished.stdout)?;
        Ok(PathBuf::from(text.lines().next().context("no derivation")?))
    }

    /// Lines that `nix-store` prints, asked by the ordinary user.
    pub fn nix_store(&self, arguments: &[&str], path: &Path) -> Result<Vec<String>> {
        let finished = self.must(self.user("nix-store")?.args(arguments).arg(path))?;
        Ok(String::from_utf8_lossy(&finished.stdout).lines().map(str::to_owned).collect())
    }

    /// The stored log of a derivation.
    pub fn stored_log(&self, derivation: &Path) -> Result<String> {
        let finished = self.must(self.user("nix-store")?.arg("--read-log").arg(derivation))?;
        Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
    }

    /// What the daemon says came of the build of a fixture: `succeeded`, `failed` or `cancelled`. An error if the daemon
    /// has not had it. A front end names the derivation or, if Nix does not tell that, an output.
    pub fn fate(&self, attribute: &str) -> Result<String> {
        let name = format!("-vm-test-{attribute}-{}", self.token);
        let status = self.status()?;
        let ended = status["recent"].as_array().into_iter().flatten();
        let mut ours =
            ended.filter(|build| build["derivation"].as_str().is_some_and(|path| path.contains(&name)));
        let build = ours.next().with_context(|| format!("the builder has not built {name}: {status:#}"))?;
        Ok(build["fate"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a running build has printed `text`.
    pub fn wait_for(&self, running: &mut Running, text: &str, seconds: u64) -> Result<Duration> {
        let started = std::time::Instant::now();
        let mut ended = None;
        self.wait(seconds, &format!("the build prints {text:?}"), || {
            if String::from_utf8_lossy(&running.stderr_so_far()?).contains(text) {
                return Ok(true);
            }
            if !running.is_running()? {
                ended = Some(String::from_utf8_lossy(&running.stderr_so_far()?).into_owned());
                return Ok(true);
            }
            Ok(false)
        })?;
        ensure!(
            ended.is_none(),
            "the build ended before it printed {text:?}:\n{}",
            ended.unwrap_or_default()
        );
        Ok(started.elapsed())
    }

    /// The next build works: what came before has done no harm.
    pub fn next_build_works(&self, after: &str) -> Result<()> {
        let build = self.fixture("next").with(&["--argstr", "after", after]);
        let built = self.build(&build, 120)?.succeeds();
        built.with_context(|| format!("the next build after {after} does not work"))?;
        Ok(())
    }
}
