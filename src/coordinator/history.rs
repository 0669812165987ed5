//! What happened to a group since this broker coordinates it: for people who ask why it rebalances.

use std::collections::VecDeque;

/// Happenings that are kept of a group; older ones go.
pub(super) const HAPPENINGS_KEPT: usize = 200;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HappeningKind {
    /// A member came.
    Join,
    /// A member said that it goes.
    Leave,
    /// A member was taken out because it was silent or late.
    Timeout,
    /// All members have to join again.
    Rebalance,
    /// A new generation is complete.
    Generation,
    /// Members have their parts.
    Stable,
}

impl HappeningKind {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            HappeningKind::Join => "join",
            HappeningKind::Leave => "leave",
            HappeningKind::Timeout => "timeout",
            HappeningKind::Rebalance => "rebalance",
            HappeningKind::Generation => "generation",
            HappeningKind::Stable => "stable",
        }
    }
}

/// Something that happened to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// Wall time in milliseconds.
    pub wall_ms: i64,
    /// What kind of thing.
    pub kind: HappeningKind,
    /// One sentence with cause and figures.
    pub text: String,
}

/// The last happenings, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct History(VecDeque<Happening>);

impl History {
    pub(super) fn note(&mut self, wall_ms: i64, kind: HappeningKind, text: String) {
        if self.0.len() == HAPPENINGS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Happening { wall_ms, kind, text });
    }

    /// Why what comes next happens.
    pub(super) fn cause(&self) -> &str {
        self.0.back().map_or("no cause is known", |happening| &happening.text)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Happening> {
        self.0.iter()
    }
}
