//! `GET /v1/doctor`: what is wrong, as far as the broker itself can see, in sentences.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Pages;
use crate::env::{OPEN_FILES_WANTED, ProcessUse, process_use};
use crate::partition::DirectoryView;
use crate::server::{Lost, Sent, Stranger};

/// A disk of which less is free is nearly full: this share, or so many bytes.
const FREE_SHARE_MIN: f64 = 0.03;
const FREE_BYTES_MIN: u64 = 256 << 20;
/// The share of open files from which on there are few left.
const OPEN_FILES_SHARE: f64 = 0.8;

/// What is wrong, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A word for machines: `client-never-came`, `tls`, `http`, `frame`, `api`, `version`, `disk-full`, `disk-offline`, `open-files`, and those of
    /// `dlog doctor` itself.
    pub kind: String,
    /// A sentence.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// Puts one together.
    pub fn new(kind: &str, text: String, remedy: String) -> Finding {
        Finding { kind: kind.into(), text, remedy }
    }
}

/// The broker's view of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The cluster's id, to know the broker again over the Kafka port.
    pub cluster_id: String,
    /// Name and bound address of each listener.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

pub(super) async fn doctor(State(pages): State<Pages>) -> Json<Diagnosis> {
    let mut findings: Vec<Finding> = pages.visits.lost(Instant::now()).iter().map(never_came).collect();
    findings.extend(of_strangers(&pages.visits.strangers(), pages.http));
    findings.extend(pages.partitions.directories().iter().filter_map(of_directory));
    findings.extend(process_use().as_ref().and_then(of_open_files));
    Json(Diagnosis { cluster_id: pages.cluster_id.clone(), listeners: pages.listeners.iter().cloned().collect(), findings })
}

fn never_came(lost: &Lost) -> Finding {
    let Lost { ip, client_id, told, visits, asking } = lost;
    let (listener, address, seconds) = (&told.listener, &told.address, asking.as_secs());
    let text = format!(
        "client {client_id:?} at {ip} asked listener {listener} where the broker is ({visits} connection(s), first {seconds} s ago), was told \
         {address}, and never came there: from {ip} that address seems not to lead here"
    );
    let remedy = format!(
        "advertise an address that {ip} can reach: advertised.listeners={listener}://HOST:PORT (KAFKA_ADVERTISED_LISTENERS); clients in other networks, \
         as inside and outside of Docker, need a listener each. A tool that only lists topics needs nothing"
    );
    Finding::new("client-never-came", text, remedy)
}

fn of_strangers(strangers: &[Stranger], http: SocketAddr) -> Vec<Finding> {
    let mut counts: Vec<(String, &str, Sent, usize)> = Vec::new();
    for Stranger { peer, listener, sent } in strangers {
        let ip = peer.ip().to_canonical().to_string();
        match counts.iter_mut().find(|(of, at, what, _)| (of.as_str(), *at, *what) == (&ip, listener, *sent)) {
            Some((_, _, _, count)) => *count += 1,
            None => counts.push((ip, listener, *sent, 1)),
        }
    }
    let finding = |(ip, listener, sent, count): (String, &str, Sent, usize)| {
        let (kind, remedy) = match sent {
            Sent::Tls => ("tls", "let the client speak without TLS: security.protocol=PLAINTEXT, no ssl option".to_string()),
            Sent::Http => ("http", format!("HTTP is served at http://{http}; Kafka clients take the Kafka port")),
            Sent::Length(_) => ("frame", "is this a Kafka client? If its requests are so long, raise socket.request.max.bytes".to_string()),
            Sent::Api(_) => ("api", "what is offered is listed in docs/protocol.md; ApiVersions tells clients".to_string()),
            Sent::Version(..) => ("version", "take a newer client: one that was made for Kafka 0.11 or later".to_string()),
        };
        let times = if count == 1 { String::new() } else { format!(" ({count} times)") };
        Finding::new(kind, format!("{ip} sent listener {listener} {sent}{times}"), remedy)
    };
    counts.into_iter().map(finding).collect()
}

fn of_directory(directory: &DirectoryView) -> Option<Finding> {
    let path = directory.path.display();
    if directory.is_offline {
        let remedy = "mend the disk and start the broker again".to_string();
        return Some(Finding::new("disk-offline", format!("{path} is offline after a disk error: its partitions are not served"), remedy));
    }
    let (total, free) = directory.space?;
    let is_full = free < FREE_BYTES_MIN.min(total / 4) || (free as f64) < total as f64 * FREE_SHARE_MIN;
    is_full.then(|| {
        let (free, total) = (free >> 20, total >> 20);
        let text =
            format!("the disk of {path} is nearly full: {free} of {total} MiB are free; producers get a storage error when it is full");
        let remedy = "delete topics or records, lower retention.ms or retention.bytes, or give it a larger disk (log.dirs)".to_string();
        Finding::new("disk-full", text, remedy)
    })
}

fn of_open_files(process: &ProcessUse) -> Option<Finding> {
    let limit = process.open_files_max?;
    let is_low = limit < OPEN_FILES_WANTED || process.open_files as f64 > limit as f64 * OPEN_FILES_SHARE;
    is_low.then(|| {
        let text = format!("{} of {limit} files that may be open are; each partition needs one, and each connection", process.open_files);
        let remedy = "raise the hard limit: ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker".to_string();
        Finding::new("open-files", text, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_one_kind_are_one_finding() {
        let stranger = |port: u16, sent| Stranger { peer: ([10, 0, 0, 1], port).into(), listener: "PLAINTEXT".into(), sent };
        let all = [stranger(1, Sent::Tls), stranger(2, Sent::Tls), stranger(3, Sent::Http)];
        let texts: Vec<_> = of_strangers(&all, ([127, 0, 0, 1], 9644).into()).into_iter().map(|f| f.text).collect();
        assert_eq!(
            texts,
            [
                "10.0.0.1 sent listener PLAINTEXT a TLS handshake, and the listener is without TLS (2 times)",
                "10.0.0.1 sent listener PLAINTEXT HTTP, and this is a Kafka listener",
            ]
        );
    }

    #[test]
    fn few_open_files_are_said() {
        let of = |open_files, max: Option<u64>| of_open_files(&ProcessUse { open_files, open_files_max: max, ..Default::default() });
        assert!(of(10, Some(1024)).is_some() && of(9000, Some(10_000)).is_some());
        assert!(of(10, Some(10_000)).is_none() && of(10, None).is_none());
    }
}
