//! The broker's background work: retention, flushes, compaction.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Config;
use super::dynamic::Dynamic;
use crate::env::{Env, Workers};
use crate::model::Uuid;
use crate::partition::{Error, Partitions};
use crate::storage::{self, Cleaned, Cleaner};

/// The longest sleep of a throttled compaction: between sleeps it checks whether the broker is stopping.
const NAP: Duration = Duration::from_millis(100);

/// The longest sleep of a compaction that waits for `log.cleaner.backoff.ms`: between sleeps it reads the setting again.
const BACK_OFF_STEP: Duration = Duration::from_secs(1);
/// The interval of the check for records that were not flushed within `flush.ms`.
const OVERDUE_EVERY: Duration = Duration::from_secs(1);
/// The pause after retention ran because a disk was full.
const FULL_AGAIN: Duration = Duration::from_secs(1);

/// The pause after a commit failed.
const COMMIT_AGAIN: Duration = Duration::from_millis(250);

/// How logs are compacted. Names are Kafka's.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanerSettings {
    /// `log.cleaner.backoff.ms`: the pause after no log needed compaction.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`.
    pub map_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`, of bytes read.
    pub bytes_per_second: f64,
}

impl CleanerSettings {
    fn rate(&self, dynamic: &Dynamic) -> f64 {
        dynamic.value("log.cleaner.io.max.bytes.per.second").filter(|rate| *rate > 0.0).unwrap_or(self.bytes_per_second)
    }
}

/// Runs retention and background flushes at their intervals. Retention also runs when a disk is full, and a flush also after many bytes were written.
/// When the broker stops, pending work is left to the closing of the logs.
pub(super) async fn maintain(partitions: Arc<Partitions>, workers: Workers, config: Config, dynamic: Dynamic, stop: CancellationToken) {
    let mut retention = tokio::time::interval(config.retention_check);
    let mut flush = tokio::time::interval(config.flush);
    let mut overdue = tokio::time::interval(OVERDUE_EVERY);
    retention.reset();
    flush.reset();
    loop {
        let due = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = retention.tick() => Due::Retention,
            () = partitions.full() => Due::RetentionNow,
            _ = flush.tick() => Due::Flush,
            () = partitions.flush_due() => Due::Flush,
            _ = overdue.tick() => Due::FlushOverdue,
        };
        let partitions = partitions.clone();
        let expiration_ms = dynamic.value("producer.id.expiration.ms").unwrap_or(config.producer_expiration_ms);
        let work = workers.blocking(move || match due {
            Due::Retention | Due::RetentionNow => retain(&partitions, expiration_ms),
            Due::Flush => report(&partitions, partitions.flush()),
            Due::FlushOverdue => report(&partitions, partitions.flush_overdue()),
        });
        if let Err(error) = work.await {
            error!(%error, "maintenance failed");
        }
        if due == Due::RetentionNow {
            warn!("the disk is full; retention has run");
            stop.run_until_cancelled(tokio::time::sleep(FULL_AGAIN)).await;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Retention,
    RetentionNow,
    Flush,
    FlushOverdue,
}

fn report(partitions: &Partitions, flushed: Result<(), Error>) {
    // The failure was logged when the directory went offline.
    if let Err(error) = flushed
        && !partitions.is_offline()
    {
        error!(%error, "logs could not be fsynced");
    }
}

fn retain(partitions: &Partitions, expiration_ms: i64) {
    for (partition, result) in partitions.maintain(expiration_ms) {
        match result {
            Ok(0) => {}
            Ok(segments) => info!(%partition, segments, "retention deleted segments"),
            Err(error) => error!(%partition, %error, "retention failed"),
        }
    }
}

/// Commits the records written to a directory until told to end: one commit for everything that was written while the disk was busy. A commit that
/// fails although the disk is sound, for example because no file can be opened, is repeated after a pause.
pub(super) async fn commit(partitions: Arc<Partitions>, workers: Workers, directory: usize, end: CancellationToken) {
    let mut is_failing = false;
    while end.run_until_cancelled(partitions.commit_due(directory)).await.is_some() {
        let committing = partitions.clone();
        match workers.blocking(move || committing.commit(directory)).await {
            Ok(Ok(())) => is_failing = false,
            // The failure was logged when the directory went offline, and the waiting requests got an error.
            Ok(Err(_)) if partitions.is_directory_offline(directory) => return,
            Ok(Err(error)) => {
                if !std::mem::replace(&mut is_failing, true) {
                    error!(%error, "appended records could not be committed; the commit is repeated until it succeeds");
                }
                tokio::time::sleep(COMMIT_AGAIN).await;
            }
            Err(error) => error!(%error, "a commit failed"),
        }
    }
}

/// Compacts one log after another while any log needs compaction. A log whose compaction fails is skipped until the next start.
pub(super) async fn compact(partitions: Arc<Partitions>, env: Env, settings: CleanerSettings, dynamic: Dynamic, stop: CancellationToken) {
    let mut failed = BTreeSet::new();
    while stop.run_until_cancelled(back_off(&settings, &dynamic)).await.is_some() {
        let cleaner = Cleaner::new(&*env.entropy, dynamic.value("log.cleaner.dedupe.buffer.size").unwrap_or(settings.map_bytes));
        let (partitions, dynamic, settings, stop) = (partitions.clone(), dynamic.clone(), settings.clone(), stop.clone());
        let round = env.workers.blocking(move || {
            compact_all(&partitions, &cleaner, &|| settings.rate(&dynamic), &mut failed, &stop);
            failed
        });
        failed = match round.await {
            Ok(failed) => failed,
            Err(error) => return error!(%error, "compaction ended"),
        };
    }
}

/// Sleeps in steps, so that a lower `log.cleaner.backoff.ms` takes effect soon.
async fn back_off(settings: &CleanerSettings, dynamic: &Dynamic) {
    let begin = tokio::time::Instant::now();
    loop {
        let back_off = dynamic.value("log.cleaner.backoff.ms").map_or(settings.backoff, Duration::from_millis);
        let left = back_off.saturating_sub(begin.elapsed());
        tokio::time::sleep(left.min(BACK_OFF_STEP)).await;
        if left <= BACK_OFF_STEP {
            return;
        }
    }
}

/// `rate` is the current limit of bytes read in a second.
fn compact_all(
    partitions: &Partitions,
    cleaner: &Cleaner,
    rate: &dyn Fn() -> f64,
    failed: &mut BTreeSet<(Uuid, i32)>,
    stop: &CancellationToken,
) {
    loop {
        let (begin, mut bytes) = (Instant::now(), 0.0);
        let mut pace = |read: usize| {
            bytes += read as f64;
            let left = || Duration::try_from_secs_f64(bytes / rate()).unwrap_or(Duration::MAX).saturating_sub(begin.elapsed());
            while !stop.is_cancelled() && !left().is_zero() {
                std::thread::sleep(NAP.min(left()));
            }
            !stop.is_cancelled()
        };
        match partitions.compact(cleaner, failed, &mut pace) {
            None | Some((_, Err(Error::Storage(storage::Error::Stopping)))) => return,
            // Retention has already deleted the segments.
            Some((_, Ok(cleaned))) if cleaned.segments_before == 0 => return,
            // The topic was deleted meanwhile: the next call no longer finds it.
            Some((_, Err(Error::Closed(_)))) => {}
            Some((replica, Ok(cleaned))) => {
                let partition = replica.id();
                let Cleaned { bytes_before, bytes_after, segments_before, segments_after, .. } = cleaned;
                let ms = begin.elapsed().as_millis() as u64;
                info!(%partition, bytes_before, bytes_after, segments_before, segments_after, ms, "compacted");
            }
            Some((replica, Err(error))) => {
                error!(partition = %replica.id(), %error, "compaction failed; this partition is not compacted until the next start");
                // By topic id, not by name: a topic that is created again is compacted.
                failed.insert((replica.topic_id(), replica.id().partition));
            }
        }
    }
}
