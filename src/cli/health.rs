//! `dlog health`: the question that a container check asks, over the Kafka port.

use std::time::Duration;

use clap::Args;

use super::block_on::block_on;
use crate::client::{Connection, Error, REQUEST_TIMEOUT};
use crate::env::RealNetwork;
use crate::protocol::generated::metadata::{MetadataRequest, MetadataResponse};

/// A version that every broker of today serves.
const METADATA: i16 = 9;

/// Whom to ask.
#[derive(Debug, Clone, Args)]
pub(super) struct HealthOptions {
    /// The broker's address, host:port.
    #[arg(short, long, value_name = "ADDRESS", env = "DLOG_BOOTSTRAP_SERVER", default_value = "127.0.0.1:9092")]
    bootstrap_server: String,
    /// The timeout in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
}

/// Asks; an error says what is wrong.
pub(super) fn health(options: &HealthOptions) -> Result<(), String> {
    let patience = Duration::from_secs(options.timeout);
    let brokers = block_on(async {
        let answer = tokio::time::timeout(patience, ask(&options.bootstrap_server, "dlog-health")).await;
        let answer = answer.map_err(|_| format!("{} did not answer within {} s", options.bootstrap_server, options.timeout))?;
        Ok(answer.map_err(|e| format!("{}: {e}", options.bootstrap_server))?.brokers.len())
    })?;
    println!("{} serves clients; {brokers} broker(s)", options.bootstrap_server);
    Ok(())
}

/// Metadata without topics, asked for as a client of today does.
pub(super) async fn ask(address: &str, client_id: &str) -> Result<MetadataResponse, Error> {
    let mut connection = Connection::open(&RealNetwork::default(), address, client_id, REQUEST_TIMEOUT).await?;
    connection.greet().await?;
    connection.call(&MetadataRequest { topics: Some(Vec::new()), ..Default::default() }, METADATA).await
}
