//! A connection to the first of several bootstrap servers that answers.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use crate::broker::read_properties;
use crate::client::{Connection, Error};
use crate::env::{Disk, RealDisk, RealNetwork};
use crate::protocol::generated::api_versions::ApiVersionsResponse;
use crate::protocol::generated::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use crate::protocol::{ErrorCode, Request};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one server may take to be reached.
const REACH: Duration = Duration::from_secs(5);
/// With topic ids (KIP-516).
const METADATA: i16 = 12;

/// Whom to ask.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct Servers {
    /// Brokers to connect to, as host:port, separated by commas; the first that responds is used.
    #[arg(short, long, value_name = "SERVERS", alias = "broker-list", env = "DLOG_BOOTSTRAP_SERVER")]
    bootstrap_server: String,
    /// A file of client settings. Only security.protocol is read, and it must be PLAINTEXT.
    #[arg(long, value_name = "FILE", aliases = ["consumer.config", "producer.config"])]
    command_config: Option<PathBuf>,
}

/// A connection, and what the broker offers.
pub(super) struct Server {
    connection: Connection,
    pub(super) address: String,
    pub(super) offered: ApiVersionsResponse,
}

impl Servers {
    /// These servers, without a file of settings.
    pub(in crate::cli) fn at(bootstrap_server: &str) -> Servers {
        Servers { bootstrap_server: bootstrap_server.to_string(), command_config: None }
    }

    /// Connects and asks for versions; the error names every server.
    pub(super) async fn connect(&self) -> Result<Server, String> {
        self.check_security()?;
        let mut failed = Vec::new();
        for address in self.bootstrap_server.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match timeout(REACH, open(address)).await {
                Ok(Ok((connection, offered))) => return Ok(Server { connection, address: address.to_string(), offered }),
                Ok(Err(error)) => failed.push(format!("{address}: {error}")),
                Err(_) => failed.push(format!("{address} does not answer within {} s", REACH.as_secs())),
            }
        }
        Err(if failed.is_empty() { "no bootstrap server is specified".into() } else { failed.join("; ") })
    }

    fn check_security(&self) -> Result<(), String> {
        let Some(path) = &self.command_config else { return Ok(()) };
        let text = RealDisk.read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let settings = read_properties(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        match settings.get("security.protocol").map(|protocol| protocol.trim()) {
            Some(other) if other != "PLAINTEXT" => {
                Err(format!("{}: security.protocol is {other}, but only PLAINTEXT is supported yet", path.display()))
            }
            _ => Ok(()),
        }
    }
}

async fn open(address: &str) -> Result<(Connection, ApiVersionsResponse), Error> {
    let mut connection = Connection::open(&RealNetwork::default(), address, "dlog-cli", PATIENCE).await?;
    let offered = connection.greet().await?;
    Ok((connection, offered))
}

impl Server {
    /// Sends a request and waits for its answer.
    pub(super) async fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, String> {
        match self.connection.call(request, version).await {
            Err(Error::TimedOut(..)) => Err(format!("{} does not answer within {} s", self.address, PATIENCE.as_secs())),
            answer => answer.map_err(|error| format!("{}: {error}", self.address)),
        }
    }

    /// Brokers and topics: these, or all.
    pub(super) async fn metadata(&mut self, topics: Option<&[&str]>, create: bool) -> Result<MetadataResponse, String> {
        let named = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
        let topics = topics.map(|names| names.iter().map(named).collect());
        self.call(&MetadataRequest { topics, allow_auto_topic_creation: create, ..Default::default() }, METADATA).await
    }
}

/// An error of an answer in words: the broker's own, or the name of its code.
pub(super) fn refused(code: i16, message: Option<&str>) -> Result<(), String> {
    let name = || ErrorCode::from_code(code).map_or_else(|| format!("error {code}"), |known| known.name().to_string());
    if code == 0 { Ok(()) } else { Err(message.map_or_else(name, str::to_string)) }
}
