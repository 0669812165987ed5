//! What clients saw, in the order in which they saw it, and a checker in the manner of Jepsen's Kafka workload that says what may not be.
//!
//! Values are numbers that are sent once each (an idempotent producer's retries send the same one). A send whose answer did not come is
//! unknown, not failed: it may be there or not. Offsets may have gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that a client saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A producer sent a value; the offset, if it was acknowledged.
    Sent { client: String, partition: i32, value: u64, offset: Option<i64> },
    /// A consumer goes on at an offset of its choice: what it polled before does not bind it.
    Seek { client: String, partition: i32, offset: i64 },
    /// Offsets and values that a consumer got, in their order.
    Polled { client: String, partition: i32, records: Vec<(i64, u64)> },
    /// A reader at the very end has read from the first offset to the last.
    ReadToEnd { client: String, partition: i32 },
    /// A group's offset, acknowledged.
    Committed { group: String, partition: i32, offset: i64 },
    /// What the broker says is a group's offset; -1 is none. Asked for after all commits that come before in the history.
    Found { group: String, partition: i32, offset: i64 },
    /// A transaction is about to be committed: from now on its values may be seen.
    Committing { values: Vec<(i32, u64)> },
    /// A transaction with its values, and the group's offset that is part of it, as its client knows how it ended. Its values were `Sent` too.
    Transaction { values: Vec<(i32, u64)>, offset: Option<(String, i32, i64)>, end: End },
    /// What a reader of committed records got.
    PolledCommitted { client: String, partition: i32, records: Vec<(i64, u64)> },
    /// A reader of committed records at the very end has read from the first offset to the last.
    ReadCommittedToEnd { client: String, partition: i32 },
    /// An idempotent producer that waits for each answer was told that its sequence is wrong.
    OutOfSequence { client: String, partition: i32, value: u64 },
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its commit was acknowledged.
    Committed,
    /// Nobody asked to commit it, or its end was acknowledged as an abort.
    Aborted,
    /// Its commit was asked for, and no answer came.
    Unknown,
}

/// What may not be. The names are Jepsen's where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// An acknowledged value is not where a later reader of everything looks.
    LostWrite,
    /// A value is at two offsets.
    Duplicate,
    /// Two values were at one offset, for whoever saw them.
    InconsistentOffsets,
    /// A consumer that goes on passed over a value that was there.
    PollSkip,
    /// A consumer that goes on went back.
    NonmonotonicPoll,
    /// A producer that waits for each answer got a smaller offset after a larger one.
    NonmonotonicSend,
    /// A group's offset is lower than what was acknowledged.
    LostCommit,
    /// A value was polled that nobody sent to this partition.
    Phantom,
    /// A producer that did nothing wrong was refused.
    OutOfSequence,
    /// A reader of committed records got a value of an aborted transaction, or a group has an offset of one.
    AbortedRead,
    /// A reader of committed records got a value before its transaction was to be committed.
    PrecommittedRead,
    /// A reader of everything that is committed finds a part of a transaction.
    TornTransaction,
}

/// An anomaly, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found(pub Anomaly, pub String);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0, self.1)
    }
}

/// All anomalies of a history.
pub fn check(history: &[Event]) -> BTreeSet<Found> {
    let mut found = BTreeSet::new();
    let mut report = |anomaly: Anomaly, text: String| {
        found.insert(Found(anomaly, text));
    };
    // Where each value is, as whoever saw it says.
    let mut values: BTreeMap<(i32, i64), BTreeSet<u64>> = BTreeMap::new();
    let mut offsets: BTreeMap<(i32, u64), BTreeSet<i64>> = BTreeMap::new();
    let mut sent: BTreeSet<(i32, u64)> = BTreeSet::new();
    for event in history {
        let (partition, seen): (i32, Vec<(i64, u64)>) = match event {
            Event::Sent { partition, value, offset, .. } => {
                sent.insert((*partition, *value));
                (*partition, offset.iter().map(|offset| (*offset, *value)).collect())
            }
            Event::OutOfSequence { client, partition, value } => {
                report(Anomaly::OutOfSequence, format!("{client} with {value} to {partition}"));
                continue;
            }
            Event::Polled { partition, records, .. } | Event::PolledCommitted { partition, records, .. } => (*partition, records.clone()),
            _ => continue,
        };
        for (offset, value) in seen {
            values.entry((partition, offset)).or_default().insert(value);
            offsets.entry((partition, value)).or_default().insert(offset);
        }
    }
    for ((partition, offset), values) in values.iter().filter(|(_, values)| values.len() > 1) {
        report(Anomaly::InconsistentOffsets, format!("{partition}@{offset} has {values:?}"));
    }
    for ((partition, value), offsets) in &offsets {
        if offsets.len() > 1 {
            report(Anomaly::Duplicate, format!("{value} is in {partition} at {offsets:?}"));
        }
        if !sent.contains(&(*partition, *value)) {
            report(Anomaly::Phantom, format!("{value} in {partition} at {offsets:?} was never sent"));
        }
    }
    consumers(history, &values, &mut report);
    producers(history, &mut report);
    groups(history, &mut report);
    transactions(history, &values, &mut report);
    found
}

/// Who reads committed records sees whole transactions, once they are to be committed, and passes over none of them.
fn transactions(history: &[Event], values: &BTreeMap<(i32, i64), BTreeSet<u64>>, report: &mut impl FnMut(Anomaly, String)) {
    let mut ends: BTreeMap<(i32, u64), End> = BTreeMap::new();
    let mut aborted_offsets = BTreeSet::new();
    for event in history {
        if let Event::Transaction { values, offset, end } = event {
            ends.extend(values.iter().map(|value| (*value, *end)));
            aborted_offsets.extend(offset.clone().filter(|_| *end == End::Aborted));
        }
    }
    // A value that is part of no transaction is committed.
    let end_of = |partition: i32, value: u64| ends.get(&(partition, value)).copied().unwrap_or(End::Committed);
    let mut to_be_committed: BTreeSet<(i32, u64)> = BTreeSet::new();
    let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    let mut read: BTreeSet<(i32, u64)> = BTreeSet::new();
    for event in history {
        match event {
            Event::Committing { values } => to_be_committed.extend(values),
            Event::Found { group, partition, offset } if aborted_offsets.contains(&(group.clone(), *partition, *offset)) => {
                report(Anomaly::AbortedRead, format!("{group} finds {offset} in {partition}, which was aborted"));
            }
            Event::PolledCommitted { client, partition, records } => {
                for (offset, value) in records {
                    if end_of(*partition, *value) == End::Aborted {
                        report(Anomaly::AbortedRead, format!("{client} got {value} at {partition}@{offset}"));
                    } else if ends.contains_key(&(*partition, *value)) && !to_be_committed.contains(&(*partition, *value)) {
                        report(Anomaly::PrecommittedRead, format!("{client} got {value} at {partition}@{offset}"));
                    }
                    let expected = next.insert((client, *partition), offset + 1).unwrap_or(*offset);
                    if *offset < expected {
                        report(Anomaly::NonmonotonicPoll, format!("{client} got {partition}@{offset} and was at {expected}"));
                    }
                    let mut passed = values.range((*partition, expected)..(*partition, (*offset).max(expected)));
                    if let Some(((_, at), missed)) = passed.find(|(_, v)| v.iter().all(|v| end_of(*partition, *v) == End::Committed)) {
                        report(Anomaly::PollSkip, format!("{client} got {partition}@{offset} and passed {missed:?} at {at}"));
                    }
                    read.insert((*partition, *value));
                }
            }
            _ => {}
        }
    }
    let to_end: BTreeSet<i32> =
        history.iter().filter_map(|e| if let Event::ReadCommittedToEnd { partition, .. } = e { Some(*partition) } else { None }).collect();
    for event in history {
        match event {
            Event::Sent { partition, value, offset: Some(offset), .. }
                if to_end.contains(partition) && end_of(*partition, *value) == End::Committed && !read.contains(&(*partition, *value)) =>
            {
                report(
                    Anomaly::LostWrite,
                    format!("{value} is committed at {partition}@{offset}, and no reader of committed records got it"),
                );
            }
            Event::Transaction { values, end: End::Unknown, .. } if values.iter().all(|(partition, _)| to_end.contains(partition)) => {
                let there = values.iter().filter(|value| read.contains(value)).count();
                if there != 0 && there != values.len() {
                    report(Anomaly::TornTransaction, format!("of {values:?} {there} are there"));
                }
            }
            _ => {}
        }
    }
}

/// Each consumer goes on from where it was, and passes over nothing; a reader of everything finds all that was acknowledged.
fn consumers(history: &[Event], values: &BTreeMap<(i32, i64), BTreeSet<u64>>, report: &mut impl FnMut(Anomaly, String)) {
    let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    let mut read: BTreeMap<(&str, i32), BTreeSet<u64>> = BTreeMap::new();
    for event in history {
        match event {
            Event::Seek { client, partition, offset } => drop(next.insert((client, *partition), *offset)),
            Event::Polled { client, partition, records } => {
                let place = (client.as_str(), *partition);
                for (offset, value) in records {
                    let expected = next.get(&place).copied().unwrap_or(*offset);
                    if *offset < expected {
                        report(Anomaly::NonmonotonicPoll, format!("{client} got {partition}@{offset} and was at {expected}"));
                    } else if let Some(((_, passed), missed)) = values.range((*partition, expected)..(*partition, *offset)).next() {
                        report(Anomaly::PollSkip, format!("{client} got {partition}@{offset} and passed {missed:?} at {passed}"));
                    }
                    next.insert(place, offset + 1);
                    read.entry(place).or_default().insert(*value);
                }
            }
            Event::ReadToEnd { client, partition } => {
                let read = read.get(&(client.as_str(), *partition));
                for event in history {
                    if let Event::Sent { partition: to, value, offset: Some(offset), .. } = event
                        && to == partition
                        && !read.is_some_and(|read| read.contains(value))
                    {
                        report(Anomaly::LostWrite, format!("{value} was acknowledged at {partition}@{offset}; {client} did not find it"));
                    }
                }
            }
            _ => {}
        }
    }
}

fn producers(history: &[Event], report: &mut impl FnMut(Anomaly, String)) {
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for event in history {
        if let Event::Sent { client, partition, value, offset: Some(offset) } = event
            && let Some(before) = last.insert((client, *partition), *offset)
            && before >= *offset
        {
            report(Anomaly::NonmonotonicSend, format!("{client} sent {value} to {partition}@{offset} after {before}"));
        }
    }
}

/// A group's members commit only what they have read on, so its offset never goes back.
fn groups(history: &[Event], report: &mut impl FnMut(Anomaly, String)) {
    let mut committed: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for event in history {
        match event {
            Event::Committed { group, partition, offset } => {
                let highest = committed.entry((group, *partition)).or_insert(*offset);
                *highest = (*highest).max(*offset);
            }
            Event::Found { group, partition, offset } => {
                if let Some(highest) = committed.get(&(group.as_str(), *partition)).filter(|highest| *highest > offset) {
                    report(Anomaly::LostCommit, format!("{group} finds {offset} in {partition} and had committed {highest}"));
                }
            }
            _ => {}
        }
    }
}
