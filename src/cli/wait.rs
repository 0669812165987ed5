//! `dlog wait`: `GET /v1/wait` for scripts.

use std::process::ExitCode;

use axum::http::StatusCode;
use clap::Args;
use serde_json::Value;

use super::block_on::block_on;
use super::http::get;
use crate::http::encoded;

/// Time is over.
const TIMED_OUT: u8 = 4;
/// What was asked for makes no sense.
const USAGE: u8 = 2;

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
    /// The most records that it may have still to read.
    #[arg(long)]
    lag: Option<i64>,
    /// A topic that is to exist; with --lag the one that is counted.
    #[arg(long)]
    topic: Option<String>,
    /// How long: 10s, 500ms, 2m.
    #[arg(long, default_value = "10s")]
    timeout: String,
    /// Where the broker serves HTTP.
    #[arg(long, value_name = "ADDRESS", env = "DLOG_HTTP_SERVER", default_value = "127.0.0.1:9644")]
    http: String,
}

/// Waits, and says on stderr what is missing when time is over.
pub(super) fn wait(options: &WaitOptions) -> Result<ExitCode, String> {
    let (status, body) = block_on(get(&options.http, &path(options)))?;
    let text = String::from_utf8_lossy(&body).trim().to_string();
    match status {
        StatusCode::OK => Ok(ExitCode::SUCCESS),
        StatusCode::REQUEST_TIMEOUT => {
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            let missing = answer["missing"].as_array().into_iter().flatten().filter_map(Value::as_str);
            eprintln!("dlog: not within {}: {}", options.timeout, missing.collect::<Vec<_>>().join("; "));
            Ok(ExitCode::from(TIMED_OUT))
        }
        StatusCode::BAD_REQUEST => {
            eprintln!("dlog: {text}");
            Ok(ExitCode::from(USAGE))
        }
        other => Err(format!("{} answers {other}: {text}", options.http)),
    }
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
            http: "x:1".into(),
        };
        assert_eq!(path(&options), "/v1/wait?members=2&group=a%20b%26c&state=stable&timeout=3s");
    }
}
