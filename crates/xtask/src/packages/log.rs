//! What a package's log says: how far it came, how its tests went, and what went wrong first.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Begins a line that names a phase: `== configure, 3 s`.
const MARK: &str = "== ";

/// Name of the last phase.
pub const DONE: &str = "done";

/// A phase and when it began, seconds after the builder's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Seconds.
    pub at: u64,
}

impl Phase {
    /// The phase that begins in this line, if one does.
    pub fn parse(line: &str) -> Option<Self> {
        let (name, at) = line.strip_prefix(MARK)?.split_once(", ")?;
        Some(Self { name: name.to_owned(), at: at.strip_suffix(" s")?.parse().ok()? })
    }
}

/// Sums of Automake's summaries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// Passed, and failed as expected.
    pub passed: u64,
    /// Skipped.
    pub skipped: u64,
    /// Names of those that failed.
    pub failed: Vec<String>,
}

/// What kind of thing went wrong; found by words in the first error, so a hint, not a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// A system call that Darling has not, or has differently.
    Syscall,
    /// A function that a library of the guest has not.
    LibrarySymbol,
    /// Nothing happened for too long.
    Stall,
    /// A program that was called is missing or crashed.
    Tool,
    /// A test of the package failed.
    Test,
    /// Anything else, as compiler errors.
    Build,
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Category::Syscall => "syscall",
            Category::LibrarySymbol => "library symbol",
            Category::Stall => "stall",
            Category::Tool => "tool",
            Category::Test => "test",
            Category::Build => "build",
        })
    }
}

/// Words of an error and what they mean; the first that fits counts.
const WORDS: &[(&str, Category)] = &[
    ("unimplemented syscall", Category::Syscall),
    ("function not implemented", Category::Syscall),
    ("operation not supported", Category::Syscall),
    ("symbol not found", Category::LibrarySymbol),
    // A linker that was to make no program and does not know that.
    ("undefined symbol: _main", Category::Tool),
    ("undefined symbol", Category::LibrarySymbol),
    ("library not loaded", Category::LibrarySymbol),
    ("stalled", Category::Stall),
    ("silent", Category::Stall),
    ("took too long", Category::Stall),
    ("fail: ", Category::Test),
    ("command not found", Category::Tool),
    ("segmentation fault", Category::Tool),
    ("bus error", Category::Tool),
    ("abort trap", Category::Tool),
    ("illegal instruction", Category::Tool),
    ("floating point exception", Category::Tool),
    ("due to signal", Category::Tool),
    ("unsupported linker arg", Category::Tool),
    (": *** ", Category::Build),
    ("error: ", Category::Build),
];

/// As [`WORDS`], but also said when nothing is wrong: used only when there is nothing better.
const WEAK_WORDS: &[(&str, Category)] = &[
    ("no such file or directory", Category::Tool),
    ("cannot ", Category::Build),
    ("error", Category::Build),
];

/// All that a log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Phases in order.
    pub phases: Vec<Phase>,
    /// Tests, if any were run.
    pub tests: Option<Tests>,
    /// Lines of the guest about what it lacks, and how often.
    pub unimplemented: usize,
    last_phase: Vec<String>,
}

impl Log {
    /// Reads a whole log, whatever bytes it has.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut log = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            if line.starts_with("Unimplemented syscall") {
                log.unimplemented += 1;
            }
            if let Some(phase) = Phase::parse(line) {
                log.phases.push(phase);
                log.last_phase.clear();
                continue;
            }
            log.count(line);
            log.last_phase.push(line.to_owned());
        }
        log
    }

    fn count(&mut self, line: &str) {
        let mut tests = self.tests.take().unwrap_or_default();
        let number = |key: &str| line.strip_prefix(key).and_then(|rest| rest.trim().parse::<u64>().ok());
        tests.passed += number("# PASS:").or_else(|| number("# XFAIL:")).unwrap_or(0);
        tests.skipped += number("# SKIP:").unwrap_or(0);
        let in_check = self.phases.last().is_some_and(|phase| phase.name == "check");
        if let Some(name) =
            line.strip_prefix("FAIL: ").or_else(|| line.strip_prefix("ERROR: ")).filter(|_| in_check)
        {
            tests.failed.push(name.trim().to_owned());
        }
        self.tests = Some(tests).filter(|tests| *tests != Tests::default());
    }

    /// The first line of the last phase that looks like an error, else its last line.
    pub fn first_error(&self) -> (String, Category) {
        // Code that a compiler shows is indented.
        let harmless = |line: &str| {
            line.starts_with([' ', '\t']) || line.starts_with("checking ") || line.contains("warning: ")
        };
        let first = |words: &[(&str, Category)]| {
            self.last_phase.iter().filter(|line| !harmless(line)).find_map(|line| {
                let lower = line.to_lowercase();
                let (_, category) = words.iter().find(|(word, _)| lower.contains(word))?;
                Some((line.clone(), *category))
            })
        };
        let found = first(WORDS).or_else(|| first(WEAK_WORDS));
        found.unwrap_or_else(|| {
            let last = self.last_phase.iter().rev().find(|line| !line.trim().is_empty());
            (last.cloned().unwrap_or_default(), Category::Build)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "building '/nix/store/x.drv'...\n== unpack, 0 s\n== configure, 1 s\nchecking for error: no\n\
        == build, 60 s\ncc -c a.c\ncmp: x: No such file or directory\n  1 | \"error: x\"\na.c:1:1: error: no type\nmake: *** [a.o] Error 1\nerror: builder failed\n";

    #[test]
    fn finds_the_first_error_of_the_phase_that_failed() {
        let log = Log::parse(FAILED.as_bytes());
        assert_eq!(log.phases.last(), Some(&Phase { name: "build".into(), at: 60 }));
        assert_eq!(log.first_error(), ("a.c:1:1: error: no type".into(), Category::Build));
    }

    #[test]
    fn takes_no_check_of_configure_and_no_warning_for_an_error() {
        let log = Log::parse(b"== configure, 1 s\nchecking for error: x... no\na.c:1: warning: no error: x\nconf: line 3: Segmentation fault: 11\n");
        assert_eq!(log.first_error().1, Category::Tool);
    }

    #[test]
    fn adds_up_the_summaries_of_test_suites() {
        let log = Log::parse(b"== check, 1 s\nFAIL: a\n# PASS:  3\n# FAIL: 1\n# SKIP: 2\n# PASS: 4\n== install, 2 s\nFAIL: b\n");
        assert_eq!(log.tests, Some(Tests { passed: 7, skipped: 2, failed: vec!["a".into()] }));
    }
}
