//! `host-agent machine-spec`: this machine as an entry of another machine's `builders`.

use std::process::ExitCode;

use crate::config::Config;

/// Prints one line in the format of `/etc/nix/machines` (Nix manual, "Remote builds"): URI, systems, ssh key, jobs, speed
/// factor, supported features, mandatory features, host key; `-` stands for nothing.
pub(super) fn run(config: &Config, uri: &str) -> ExitCode {
    println!("{}", render(config, uri));
    ExitCode::SUCCESS
}

fn render(config: &Config, uri: &str) -> String {
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    format!(
        "{uri} {} - {} {} {} {} -",
        list(&config.systems),
        config.jobs(),
        config.speed_factor,
        list(&config.supported_features),
        list(&config.mandatory_features),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_line_of_nix_machines() {
        let config = Config { max_jobs: std::num::NonZeroU32::new(4), ..Config::default() };
        insta::assert_snapshot!(
            render(&config, "ssh-ng://darwin.example"),
            @"ssh-ng://darwin.example x86_64-darwin - 4 1 big-parallel - -"
        );
    }
}
