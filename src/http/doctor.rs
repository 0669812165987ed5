//! `GET /v1/doctor`: the problems that the broker itself can detect, as sentences.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Pages;
use super::time::{span, utc};
use crate::env::{OPEN_FILES_WANTED, ProcessUse, process_use};
use crate::partition::DirectoryView;
use crate::server::{Loss, Lost, Seen, Sent, Stranger};

/// A disk is nearly full if less than this share, or less than this number of bytes, is free.
const FREE_SHARE_MIN: f64 = 0.03;
const FREE_BYTES_MIN: u64 = 256 << 20;
/// The share of the limit of open files from which a problem is reported.
const OPEN_FILES_SHARE: f64 = 0.8;

/// A problem and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A word for programs: `client-never-came`, `group-protocol`, `sasl`, `tls`, `http`, `frame`, `api`, `version`, `disk-full`, `disk-offline`,
    /// `open-files`, and those of `dlog doctor` itself.
    pub kind: String,
    /// The problem, as a sentence.
    pub text: String,
    /// What to do.
    pub remedy: String,
    /// When it was seen; none for a problem that exists now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<FindingSeen>,
}

/// When a finding was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingSeen {
    /// The number of times.
    pub count: u32,
    /// The first time, in UTC (RFC 3339).
    pub first: String,
    /// The last time.
    pub last: String,
    /// Seconds since the last time.
    pub age_seconds: u64,
}

impl Finding {
    /// A problem that exists now.
    pub fn new(kind: &str, text: String, remedy: String) -> Finding {
        Finding { kind: kind.into(), text, remedy, seen: None }
    }
}

impl fmt::Display for FindingSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "once, {} ago ({})", span(self.age_seconds), self.last),
            count => write!(f, "{count} times, last {} ago ({}), first at {}", span(self.age_seconds), self.last, self.first),
        }
    }
}

/// The broker's diagnosis of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The cluster's id, with which the broker can be recognized over the Kafka port.
    pub cluster_id: String,
    /// Name and bound address of each listener.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// The problems.
    pub findings: Vec<Finding>,
}

/// Both clocks at one moment: events are recorded with the monotonic clock and reported in wall time.
#[derive(Clone, Copy)]
struct Now {
    instant: Instant,
    wall_ms: i64,
}

impl Now {
    fn seen(self, seen: Seen) -> FindingSeen {
        let at = |instant: Instant| utc(self.wall_ms - self.instant.duration_since(instant).as_millis() as i64);
        let age_seconds = self.instant.duration_since(seen.last).as_secs();
        FindingSeen { count: seen.count, first: at(seen.first), last: at(seen.last), age_seconds }
    }
}

/// `GET /v1/doctor`.
pub(super) async fn doctor(State(pages): State<Pages>) -> Json<Diagnosis> {
    let now = Now { instant: Instant::now(), wall_ms: pages.clock.wall_ms() };
    let mut findings: Vec<Finding> = pages.visits.lost(now.instant).iter().map(|lost| of_lost(lost, now)).collect();
    findings.extend(pages.visits.strangers(now.instant).iter().map(|stranger| of_stranger(stranger, pages.http, now)));
    findings.extend(pages.partitions.directories().iter().filter_map(of_directory));
    findings.extend(process_use().as_ref().and_then(of_open_files));
    Json(Diagnosis { cluster_id: pages.cluster_id.clone(), listeners: pages.listeners.iter().cloned().collect(), findings })
}

/// `DELETE /v1/doctor`: clears the findings about clients. A page of another site cannot send this without a CORS preflight, which is refused.
pub(super) async fn clear(State(pages): State<Pages>) -> StatusCode {
    pages.visits.clear();
    StatusCode::NO_CONTENT
}

fn of_lost(lost: &Lost, now: Now) -> Finding {
    let kind = match lost.loss {
        Loss::NeverCame => "client-never-came",
        Loss::GroupProtocol => "group-protocol",
    };
    Finding { seen: Some(now.seen(lost.seen)), ..Finding::new(kind, lost.text(), lost.remedy()) }
}

fn of_stranger(stranger: &Stranger, http: SocketAddr, now: Now) -> Finding {
    let Stranger { ip, listener, sent, seen } = stranger;
    let (kind, remedy) = match sent {
        Sent::Tls => ("tls", "set security.protocol=PLAINTEXT in the client, and remove its ssl options".to_string()),
        Sent::Sasl => (
            "sasl",
            "set security.protocol=PLAINTEXT in the client, and remove its sasl options: this broker does not support authentication yet"
                .to_string(),
        ),
        Sent::Http => ("http", format!("HTTP is served at http://{http}; this port is for Kafka clients")),
        Sent::Length(_) => {
            ("frame", "check that this is a Kafka client; if its requests are that large, raise socket.request.max.bytes".to_string())
        }
        Sent::Api(_) => ("api", "docs/protocol.md lists the supported APIs and versions".to_string()),
        Sent::Version(..) => ("version", "use a newer client, for Kafka 0.11 or later".to_string()),
    };
    Finding { seen: Some(now.seen(*seen)), ..Finding::new(kind, format!("{ip} sent listener {listener} {sent}"), remedy) }
}

fn of_directory(directory: &DirectoryView) -> Option<Finding> {
    let path = directory.path.display();
    if directory.is_offline {
        let remedy = "repair the disk and restart the broker".to_string();
        return Some(Finding::new("disk-offline", format!("{path} is offline after a disk error: its partitions are not served"), remedy));
    }
    let (total, free) = directory.space?;
    let is_full = free < FREE_BYTES_MIN.min(total / 4) || (free as f64) < total as f64 * FREE_SHARE_MIN;
    is_full.then(|| {
        let (free, total) = (free >> 20, total >> 20);
        let text = format!(
            "the disk of {path} is nearly full: {free} of {total} MiB are free; when it is full, producers receive a storage error"
        );
        let remedy = "delete topics or records, lower retention.ms or retention.bytes, or move the directory to a larger disk (log.dirs)"
            .to_string();
        Finding::new("disk-full", text, remedy)
    })
}

fn of_open_files(process: &ProcessUse) -> Option<Finding> {
    let limit = process.open_files_max?;
    let is_low = limit < OPEN_FILES_WANTED || process.open_files as f64 > limit as f64 * OPEN_FILES_SHARE;
    is_low.then(|| {
        let text = format!("{} files are open, and the limit is {limit}; each partition and each connection needs one", process.open_files);
        let remedy = "raise the hard limit: ulimit -Hn, LimitNOFILE= in systemd, --ulimit nofile= in Docker".to_string();
        Finding::new("open-files", text, remedy)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_finding_has_a_time_a_count_and_an_age() {
        let instant = Instant::now() + Duration::from_secs(1000);
        let now = Now { instant, wall_ms: 1_700_000_000_000 };
        let seen = Seen { count: 3, first: instant - Duration::from_secs(700), last: instant - Duration::from_secs(130) };
        let stranger = Stranger { ip: [10, 0, 0, 1].into(), listener: "PLAINTEXT".into(), sent: Sent::Tls, seen };
        let finding = of_stranger(&stranger, ([127, 0, 0, 1], 9644).into(), now);
        assert_eq!(finding.text, "10.0.0.1 sent listener PLAINTEXT a TLS handshake, but the listener does not use TLS");
        let shown = finding.seen.unwrap().to_string();
        assert_eq!(shown, "3 times, last 2 min ago (2023-11-14T22:11:10Z), first at 2023-11-14T22:01:40Z");
        let once = FindingSeen { count: 1, first: String::new(), last: "now".into(), age_seconds: 0 };
        assert_eq!(once.to_string(), "once, 0 s ago (now)");
    }

    #[test]
    fn few_open_files_are_said() {
        let of = |open_files, max: Option<u64>| of_open_files(&ProcessUse { open_files, open_files_max: max, ..Default::default() });
        assert!(of(10, Some(1024)).is_some() && of(9000, Some(10_000)).is_some());
        assert!(of(10, Some(10_000)).is_none() && of(10, None).is_none());
    }
}
