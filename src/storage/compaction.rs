//! What compaction must do. Decisions are separate from their execution.

use super::SegmentFacts;
use crate::model::Offset;

/// The topic's settings. Names are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compaction {
    /// `min.cleanable.dirty.ratio`.
    pub dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_lag_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// The part of a log to compact: everything below `end`; the part below `first_dirty` was compacted before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dirty {
    /// The first offset that was never compacted.
    pub first_dirty: Offset,
    /// The first offset that is not compacted this time; a segment begins at it.
    pub end: Offset,
    /// The part of the bytes below `end` that is dirty, 0 to 1.
    pub ratio: f64,
}

/// Decides like Kafka whether a log must be compacted. `segments` are all segments of a log, the last one active.
///
/// - The compacted part is below the active segment, below `last_stable`, and below the first segment with a record younger than `min_lag_ms`.
/// - The log is compacted if more than `dirty_ratio` of that part is dirty, or if the oldest dirty segment is older than `max_lag_ms`.
pub fn choose_dirty(
    segments: &[SegmentFacts],
    policy: &Compaction,
    checkpoint: Option<Offset>,
    log_start: Offset,
    last_stable: Offset,
    now_ms: i64,
) -> Option<Dirty> {
    let active = segments.last()?;
    // A checkpoint beyond the log end belongs to another log with this name.
    let first_dirty = checkpoint.filter(|offset| *offset <= active.next_offset).unwrap_or(log_start).max(log_start);
    let sealed = &segments[..segments.len() - 1];
    let is_too_young = |s: &SegmentFacts| policy.min_lag_ms > 0 && now_ms.saturating_sub(s.largest_timestamp_ms) < policy.min_lag_ms;
    let stays = |s: &&SegmentFacts| s.next_offset > last_stable || (s.next_offset > first_dirty && is_too_young(s));
    let end = sealed.iter().find(stays).map_or(active.base_offset, |s| s.base_offset);
    let below_end = || sealed.iter().filter(|s| s.next_offset <= end);
    let dirty = || below_end().filter(|s| s.next_offset > first_dirty);
    let (all_bytes, dirty_bytes): (u64, u64) = (below_end().map(|s| s.size).sum(), dirty().map(|s| s.size).sum());
    if dirty_bytes == 0 {
        return None;
    }
    let ratio = dirty_bytes as f64 / all_bytes as f64;
    let waits_too_long = dirty().next().is_some_and(|s| now_ms.saturating_sub(s.first_timestamp_ms) > policy.max_lag_ms);
    (ratio > policy.dirty_ratio || waits_too_long).then_some(Dirty { first_dirty, end, ratio })
}

/// Merges neighbouring segments that fit into one segment: returns the lengths of runs, in order.
pub fn group(segments: &[SegmentFacts], segment_bytes: u64) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |s: &&SegmentFacts| {
            bytes += s.size;
            bytes <= segment_bytes && s.next_offset.0 - first.base_offset.0 <= i64::from(i32::MAX)
        };
        let count = rest.iter().take_while(fits).count().max(1);
        groups.push(count);
        rest = &rest[count..];
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Compaction = Compaction { dirty_ratio: 0.5, min_lag_ms: 0, max_lag_ms: i64::MAX, delete_retention_ms: 0 };

    /// Segments of ten offsets each, from size and largest timestamp.
    fn segments(of: &[(u64, i64)]) -> Vec<SegmentFacts> {
        let one = |(at, (size, time)): (usize, &(u64, i64))| SegmentFacts {
            base_offset: Offset(at as i64 * 10),
            next_offset: Offset(at as i64 * 10 + 10),
            size: *size,
            first_timestamp_ms: *time - 500,
            largest_timestamp_ms: *time,
        };
        of.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_rules_hold_case_by_case() {
        let four = segments(&[(100, 1000), (100, 2000), (100, 3000), (100, 4000)]);
        let lag = |min_lag_ms| Compaction { min_lag_ms, ..POLICY };
        let old = |max_lag_ms| Compaction { max_lag_ms, ..POLICY };
        let eager = Compaction { dirty_ratio: 0.0, ..POLICY };
        let due = |first_dirty, end, ratio| Some(Dirty { first_dirty: Offset(first_dirty), end: Offset(end), ratio });
        type Case = (&'static str, Compaction, Option<i64>, i64, i64, Option<Dirty>);
        let cases: Vec<Case> = vec![
            ("never compacted: all but the active segment", POLICY, None, 0, 40, due(0, 30, 1.0)),
            ("half is not more than half", POLICY, Some(20), 0, 40, None),
            ("a third is dirty, and any is enough", eager, Some(20), 0, 40, due(20, 30, 100.0 / 300.0)),
            ("nothing is dirty", eager, Some(30), 0, 40, None),
            ("up to the last stable offset", POLICY, None, 0, 25, due(0, 20, 1.0)),
            ("nothing is stable", POLICY, None, 0, 5, None),
            ("young segments wait", lag(2500), None, 0, 40, due(0, 20, 1.0)),
            ("all are young", lag(10_000), None, 0, 40, None),
            ("a young segment that was compacted does not hold up others", lag(1500), Some(20), 0, 40, None),
            ("a third is dirty, and old", old(2499), Some(20), 0, 40, due(20, 30, 100.0 / 300.0)),
            ("a third is dirty, and not old enough", old(2500), Some(20), 0, 40, None),
            ("records were deleted above the checkpoint", POLICY, Some(0), 10, 40, due(10, 30, 200.0 / 300.0)),
            ("a checkpoint beyond the end is not this log's", POLICY, Some(90), 0, 40, due(0, 30, 1.0)),
        ];
        for (what, policy, checkpoint, log_start, last_stable, expected) in cases {
            let found = choose_dirty(&four, &policy, checkpoint.map(Offset), Offset(log_start), Offset(last_stable), 5000);
            assert_eq!(found, expected, "{what}");
        }
        assert_eq!(choose_dirty(&four[3..], &POLICY, None, Offset(30), Offset(40), 5000), None, "the active segment alone");
    }

    #[test]
    fn neighbours_are_joined_while_they_fit() {
        let sizes = segments(&[(60, 0), (40, 0), (1, 0), (99, 0), (300, 0), (5, 0)]);
        assert_eq!(group(&sizes, 100), [2, 2, 1, 1]);
        let mut far = segments(&[(1, 0), (1, 0)]);
        far[1].next_offset = Offset(i64::from(i32::MAX) + 1);
        assert_eq!(group(&far, 100), [1, 1], "offsets of a segment fit 32 bits");
    }
}
