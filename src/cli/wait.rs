//! `dlog wait`: `GET /v1/wait` for scripts, or the same conditions over the Kafka protocol.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use clap::Args;
use serde_json::Value;

use super::block_on::block_on;
use super::http::get;
use super::kafka::{Servers, observe};
use crate::http::{Conditions, encoded};

/// The conditions were not true in time.
const TIMED_OUT: u8 = 4;
/// The conditions are invalid.
const USAGE: u8 = 2;
/// The interval between two checks over the Kafka protocol.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// What to wait for.
#[derive(Debug, Clone, Args)]
pub(super) struct WaitOptions {
    /// The group.
    #[arg(long)]
    group: Option<String>,
    /// Its state: stable, empty ...
    #[arg(long)]
    state: Option<String>,
    /// The number of its members.
    #[arg(long)]
    members: Option<usize>,
    /// The maximum number of records that it has still to read.
    #[arg(long)]
    lag: Option<i64>,
    /// A topic that must exist; with --lag, only this topic is counted.
    #[arg(long)]
    topic: Option<String>,
    /// The time-out: 10s, 500ms, 2m.
    #[arg(long, default_value = "10s")]
    timeout: String,
    /// A listener of the broker, host:port: check the conditions over the Kafka protocol instead of HTTP.
    #[arg(short, long, value_name = "ADDRESS")]
    bootstrap_server: Option<String>,
    /// The address where the broker serves HTTP.
    #[arg(long, value_name = "ADDRESS", env = "DLOG_HTTP_SERVER", default_value = "127.0.0.1:9644")]
    http: String,
}

/// Waits; after the time-out, prints the conditions that are not true to stderr.
pub(super) fn wait(options: &WaitOptions) -> Result<ExitCode, String> {
    if let Some(bootstrap) = &options.bootstrap_server {
        return wait_over_kafka(bootstrap, options);
    }
    let (status, body) = block_on(get(&options.http, &path(options)))?;
    let text = String::from_utf8_lossy(&body).trim().to_string();
    match status {
        StatusCode::OK => Ok(ExitCode::SUCCESS),
        StatusCode::REQUEST_TIMEOUT => {
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            let missing = answer["missing"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Ok(timed_out(&options.timeout, &missing.collect::<Vec<_>>().join("; ")))
        }
        StatusCode::BAD_REQUEST => Ok(invalid(&text)),
        other => Err(format!("{} answers {other}: {text}", options.http)),
    }
}

fn timed_out(timeout: &str, missing: &str) -> ExitCode {
    eprintln!("dlog: not within {timeout}: {missing}");
    ExitCode::from(TIMED_OUT)
}

fn invalid(what: &str) -> ExitCode {
    eprintln!("dlog: {what}");
    ExitCode::from(USAGE)
}

/// A broker that cannot be reached yet is one more condition that is not true.
fn wait_over_kafka(bootstrap: &str, options: &WaitOptions) -> Result<ExitCode, String> {
    let conditions = conditions(options);
    let timeout = match conditions.check() {
        Ok(timeout) => timeout,
        Err(what) => return Ok(invalid(&what)),
    };
    let (begin, servers) = (Instant::now(), Servers::at(bootstrap));
    block_on(async {
        loop {
            let observed = observe(&servers, &conditions);
            let missing = match tokio::time::timeout(timeout.max(CHECK_EVERY), observed).await {
                Ok(observed) => observed.map_or_else(|error| vec![error], |observed| conditions.missing(&observed)),
                Err(_) => vec![format!("{bootstrap} did not answer")],
            };
            if missing.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            if begin.elapsed() >= timeout {
                return Ok(timed_out(&options.timeout, &missing.join("; ")));
            }
            tokio::time::sleep(CHECK_EVERY.min(timeout.saturating_sub(begin.elapsed()))).await;
        }
    })
}

fn conditions(options: &WaitOptions) -> Conditions {
    let WaitOptions { group, state, members, lag, topic, timeout, .. } = options.clone();
    Conditions { group, state, members, lag, topic, timeout: Some(timeout) }
}

fn path(options: &WaitOptions) -> String {
    let numbers = [("members", options.members.map(|n| n.to_string())), ("lag", options.lag.map(|n| n.to_string()))];
    let words = [("group", &options.group), ("state", &options.state), ("topic", &options.topic)];
    let words = words.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let all = numbers.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(words);
    let pairs = all.chain([("timeout", options.timeout.clone())]).map(|(name, value)| format!("{name}={}", encoded(&value)));
    format!("/v1/wait?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_in_the_path() {
        let options = WaitOptions {
            group: Some("a b&c".into()),
            state: Some("stable".into()),
            members: Some(2),
            lag: None,
            topic: None,
            timeout: "3s".into(),
            bootstrap_server: None,
            http: "x:1".into(),
        };
        assert_eq!(path(&options), "/v1/wait?members=2&group=a%20b%26c&state=stable&timeout=3s");
    }
}
