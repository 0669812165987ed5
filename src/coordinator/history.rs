//! The events of a group since this broker became its coordinator, for people who ask why it rebalances.

use std::collections::VecDeque;

/// The number of events that are kept for a group; older ones are deleted.
pub(super) const EVENTS_KEPT: usize = 200;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupEventKind {
    /// A member joined.
    Join,
    /// A member left.
    Leave,
    /// A member was removed because its session timed out or it was late.
    Timeout,
    /// All members must rejoin.
    Rebalance,
    /// A new generation is complete.
    Generation,
    /// Members have received their assignments.
    Stable,
}

impl GroupEventKind {
    /// The kind as one word.
    pub fn name(self) -> &'static str {
        match self {
            GroupEventKind::Join => "join",
            GroupEventKind::Leave => "leave",
            GroupEventKind::Timeout => "timeout",
            GroupEventKind::Rebalance => "rebalance",
            GroupEventKind::Generation => "generation",
            GroupEventKind::Stable => "stable",
        }
    }
}

/// An event of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEvent {
    /// Wall-clock time in milliseconds.
    pub wall_ms: i64,
    /// The kind of event.
    pub kind: GroupEventKind,
    /// One sentence with the cause and numbers.
    pub text: String,
}

/// The most recent events, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct History(VecDeque<GroupEvent>);

impl History {
    pub(super) fn note(&mut self, wall_ms: i64, kind: GroupEventKind, text: String) {
        if self.0.len() == EVENTS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(GroupEvent { wall_ms, kind, text });
    }

    /// The text of the last event, as the cause of the next one.
    pub(super) fn cause(&self) -> &str {
        self.0.back().map_or("the cause is unknown", |event| &event.text)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &GroupEvent> {
        self.0.iter()
    }
}
