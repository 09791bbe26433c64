//! What a builder was kept from, and what it may use: the answers of `darwin-agent --try-confinement` in a slot.

use std::collections::BTreeMap;

use super::Finding;
use crate::slot::confinement::Confinement;
use crate::slot::refused_calls::rules;

const REPORT: &str = "report this, with the kernel's version: what a builder does there may outlive its slot";

/// What came of each attempt, by what should keep it from happening and what was tried; and the limits.
#[derive(Debug, Default)]
pub(super) struct Attempts(BTreeMap<String, BTreeMap<String, String>>);

impl Attempts {
    /// From lines of three words.
    pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut attempts = Self::default();
        for line in lines {
            if let [rule, what, came] = line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
                attempts.0.entry(rule.into()).or_default().insert(what.into(), came.into());
            }
        }
        attempts
    }

    fn of(&self, rule: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.get(rule).into_iter().flatten().map(|(what, came)| (what.as_str(), came.as_str()))
    }

    fn one(&self, rule: &str, what: &str) -> &str {
        self.0.get(rule).and_then(|tried| tried.get(what)).map_or("untold", String::as_str)
    }

    /// What follows from them.
    pub(super) fn findings(&self, confinement: Confinement) -> Vec<Finding> {
        vec![self.refusals(confinement), self.agent(), self.limits(confinement)]
    }

    fn refusals(&self, confinement: Confinement) -> Finding {
        const NAME: &str = "slot-refusals";
        let expected = rules(confinement.user_namespaces)
            .map(|rule| (rule.name, rule.answer.to_string()))
            .chain([("x32", nix::errno::Errno::ENOSYS.to_string())]);
        let mut refused = Vec::new();
        let mut tried = 0;
        for (rule, answer) in expected {
            // `EPERM: Operation not permitted`, as the nix crate writes it.
            let answer = answer.split(':').next().unwrap_or_default().to_owned();
            let attempts: Vec<_> = self.of(rule).collect();
            if attempts.is_empty() {
                return Finding::broken(
                    NAME,
                    format!("{rule} was not tried"),
                    "install host-agent and darwin-agent from the same release",
                );
            }
            if let Some((what, came)) = attempts.iter().find(|(_, came)| *came != answer) {
                return Finding::broken(
                    NAME,
                    format!("{rule}: {what} ended with {came}, not {answer}"),
                    REPORT,
                );
            }
            tried += attempts.len();
            refused.push(rule);
        }
        Finding::fine(NAME, format!("{tried} calls tried, all refused: {}", refused.join(", ")))
    }

    fn agent(&self) -> Finding {
        const NAME: &str = "slot-agent";
        match (self.one("agent", "signal"), self.one("agent", "trace")) {
            ("EPERM", "EPERM") => {
                Finding::fine(NAME, "a builder can neither signal nor trace the agent that runs it")
            }
            ("done", "EPERM") => Finding::fine(
                NAME,
                "a builder can't trace the agent that runs it, but end it with SIGKILL and its own build with it; Linux 6.12 with \
                 Landlock keeps it from that",
            ),
            (_, "done") => Finding::warning(
                NAME,
                "a builder can trace the agent that runs it, and so falsify what its own build is told to have done",
                "boot Linux 6.12 or later with Landlock (`lsm=` must name it)",
            ),
            (signal, trace) => Finding::broken(NAME, format!("signal: {signal}, trace: {trace}"), REPORT),
        }
    }

    fn limits(&self, confinement: Confinement) -> Finding {
        const NAME: &str = "slot-limits";
        let limits: Vec<String> = self
            .of("limit")
            .map(|(what, most)| match what.strip_prefix("files-in-") {
                Some(directory) => format!("{most} files in /{directory}"),
                None => format!("{most} {what}"),
            })
            .collect();
        let wanted = confinement.processes.map_or("none".into(), |most| most.to_string());
        let has = self.one("limit", "processes");
        if has == wanted {
            Finding::fine(NAME, limits.join(", "))
        } else {
            Finding::broken(
                NAME,
                format!("{wanted} processes should be the most in a slot, and {has} are"),
                REPORT,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    const CONFINEMENT: Confinement = Confinement { processes: Some(4096), user_namespaces: false };

    fn all_refused() -> String {
        let rules = rules(false)
            .map(|rule| format!("{} x {}\n", rule.name, rule.answer.to_string().split(':').next().unwrap()));
        let refused: String = rules.collect();
        refused
            + "x32 getppid ENOSYS\nagent signal EPERM\nagent trace EPERM\nlimit processes 4096\nlimit files-in-tmp 524288\n"
    }

    fn severities(lines: &str) -> Vec<Severity> {
        let findings = Attempts::read(lines.lines()).findings(CONFINEMENT);
        findings.into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn what_is_refused_and_limited_is_fine() {
        let findings = Attempts::read(all_refused().lines()).findings(CONFINEMENT);
        let text: Vec<String> =
            findings.iter().map(|finding| format!("{}: {}", finding.name, finding.detail)).collect();
        insta::assert_snapshot!(text.join("\n"), @"
        slot-refusals: 13 calls tried, all refused: set-id-mode, openat2, user-namespace, clone3, keys, io-uring, socket-family, bpf, perf, userfaultfd, descriptors-of-others, limits-of-others, x32
        slot-agent: a builder can neither signal nor trace the agent that runs it
        slot-limits: 524288 files in /tmp, 4096 processes
        ");
        assert!(findings.iter().all(|finding| finding.severity == Severity::Fine));
    }

    #[test]
    fn one_thing_that_is_possible_or_untold_is_broken() {
        use Severity::{Broken, Fine, Warning};
        let all = all_refused();
        assert_eq!(severities(&all.replace("keys x ENOSYS", "keys x EFAULT")), [Broken, Fine, Fine]);
        assert_eq!(severities(&all.replace("bpf x EPERM\n", "")), [Broken, Fine, Fine]);
        assert_eq!(severities(&all.replace("x32 getppid ENOSYS", "x32 getppid done")), [Broken, Fine, Fine]);
        assert_eq!(severities(&all.replace("processes 4096", "processes none")), [Fine, Fine, Broken]);
        assert_eq!(severities(&all.replace("signal EPERM", "signal done")), [Fine, Fine, Fine]);
        assert_eq!(severities(&all.replace("trace EPERM", "trace done")), [Fine, Warning, Fine]);
        assert_eq!(severities(""), [Broken, Broken, Broken]);
    }
}
