//! Known holes of Nix through which whoever may build, or what is built, gets more than that.
//!
//! This builder keeps a build from everything but its slot; but whoever asks for one talks to Nix, and most of what is built
//! on a machine is built by Nix itself. A Nix with such a hole is as open as it was before.
//!
//! Where a release came to have a hole, and where it was mended, is from the advisories and, for Nix, from the tags of its
//! repository that have the commits they name.

use super::version::Version;
use crate::doctor::Finding;
use crate::nix::conf::version::NixVersion;

const NAME: &str = "nix-advisories";

/// A release: major, minor, patch.
type Release = (u32, u32, u32);

/// One hole, or several that were found and mended together.
struct Advisory {
    ids: &'static str,
    /// What somebody can do.
    what: &'static str,
    source: &'static str,
    nix: Range,
    /// `None`: Lix has or had it not, or nothing is known of that.
    lix: Option<Range>,
}

/// Releases with a hole, each list with one release for each series that was changed, oldest first: a series that is older than
/// all in a list and not in it was not changed, one that is newer than all has begun with the change.
struct Range {
    /// The first that have it; none: all before the mended ones.
    since: &'static [Release],
    /// The first in which it is mended.
    mended: &'static [Release],
}

/// The table, newest first.
const ADVISORIES: &[Advisory] = &[
    // Found in the CVE record; the tags of 2.34.9 and 2.35.3 were not looked at.
    Advisory {
        ids: "CVE-2026-110450",
        what: "a local user becomes root: a repair destroys a path before what replaces it is checked",
        source: "https://www.cve.org/CVERecord?id=CVE-2026-110450",
        nix: Range { since: &[], mended: &[(2, 28, 8), (2, 30, 6), (2, 31, 6), (2, 34, 9), (2, 35, 3)] },
        lix: Some(Range { since: &[], mended: &[(2, 95, 4)] }),
    },
    Advisory {
        ids: "CVE-2026-44028",
        what: "a local user becomes root: deeply nested archives write beyond a stack of the daemon's",
        source: "https://github.com/NixOS/nix/security/advisories/GHSA-vh5x-56v6-4368",
        nix: Range {
            since: &[(2, 24, 4)],
            mended: &[(2, 28, 7), (2, 29, 4), (2, 30, 5), (2, 31, 5), (2, 32, 8), (2, 33, 6), (2, 34, 7)],
        },
        lix: Some(Range { since: &[(2, 93, 0)], mended: &[(2, 93, 4), (2, 94, 2), (2, 95, 2)] }),
    },
    // It came with the mending of CVE-2024-27297; Lix mended that otherwise.
    Advisory {
        ids: "CVE-2026-39860",
        what: "a local user becomes root: the daemon follows a link where it copies a fixed output to",
        source: "https://github.com/NixOS/nix/security/advisories/GHSA-g3g9-5vj6-r3gj",
        nix: Range {
            since: &[(2, 16, 3), (2, 17, 2), (2, 18, 2), (2, 19, 4), (2, 20, 5), (2, 21, 0)],
            mended: &[(2, 28, 6), (2, 29, 3), (2, 30, 4), (2, 31, 4), (2, 32, 7), (2, 33, 4), (2, 34, 5)],
        },
        lix: None,
    },
    Advisory {
        ids: "CVE-2025-46415, CVE-2025-46416, CVE-2025-52991, CVE-2025-52992, CVE-2025-52993",
        what: "a local user gets a build user's rights, and files of others: races for build directories, descriptors passed out \
               of builds with network",
        source: "https://github.com/NixOS/nix/security/advisories/GHSA-g948-229j-48j3",
        nix: Range { since: &[], mended: &[(2, 24, 15), (2, 26, 4), (2, 28, 4), (2, 29, 1)] },
        lix: Some(Range { since: &[], mended: &[(2, 91, 2), (2, 92, 2), (2, 93, 1)] }),
    },
    Advisory {
        ids: "CVE-2024-38531",
        what: "a build leaves set-uid programs of its build user where others can run them",
        source: "https://github.com/NixOS/nix/security/advisories/GHSA-q82p-44mg-mgh5",
        nix: Range {
            since: &[],
            mended: &[(2, 18, 4), (2, 19, 5), (2, 20, 7), (2, 21, 3), (2, 22, 2), (2, 23, 1)],
        },
        lix: None,
    },
    Advisory {
        ids: "CVE-2024-27297",
        what: "a fixed output is changed after it was checked, through a descriptor passed out of its build",
        source: "https://github.com/NixOS/nix/security/advisories/GHSA-2ffj-w4mj-pg37",
        nix: Range {
            since: &[],
            mended: &[(2, 3, 18), (2, 16, 3), (2, 17, 2), (2, 18, 2), (2, 19, 4), (2, 20, 5)],
        },
        lix: None,
    },
];

impl Range {
    fn has(&self, release: Release) -> bool {
        (self.since.is_empty() || reached(self.since, release)) && !reached(self.mended, release)
    }
}

/// Whether a release comes after a change that was made in these.
fn reached(changed: &[Release], release: Release) -> bool {
    let series = |release: Release| (release.0, release.1);
    match changed.iter().find(|changed| series(**changed) == series(release)) {
        Some(changed) => release >= *changed,
        None => changed.iter().all(|changed| series(*changed) < series(release)),
    }
}

impl Advisory {
    fn concerns(&self, nix: NixVersion) -> bool {
        let release = (nix.major, nix.minor, nix.patch);
        if nix.lix {
            self.lix.as_ref().is_some_and(|range| range.has(release))
        } else {
            self.nix.has(release)
        }
    }

    fn mended(&self, nix: NixVersion) -> String {
        let range = if nix.lix { self.lix.as_ref().unwrap_or(&self.nix) } else { &self.nix };
        let releases = range.mended.iter().map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"));
        releases.collect::<Vec<_>>().join(", ")
    }
}

/// What is known of this Nix. A version is all that it tells of itself, and distributions mend without changing that: a warning
/// at most.
pub(super) fn finding(nix: &Version) -> Finding {
    let known: Vec<&Advisory> = ADVISORIES.iter().filter(|advisory| advisory.concerns(nix.number)).collect();
    if known.is_empty() {
        let newest = ADVISORIES.first().map_or("", |advisory| advisory.ids);
        return Finding::fine(NAME, format!("none known of {} (up to {newest})", nix.text));
    }
    let mut detail = vec![format!("{} has known holes, unless your distribution has mended it:", nix.text)];
    for advisory in known {
        detail.push(format!("{}: {}", advisory.ids, advisory.what));
        detail.push(format!("  mended in {}: {}", advisory.mended(nix.number), advisory.source));
    }
    Finding::warning(
        NAME,
        detail.join("\n"),
        "use the newest release of a series that is still mended. Debian and others mend some of it under the old number: see what \
         your package's changelog says of these",
    )
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// The last five digits of the first id of each that concerns a Nix.
    fn known(version: &str) -> Vec<&'static str> {
        let nix: NixVersion = version.parse().unwrap();
        let concerned = ADVISORIES.iter().filter(|advisory| advisory.concerns(nix));
        concerned
            .map(|advisory| advisory.ids.split(',').next().unwrap().rsplit('-').next().unwrap())
            .collect()
    }

    #[test]
    fn each_range_begins_and_ends_with_the_releases_of_its_series() {
        for (version, expected) in [
            // Before and after each mending, series by series.
            ("2.35.3", &[][..]),
            ("2.36.0pre20260822_88b09c6", &[]),
            ("2.35.2", &["110450"]),
            ("2.35.0", &["110450"]),
            ("2.34.9", &[]),
            ("2.34.8", &["110450"]),
            ("2.34.7", &["110450"]),
            ("2.34.6", &["110450", "44028"]),
            ("2.34.5", &["110450", "44028"]),
            ("2.34.4", &["110450", "44028", "39860"]),
            ("2.34pre20260101_1", &["110450", "44028", "39860"]),
            ("2.33.6", &["110450"]),
            ("2.33.5", &["110450", "44028"]),
            ("2.33.3", &["110450", "44028", "39860"]),
            ("2.32.8", &["110450"]),
            ("2.32.6", &["110450", "44028", "39860"]),
            ("2.31.6", &[]),
            ("2.31.5", &["110450"]),
            ("2.31.4", &["110450", "44028"]),
            ("2.30.6", &[]),
            ("2.30.3", &["110450", "44028", "39860"]),
            ("2.29.4", &["110450"]),
            ("2.29.1", &["110450", "44028", "39860"]),
            ("2.29.0", &["110450", "44028", "39860", "46415"]),
            ("2.28.8", &[]),
            ("2.28.7", &["110450"]),
            ("2.28.6", &["110450", "44028"]),
            ("2.28.4", &["110450", "44028", "39860"]),
            ("2.28.3", &["110450", "44028", "39860", "46415"]),
            // Never mended.
            ("2.27.1", &["110450", "44028", "39860", "46415"]),
            ("2.26.4", &["110450", "44028", "39860"]),
            ("2.26.3", &["110450", "44028", "39860", "46415"]),
            ("2.25.5", &["110450", "44028", "39860", "46415"]),
            ("2.24.15", &["110450", "44028", "39860"]),
            ("2.24.14", &["110450", "44028", "39860", "46415"]),
            // The deep archives came with 2.24.4.
            ("2.24.4", &["110450", "44028", "39860", "46415"]),
            ("2.24.3", &["110450", "39860", "46415"]),
            ("2.23.1", &["110450", "39860", "46415"]),
            ("2.23.0", &["110450", "39860", "46415", "38531"]),
            ("2.22.1", &["110450", "39860", "46415", "38531"]),
            ("2.21.3", &["110450", "39860", "46415"]),
            ("2.20.7", &["110450", "39860", "46415"]),
            ("2.20.5", &["110450", "39860", "46415", "38531"]),
            // One hole was exchanged for another.
            ("2.20.4", &["110450", "46415", "38531", "27297"]),
            ("2.18.4", &["110450", "39860", "46415"]),
            ("2.18.1", &["110450", "46415", "38531", "27297"]),
            ("2.16.3", &["110450", "39860", "46415", "38531"]),
            ("2.8.0", &["110450", "46415", "38531", "27297"]),
            ("2.3.18", &["110450", "46415", "38531"]),
            ("2.3.17", &["110450", "46415", "38531", "27297"]),
            // Lix counts by itself.
            ("lix-2.95.4", &[]),
            ("lix-2.95.3", &["110450"]),
            ("lix-2.95.1", &["110450", "44028"]),
            ("lix-2.94.2", &["110450"]),
            ("lix-2.93.3", &["110450", "44028"]),
            ("lix-2.93.0", &["110450", "44028", "46415"]),
            ("lix-2.92.2", &["110450"]),
            ("lix-2.91.1", &["110450", "46415"]),
            ("lix-2.90.0", &["110450", "46415"]),
        ] {
            assert_eq!(known(version), expected, "{version}");
        }
    }

    #[test]
    fn every_line_has_its_source_and_releases_in_order() {
        for Advisory { ids, source, nix, lix, .. } in ADVISORIES {
            assert!(source.starts_with("https://") && ids.starts_with("CVE-"), "{ids}");
            let ranges = std::iter::once(nix).chain(lix);
            for list in ranges.flat_map(|range| [range.since, range.mended]) {
                assert!(
                    list.is_sorted_by(|one, other| (one.0, one.1) < (other.0, other.1)),
                    "{ids}: {list:?}"
                );
            }
            assert!(!nix.mended.is_empty(), "{ids}");
        }
    }

    #[test]
    fn a_nix_with_holes_is_a_warning_that_says_where_each_is_mended() {
        let mut told = String::new();
        for line in [
            "nix (Nix) 2.35.3",
            "nix (Nix) 2.34.8",
            "nix (Nix) 2.26.3",
            "nix-store (Nix) 2.8.0",
            "nix (Determinate Nix 3.11.2) 2.31.1",
            "nix (Lix, like Nix) 2.93.0",
        ] {
            let Finding { name, severity, detail, fix } = finding(&Version::parse(line).unwrap());
            writeln!(told, "{name} {severity:?}: {detail}").unwrap();
            if let Some(fix) = fix {
                writeln!(told, "→ {fix}").unwrap();
            }
        }
        insta::assert_snapshot!(told);
    }
}
