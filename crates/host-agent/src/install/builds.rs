//! Builds that an end of the daemon would end.

use std::time::Duration;

use crate::config::Config;
use crate::control::client::Client;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many run or wait, as far as the daemon tells; 0 if it does not. Only ask one that runs: the socket would start it.
pub fn running(config: &Config) -> usize {
    let ask = || {
        let mut client = Client::connect(&config.socket, "uninstall").ok()?;
        client.set_patience(PATIENCE).ok()?;
        Some(client.status().ok()?.builds.len())
    };
    ask().unwrap_or(0)
}
