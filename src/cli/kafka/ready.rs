//! `kafka-broker-api-versions`, and `cub kafka-ready` of Confluent's images: whether a broker is there.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::servers::Servers;
use crate::cli::block_on::block_on;
use crate::protocol::ApiKey;
use crate::server::served;

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// Kafka's flags.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct VersionsOptions {
    #[command(flatten)]
    servers: Servers,
}

/// Prints the APIs that each broker offers; `usable` is the newest version that we know too.
pub(in crate::cli) fn versions(options: &VersionsOptions) -> Result<(), String> {
    let (metadata, offered) = block_on(async {
        let mut server = options.servers.connect().await?;
        Ok((server.metadata(Some(&[]), false).await?, server.offered.api_keys))
    })?;
    let lines: Vec<String> = offered
        .iter()
        .filter_map(|api| {
            let key = ApiKey::from_code(api.api_key)?;
            let range = if api.min_version == api.max_version {
                api.min_version.to_string()
            } else {
                format!("{} to {}", api.min_version, api.max_version)
            };
            let usable = served(key).map_or(api.max_version, |ours| ours.max.min(api.max_version));
            Some(format!("\t{}({}): {range} [usable: {usable}]", key.name(), api.api_key))
        })
        .collect();
    for broker in &metadata.brokers {
        let rack = broker.rack.as_deref().unwrap_or("null");
        println!("{}:{} (id: {} rack: {rack} isFenced: false) -> (\n{}\n)", broker.host, broker.port, broker.node_id, lines.join(",\n"));
    }
    Ok(())
}

/// Which of Confluent's checks.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CubOptions {
    #[command(subcommand)]
    check: Check,
}

#[derive(Debug, Clone, Subcommand)]
enum Check {
    /// Wait until this number of brokers serve clients.
    KafkaReady {
        #[command(flatten)]
        servers: Servers,
        /// The number of brokers.
        min_brokers: usize,
        /// The timeout in seconds.
        timeout: u64,
    },
}

/// Waits; an error says what is missing when time is over.
pub(in crate::cli) fn cub(options: &CubOptions) -> Result<(), String> {
    let Check::KafkaReady { servers, min_brokers, timeout } = &options.check;
    let (begin, patience) = (Instant::now(), Duration::from_secs(*timeout));
    block_on(async {
        loop {
            let brokers = async { servers.connect().await?.metadata(Some(&[]), false).await.map(|found| found.brokers.len()) }.await;
            let missing = match brokers {
                Ok(count) if count >= *min_brokers => return Ok(()),
                Ok(count) => format!("{count} of {min_brokers} required brokers are available"),
                Err(error) => error,
            };
            if begin.elapsed() >= patience {
                return Err(format!("not ready within {timeout} s: {missing}"));
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}
