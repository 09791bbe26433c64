//! What Darling remarks in a program's own output.
//!
//! Its system library writes "Unimplemented syscall (N)" and the like straight to descriptor 1 of the program that made the
//! call. No environment variable turns that off, and a build's bytes are not altered here; but they are counted,
//! because such a line is often the reason of a failure that comes much later.

use std::collections::BTreeMap;

use memchr::memmem;

/// What starts a remark; a number follows.
const REMARKS: [&str; 3] =
    ["Unimplemented syscall (", "Unimplemented machdep trap (", "Unsupported pidinfo flavor: "];

/// Longer than any remark, so that one in two pieces is found.
const CARRIED: usize = 48;

/// Different remarks that are kept.
const KINDS_MAX: usize = 20;

/// Remarks so far.
#[derive(Debug, Default, Clone)]
pub struct Remarks {
    counts: BTreeMap<(usize, u32), u64>,
    carried: Vec<u8>,
}

impl Remarks {
    /// Looks through the next piece of output.
    pub fn look(&mut self, output: &[u8]) {
        let seen = self.carried.len();
        // Only the place where two pieces meet is copied.
        let mut joint = std::mem::take(&mut self.carried);
        joint.extend_from_slice(&output[..output.len().min(CARRIED)]);
        self.count(&joint, |end| end > seen && end - seen <= CARRIED);
        self.count(output, |end| end > CARRIED);
        let recent = if output.len() >= CARRIED { output } else { &joint };
        self.carried = recent[recent.len().saturating_sub(CARRIED)..].to_vec();
    }

    fn count(&mut self, text: &[u8], counts: impl Fn(usize) -> bool) {
        for (kind, start) in REMARKS.iter().enumerate() {
            for at in memmem::find_iter(text, start) {
                let digits = at + start.len();
                let len = text[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                // The byte after the number shows that it is complete.
                let end = digits + len + 1;
                let number = std::str::from_utf8(&text[digits..digits + len]).ok();
                let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
                if end <= text.len() && counts(end) {
                    let full = self.counts.len() >= KINDS_MAX;
                    match self.counts.get_mut(&(kind, number)) {
                        Some(count) => *count += 1,
                        None if full => {}
                        None => drop(self.counts.insert((kind, number), 1)),
                    }
                }
            }
        }
    }

    /// One line for each kind; empty if there are none.
    pub fn lines(&self) -> Vec<String> {
        let line = |(&(kind, number), count): (&(usize, u32), &u64)| {
            let close = if REMARKS[kind].ends_with('(') { ")" } else { "" };
            let times = if *count == 1 { "once".into() } else { format!("{count} times") };
            format!("Darling remarked in the output above, {times}: {}{number}{close}", REMARKS[kind])
        };
        self.counts.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUTPUT: &str = "checking for xUnimplemented syscall (413)\nyes\nUnimplemented syscall (1234)\nUnimplemented \
                          syscall (413)\nsys_proc_info(): Unsupported pidinfo flavor: 1\nUnimplemented syscall (x)\n";

    #[test]
    fn remarks_are_counted_by_kind_and_number() {
        let mut remarks = Remarks::default();
        remarks.look(OUTPUT.as_bytes());
        insta::assert_snapshot!(remarks.lines().join("\n"), @"
        Darling remarked in the output above, 2 times: Unimplemented syscall (413)
        Darling remarked in the output above, once: Unimplemented syscall (1234)
        Darling remarked in the output above, once: Unsupported pidinfo flavor: 1
        ");
        assert_eq!(Remarks::default().lines(), Vec::<String>::new());
    }

    #[test]
    fn only_so_many_kinds_are_kept() {
        let mut remarks = Remarks::default();
        for number in 0..1000 {
            remarks.look(format!("Unimplemented syscall ({number})\n").as_bytes());
        }
        assert_eq!(remarks.lines().len(), KINDS_MAX);
    }

    proptest! {
        #[test]
        fn the_cuts_between_pieces_do_not_matter(cuts in proptest::collection::vec(0..OUTPUT.len(), 0..20)) {
            let mut whole = Remarks::default();
            whole.look(OUTPUT.as_bytes());
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Remarks::default();
            let mut from = 0;
            for cut in cuts.into_iter().chain([OUTPUT.len()]) {
                pieces.look(&OUTPUT.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(whole.lines(), pieces.lines());
        }
    }
}
