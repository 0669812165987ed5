//! `dlog doctor`: the problems of a broker and of the addresses that it advertises, in sentences.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use axum::http::Method;
use clap::{Args, ValueEnum};
use tokio::time::timeout;

use super::block_on::block_on;
use super::health;
use super::http::{ask as http_ask, get, reach};
use crate::client::Error;
use crate::env::listening_process;
use crate::http::{Diagnosis, Finding};
use crate::protocol::generated::metadata::MetadataResponse;

/// Something is wrong.
const FOUND: u8 = 1;
/// How long anything may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to look at.
#[derive(Debug, Clone, Args)]
pub(super) struct DoctorOptions {
    /// The broker's address as clients use it, host:port.
    #[arg(short, long, value_name = "ADDRESS", env = "DLOG_BOOTSTRAP_SERVER", default_value = "127.0.0.1:9092")]
    bootstrap_server: String,
    /// The address where the broker serves HTTP.
    #[arg(long, value_name = "ADDRESS", env = "DLOG_HTTP_SERVER", default_value = "127.0.0.1:9644")]
    http: String,
    /// Delete the observations of clients so far, so that only new findings are shown.
    #[arg(long)]
    clear: bool,
    /// The output format.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// For whom findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Prints the findings, each with a remedy; exit code 1 if there are any.
pub(super) fn doctor(options: &DoctorOptions) -> Result<ExitCode, String> {
    if options.clear {
        let (status, body) = block_on(async { within(&options.http, http_ask(Method::DELETE, &options.http, "/v1/doctor")).await })?;
        if !status.is_success() {
            return Err(format!("{} answers {status}: {}", options.http, String::from_utf8_lossy(&body).trim()));
        }
    }
    let findings = block_on(async { Ok(examine(options).await) })?;
    print(&findings, options).map_err(|e| e.to_string())?;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn print(findings: &[Finding], options: &DoctorOptions) -> std::io::Result<()> {
    let mut out = super::output::stdout();
    if options.output == Output::Json {
        return writeln!(out, "{:#}", serde_json::json!({ "bootstrap_server": options.bootstrap_server, "findings": findings }));
    }
    for Finding { kind, text, remedy, seen } in findings {
        let seen = seen.as_ref().map_or_else(String::new, |seen| format!("\n    seen {seen}"));
        writeln!(out, "{kind}: {text}{seen}\n    {remedy}")?;
    }
    if findings.is_empty() {
        writeln!(out, "no problems found with {}", options.bootstrap_server)?;
    }
    Ok(())
}

/// An answer of the broker over HTTP, in time.
async fn within<T>(http: &str, answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(format!("{http} does not answer within {} s", PATIENCE.as_secs())))
}

async fn examine(options: &DoctorOptions) -> Vec<Finding> {
    let (bootstrap, http) = (&options.bootstrap_server, &options.http);
    let diagnosis = within(http, diagnosis(http)).await;
    let metadata = ask(bootstrap).await;
    let mut findings = Vec::new();
    match (&metadata, &diagnosis) {
        (Ok(metadata), Ok(own)) if metadata.cluster_id.as_deref() != Some(&own.cluster_id) => {
            let what = format!("another broker, of cluster {}", metadata.cluster_id.as_deref().unwrap_or("unknown"));
            findings.push(taken(bootstrap, &what));
        }
        (Ok(metadata), own) => findings.extend(advertised(metadata, bootstrap, own.as_ref().ok()).await),
        (Err(error), own) => findings.push(unserved(bootstrap, error, own.as_ref().ok()).await),
    }
    match diagnosis {
        Ok(own) => findings.extend(own.findings),
        Err(what) => findings.push(Finding::new(
            "no-http",
            format!("the findings of the broker itself are missing: {what}"),
            "set the broker's HTTP address with --http or DLOG_HTTP_SERVER".into(),
        )),
    }
    findings
}

async fn diagnosis(http: &str) -> Result<Diagnosis, String> {
    let (status, body) = get(http, "/v1/doctor").await?;
    serde_json::from_slice(&body)
        .map_err(|_| format!("{http} responded with {status}: it is not dlog, or its version does not support dlog doctor"))
}

/// The metadata of the broker, in time.
async fn ask(address: &str) -> Result<MetadataResponse, Error> {
    timeout(PATIENCE, health::ask(address, "dlog-doctor")).await.unwrap_or_else(|_| Err(Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// Whether the advertised addresses can be reached from here.
async fn advertised(metadata: &MetadataResponse, bootstrap: &str, own: Option<&Diagnosis>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for broker in &metadata.brokers {
        let address = format!("{}:{}", broker.host, broker.port);
        let Err(error) = ask(&address).await else { continue };
        let listener = own.and_then(|own| listener_at(own, bootstrap)).unwrap_or("PLAINTEXT");
        findings.push(Finding::new(
            "advertised-unreachable",
            format!("{bootstrap} advertises {address}, and connecting to it from here fails: {error}"),
            format!("set advertised.listeners={listener}://{bootstrap} (KAFKA_ADVERTISED_LISTENERS), if clients reach the broker at the same address as you"),
        ));
    }
    findings
}

/// The name of the listener with the port of `address`.
fn listener_at<'a>(own: &'a Diagnosis, address: &str) -> Option<&'a str> {
    let port: u16 = address.rsplit_once(':')?.1.parse().ok()?;
    own.listeners.iter().find(|(_, bound)| bound.port() == port).map(|(name, _)| name.as_str())
}

/// Why no broker serves Kafka clients there.
async fn unserved(bootstrap: &str, error: &Error, own: Option<&Diagnosis>) -> Finding {
    if matches!(timeout(PATIENCE, reach(bootstrap)).await, Ok(Ok(_))) {
        return taken(bootstrap, &format!("something that does not speak Kafka ({error})"));
    }
    let remedy = match own.filter(|own| !own.listeners.is_empty()) {
        Some(own) => {
            let listeners: Vec<_> = own.listeners.iter().map(|(name, address)| format!("{name} at {address}")).collect();
            format!("the broker listens on {}: set one of them with --bootstrap-server", listeners.join(", "))
        }
        None => "start a broker there: dlog --listen HOST:PORT".to_string(),
    };
    Finding::new("not-listening", format!("no broker can be reached at {bootstrap}: {error}"), remedy)
}

fn taken(bootstrap: &str, by: &str) -> Finding {
    let process = bootstrap.rsplit_once(':').and_then(|(_, port)| listening_process(port.parse().ok()?));
    let process = process.map_or_else(String::new, |process| format!(": process {} ({})", process.id, process.name));
    let text = format!("{bootstrap} is in use by {by}{process}");
    Finding::new("port-taken", text, "stop it, or use another port for the broker: dlog --listen HOST:PORT".into())
}
