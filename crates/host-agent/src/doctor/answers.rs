//! What a script inside a slot finds there.

use std::collections::BTreeMap;

use super::Finding;
use super::confinement::Attempts;
use crate::config::{Config, GuestKind};
use crate::request::BUILD_DIR;

/// `$1`: a store object that is an input, `$2`: one that is not; both empty where that is not to be tried. Darling prints
/// remarks of its own, so answers are marked. Signals come last: without their repair the script ends there.
pub(super) const SCRIPT: &str = r#"
say() { echo "doctor:$1=$2"; }
say system "$(uname -srm)"
cd /build && say directory "$(pwd -P)"
if [ -n "$1" ]; then
    if [ -e "$1/file" ]; then say input visible; else say input missing; fi
    if (: > "$1/new") 2>/dev/null; then say write allowed; else say write refused; fi
    if [ -e "$2" ]; then say outside visible; else say outside hidden; fi
fi
for program in /usr/sbin/sshd /usr/bin/sandbox-exec; do
    if [ -x "$program" ]; then say "$program" present; else say "$program" absent; fi
done
for agent in /Volumes/SystemRoot/run/db/darwin-agent*; do
    "$agent" --try-confinement | while read -r line; do echo "doctor:try=$line"; done
done
/bin/sh -c 'kill -TERM $$' 2>/dev/null
say signals survived
"#;

/// The answers, by what was asked.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_question: BTreeMap<String, String>,
    attempts: Attempts,
}

impl Answers {
    /// From what the script printed.
    pub(super) fn read(output: &[u8]) -> Self {
        let text = String::from_utf8_lossy(output);
        let answers =
            text.lines().filter_map(|line| line.trim_end().strip_prefix("doctor:")?.split_once('='));
        let (attempts, answers): (Vec<_>, Vec<_>) = answers.partition(|(name, _)| *name == "try");
        Self {
            by_question: answers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            attempts: Attempts::read(attempts.into_iter().map(|(_, line)| line)),
        }
    }

    fn of(&self, name: &str) -> &str {
        self.by_question.get(name).map_or("nothing", String::as_str)
    }

    /// What follows from them.
    pub(super) fn findings(&self, config: &Config) -> Vec<Finding> {
        let guest = config.guest;
        let mut findings = vec![self.system(guest), self.build_directory()];
        if self.by_question.contains_key("input") {
            findings.push(self.store_view());
        }
        findings.push(self.signals());
        findings.extend(self.attempts.findings(config.confinement()));
        if guest == GuestKind::Darling {
            findings.extend([self.sshd(), self.sandbox_exec()]);
        }
        findings
    }

    fn system(&self, guest: GuestKind) -> Finding {
        const NAME: &str = "guest-system";
        let system = self.of("system");
        match guest {
            GuestKind::Darling if system.starts_with("Darwin ") && system.ends_with(" x86_64") => {
                Finding::fine(NAME, system)
            }
            GuestKind::Linux if system.starts_with("Linux ") => Finding::warning(
                NAME,
                format!("{system}: the stand-in, which runs Linux programs only"),
                "set `guest = \"darling\"` to build for Darwin",
            ),
            _ => Finding::broken(
                NAME,
                format!("uname says {system}"),
                "check `darling.launcher`, and that `darling shell uname -a` works",
            ),
        }
    }

    fn build_directory(&self) -> Finding {
        const NAME: &str = "build-directory";
        match self.of("directory") {
            BUILD_DIR => Finding::fine(NAME, format!("{BUILD_DIR} by its own name, also for pwd -P")),
            other => Finding::broken(
                NAME,
                format!("{BUILD_DIR} calls itself {other}, and builds would record that"),
                "report this, with the version of Darling",
            ),
        }
    }

    fn store_view(&self) -> Finding {
        const NAME: &str = "store-view";
        match (self.of("input"), self.of("write"), self.of("outside")) {
            ("visible", "refused", "hidden") => {
                Finding::fine(NAME, "an input is there and read-only, anything else is not")
            }
            (input, write, outside) => Finding::broken(
                NAME,
                format!("an input is {input}, writing to it {write}, what is no input {outside}"),
                "report this, with the kernel's version and the store's file system: builds are not hermetic",
            ),
        }
    }

    fn signals(&self) -> Finding {
        const NAME: &str = "signals";
        match self.of("signals") {
            "survived" => Finding::fine(NAME, "a script outlives a child that a signal kills"),
            _ => Finding::warning(
                NAME,
                "a child that a signal kills takes its script with it, as stock Darling has it",
                "set `signal-repair = true` in [darling], and see seccomp-notification",
            ),
        }
    }

    fn sshd(&self) -> Finding {
        const NAME: &str = "sshd";
        match self.of("/usr/sbin/sshd") {
            "present" => Finding::fine(NAME, "present"),
            _ => Finding::warning(
                NAME,
                "no /usr/sbin/sshd in Darling: nobody can log in over ssh; builds don't need it",
                "install Darling's command-line components",
            ),
        }
    }

    fn sandbox_exec(&self) -> Finding {
        let present = self.of("/usr/bin/sandbox-exec");
        Finding::fine("sandbox-exec", format!("{present}; not needed, the slot is the sandbox"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn answers_are_found_among_the_guests_remarks() {
        let answers = Answers::read(
            b"doctor:system=Darwin 20.6.0 x86_64\nUnimplemented syscall (5)\ndoctor:directory=/build\n\
              doctor:input=visible\ndoctor:write=refused\ndoctor:outside=hidden\ndoctor:signals=survived\n\
              doctor:/usr/sbin/sshd=present\n",
        );
        let findings = answers.findings(&Config::default());
        let tried = |finding: &&Finding| !finding.name.starts_with("slot-");
        assert!(
            findings.iter().filter(tried).all(|finding| finding.severity == Severity::Fine),
            "{findings:?}"
        );
    }

    #[test]
    fn a_slot_that_shows_too_much_or_says_nothing_is_broken() {
        let leaky = Answers::read(b"doctor:input=visible\ndoctor:write=allowed\ndoctor:outside=visible\n");
        assert_eq!(leaky.store_view().severity, Severity::Broken);
        let silent = Answers::read(b"");
        let findings = silent.findings(&Config::default());
        insta::assert_debug_snapshot!(findings.iter().map(|f| (f.name, f.severity)).collect::<Vec<_>>());
    }
}
