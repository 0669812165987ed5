//! Which segments retention deletes. Decisions are separate from their execution.

use crate::model::Offset;

/// The facts about a segment that retention needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset after its last record.
    pub next_offset: Offset,
    /// Its bytes.
    pub size: u64,
    /// The first timestamp, or the file's modification time if the records have none.
    pub first_timestamp_ms: i64,
    /// The largest timestamp, or the file's modification time if the records have none.
    pub largest_timestamp_ms: i64,
}

/// The topic's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `retention.ms`; none if there is no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; none if there is no limit.
    pub retention_bytes: Option<u64>,
}

/// A step to execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Seal the active segment and create a new one: the whole active segment may be deleted.
    Roll,
    /// Delete the oldest segment, which has this base offset.
    Delete(Offset),
}

/// Decides segment by segment, oldest first, and stops at the first segment that is kept. A segment is deleted if:
/// 1. all of it is below the log start, or
/// 2. its largest timestamp is older than `retention_ms`, or
/// 3. the remaining segments still have `retention_bytes`.
///
/// By rule 2 a segment with a timestamp in the future is kept, and so are all after it. Only records below the high watermark are deleted. The
/// last segment is rolled before, and only if it is not empty.
pub fn choose(segments: &[SegmentFacts], policy: Policy, log_start: Offset, high_watermark: Offset, now_ms: i64) -> Vec<Deed> {
    let mut left: u64 = segments.iter().map(|s| s.size).sum();
    let mut deeds = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let below_start = segment.next_offset <= log_start;
        let old = policy.retention_ms.is_some_and(|ms| now_ms.saturating_sub(segment.largest_timestamp_ms) > ms);
        let too_much = policy.retention_bytes.is_some_and(|bytes| left.saturating_sub(segment.size) >= bytes);
        let empty = segment.next_offset == segment.base_offset;
        if !(below_start || old || too_much) || segment.next_offset > high_watermark || empty {
            break;
        }
        if at + 1 == segments.len() {
            deeds.insert(0, Deed::Roll);
        }
        left -= segment.size;
        deeds.push(Deed::Delete(segment.base_offset));
    }
    deeds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(sizes_and_times: &[(u64, i64)]) -> Vec<SegmentFacts> {
        let facts = |(at, (size, time)): (usize, &(u64, i64))| SegmentFacts {
            base_offset: Offset(at as i64 * 10),
            next_offset: Offset(at as i64 * 10 + 10),
            size: *size,
            first_timestamp_ms: *time,
            largest_timestamp_ms: *time,
        };
        sizes_and_times.iter().enumerate().map(facts).collect()
    }

    #[test]
    fn the_rules_hold_case_by_case() {
        use Deed::{Delete, Roll};
        let three = segments(&[(100, 10), (100, 20), (100, 30)]);
        let keep = Policy { retention_ms: None, retention_bytes: None };
        let time = |ms| Policy { retention_ms: Some(ms), ..keep };
        let bytes = |bytes| Policy { retention_bytes: Some(bytes), ..keep };
        let (d0, d1, d2) = (Delete(Offset(0)), Delete(Offset(10)), Delete(Offset(20)));
        type Case = (&'static str, Policy, i64, i64, i64, Vec<Deed>);
        let cases: Vec<Case> = vec![
            ("for ever", keep, 0, 30, 1000, vec![]),
            ("time, one is old", time(85), 0, 30, 100, vec![d0]),
            ("time, exactly the limit stays", time(90), 0, 30, 100, vec![]),
            ("time, all are old", time(5), 0, 30, 100, vec![Roll, d0, d1, d2]),
            ("time, not above the high watermark", time(5), 0, 15, 100, vec![d0]),
            ("bytes, two are too many", bytes(100), 0, 30, 0, vec![d0, d1]),
            ("bytes, part of a segment stays", bytes(150), 0, 30, 0, vec![d0]),
            ("bytes, none may stay", bytes(0), 0, 30, 0, vec![Roll, d0, d1, d2]),
            ("below the log start", keep, 20, 30, 0, vec![d0, d1]),
        ];
        for (what, policy, log_start, high_watermark, now, deeds) in cases {
            assert_eq!(choose(&three, policy, Offset(log_start), Offset(high_watermark), now), deeds, "{what}");
        }
        let future = segments(&[(100, 5000), (100, 20)]);
        assert_eq!(choose(&future, time(5), Offset(0), Offset(20), 1000), [], "a timestamp from the future blocks");
    }
}
