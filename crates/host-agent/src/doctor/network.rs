//! What fixed-output builds have for a network: tried as the daemon tries it when it starts.

use super::{Finding, is_root};
use crate::config::{Config, FixedOutputNetwork};
use crate::slot::SlotError;
use crate::slot::outside_network::OutsideNetwork;
use crate::slot::uids::Uids;

const NAME: &str = "fixed-output-network";

/// What it means to have the host's.
const SHARED: &str = "fixed-output builds have this machine's network: what listens on its loopback can be reached from them, and \
                      before Linux 6.12 its abstract sockets (the channel of CVE-2025-46416)";

pub(super) fn finding(config: &Config) -> Finding {
    if config.fixed_output_network == FixedOutputNetwork::Host {
        return Finding::fine(NAME, format!("{SHARED}, as `fixed-output-network = \"host\"` says"));
    }
    if !is_root() {
        return Finding::untried(NAME);
    }
    described(OutsideNetwork::decide(config, &Uids::of_others(config)))
}

fn described(decided: Result<(OutsideNetwork, Option<String>), SlotError>) -> Finding {
    match decided {
        Ok((OutsideNetwork::Pasta(program), _)) => Finding::fine(
            NAME,
            format!(
                "{} gave a slot one of its own, from which nothing that listens on this machine was reached",
                program.display()
            ),
        ),
        Ok((OutsideNetwork::Host, Some(reason))) => Finding::warning(
            NAME,
            format!("{reason}; so {SHARED}"),
            "mend that and restart the daemon; or say `fixed-output-network = \"host\"` if it is meant to be so",
        ),
        Ok((OutsideNetwork::Host, None)) => Finding::warning(
            NAME,
            format!("there is no pasta on PATH, so {SHARED}"),
            "`apt install passt` (the NixOS module brings it), and restart the daemon; or name it: `pasta`",
        ),
        Err(error) => Finding::broken(
            NAME,
            error,
            "mend that, or say `fixed-output-network = \"auto\"`: then the daemon starts without it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn the_machines_own_network_is_a_warning_unless_pasta_is_insisted_on() {
        let severity = |decided| described(decided).severity;
        let pasta = OutsideNetwork::Pasta("/usr/bin/pasta".into());
        assert_eq!(severity(Ok((pasta, None))), Severity::Fine);
        assert_eq!(severity(Ok((OutsideNetwork::Host, None))), Severity::Warning);
        assert_eq!(severity(Ok((OutsideNetwork::Host, Some("no tun".into())))), Severity::Warning);
        assert_eq!(severity(Err(SlotError::Step("no tun".into()))), Severity::Broken);
    }

    #[test]
    fn who_asks_for_the_machines_network_is_told_what_that_means() {
        let config = Config { fixed_output_network: FixedOutputNetwork::Host, ..Config::default() };
        let finding = finding(&config);
        assert_eq!(finding.severity, Severity::Fine);
        assert!(finding.detail.contains("CVE-2025-46416"), "{}", finding.detail);
    }
}
