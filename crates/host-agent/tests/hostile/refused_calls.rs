//! The table of refused calls, tried by a builder.

use host_agent::slot::refused_calls::{RULES, Rule, rules};

use crate::attack::{Attacker, skipped};
use crate::harness::{Daemon, darling};

/// Rule, what was tried, what came of it.
type Tried = Vec<[String; 3]>;

/// As the builder, by the agent's own program.
fn tried(user_namespaces: bool) -> Tried {
    let daemon = Daemon::start(&format!("warm-slots = 0\nallow-user-namespaces = {user_namespaces}"));
    let attacker = Attacker::new(&daemon);
    let program = if darling() { "darwin-agent-macho" } else { "darwin-agent" };
    let told = attacker.run(&format!("/Volumes/SystemRoot/run/db/{program} --try-confinement; echo > $out"));
    assert!(told.is_built(), "{:?}: {}", told.done.report, told.log());
    let line = |line: &str| {
        <[String; 3]>::try_from(line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()).ok()
    };
    told.log().lines().filter_map(line).collect()
}

fn of<'a>(tried: &'a Tried, rule: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    tried.iter().filter(move |line| line[0] == rule).map(|line| (&*line[1], &*line[2]))
}

fn holds(tried: &Tried, rule: &Rule) {
    let attempts: Vec<_> = of(tried, rule.name).collect();
    assert!(!attempts.is_empty(), "{} was not tried: {tried:?}", rule.name);
    let answer = format!("{:?}", rule.answer);
    assert!(attempts.iter().all(|(_, came)| *came == answer), "{}: {attempts:?}", rule.name);
}

#[test]
fn every_refused_call_is_tried_by_a_builder_and_ends_as_the_table_says() {
    if skipped() {
        return;
    }
    let tried = tried(false);
    assert_eq!(rules(false).count(), RULES.len());
    // And whatever is tried has its rule: one that is taken from the table is missed.
    let others = ["x32", "agent", "limit"];
    let is_known = |rule: &str| others.contains(&rule) || RULES.iter().any(|known| known.name == rule);
    assert!(tried.iter().all(|line| is_known(&line[0])), "{tried:?}");
    rules(false).for_each(|rule| holds(&tried, rule));
    assert_eq!(of(&tried, "x32").collect::<Vec<_>>(), [("getppid", "ENOSYS")]);
}

#[test]
fn where_user_namespaces_are_allowed_every_other_call_is_still_refused() {
    if skipped() {
        return;
    }
    let tried = tried(true);
    rules(true).for_each(|rule| holds(&tried, rule));
    let lifted: Vec<&Rule> =
        RULES.iter().filter(|rule| !rules(true).any(|other| other.name == rule.name)).collect();
    assert_eq!(lifted.iter().map(|rule| rule.name).collect::<Vec<_>>(), ["user-namespace", "clone3"]);
    // The kernel answers these itself.
    assert!(of(&tried, "user-namespace").all(|(_, came)| came == "done"), "{tried:?}");
    assert_eq!(of(&tried, "clone3").collect::<Vec<_>>(), [("clone3", "EINVAL")]);
}

#[test]
fn a_call_of_a_32_bit_program_ends_whoever_makes_it() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    let told = Attacker::new(&daemon).run("$attacker binary32; ls -l set-id-32; echo > $out");
    let sigsys = format!("signal-{}", libc::SIGSYS);
    assert_eq!((told.came_of("interrupt"), told.came_of("program")), (&*sigsys, &*sigsys), "{}", told.log());
    assert!(told.log().contains("-rw-r--r--"), "{}", told.log());
    assert!(told.is_built(), "{:?}", told.done.report);
}
