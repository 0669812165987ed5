//! `GET /v1/wait`: responds when a condition is true, so that tests need no sleep.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Pages;
use crate::coordinator::GroupState;
use crate::model::counted;

/// The interval at which the conditions are checked.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The default time-out.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum time-out.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// The conditions of `GET /v1/wait` and of `dlog wait`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The group that `state`, `members` and `lag` are about.
    pub group: Option<String>,
    /// The state of the group, in any case.
    pub state: Option<String>,
    /// The number of its members.
    pub members: Option<usize>,
    /// The maximum lag of the group in records.
    pub lag: Option<i64>,
    /// A topic that must exist. With `lag`, only this topic is counted.
    pub topic: Option<String>,
    /// The time-out.
    pub timeout: Option<String>,
}

/// What the conditions are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Whether the topic exists.
    pub has_topic: bool,
    /// The group; `None` if there is none, and an error if it is not loaded yet.
    pub group: Result<Option<ObservedGroup>, String>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedGroup {
    /// Its state by Kafka's name.
    pub state: String,
    /// The number of its members.
    pub members: usize,
    /// The records that it has still to read; `None` if it has committed no offset. Not read without a condition for it.
    pub lag: Option<i64>,
}

/// The response: all conditions are true, or the ones that are not.
#[derive(Debug, Serialize)]
struct Outcome {
    satisfied: bool,
    missing: Vec<String>,
}

/// Waits: 200 when all conditions are true, 408 with those that are not after the time-out, 400 for an
/// invalid request, and 503 when the broker stops.
pub(super) async fn wait(
    State(pages): State<Pages>,
    query: Result<Query<Conditions>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let checked = query.map_err(|e| e.body_text()).and_then(|Query(conditions)| conditions.check().map(|timeout| (conditions, timeout)));
    let (conditions, timeout) = match checked {
        Ok(checked) => checked,
        Err(what) => return (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response(),
    };
    let end = Instant::now() + timeout;
    loop {
        let missing = conditions.missing(&observe(&conditions, &pages));
        if missing.is_empty() {
            return Json(Outcome { satisfied: true, missing }).into_response();
        }
        if !pages.ready.load(Ordering::Acquire) {
            return (StatusCode::SERVICE_UNAVAILABLE, "the broker stops\n").into_response();
        }
        if Instant::now() >= end {
            return (StatusCode::REQUEST_TIMEOUT, Json(Outcome { satisfied: false, missing })).into_response();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Conditions {
    /// The time-out, if the request is valid.
    pub fn check(&self) -> Result<Duration, String> {
        if self.group.is_none() && (self.state.is_some() || self.members.is_some() || self.lag.is_some()) {
            return Err("state, members and lag are those of a group: group=NAME is missing".into());
        }
        if self.group.is_none() && self.topic.is_none() {
            return Err("name a group or a topic to wait for".into());
        }
        if let Some(state) = &self.state
            && !GroupState::ALL.iter().any(|known| known.name().eq_ignore_ascii_case(state))
        {
            let known: Vec<&str> = GroupState::ALL.iter().map(|state| state.name()).collect();
            return Err(format!("state={state} must be one of {}", known.join(", ")));
        }
        let timeout = self.timeout.as_deref().map_or(Ok(TIMEOUT), duration)?;
        if timeout > TIMEOUT_MAX { Err(format!("a timeout may be at most {} s", TIMEOUT_MAX.as_secs())) } else { Ok(timeout) }
    }

    /// The conditions that are not true, in words.
    pub fn missing(&self, observed: &Observed) -> Vec<String> {
        let mut missing = Vec::new();
        if let Some(topic) = self.topic.as_ref().filter(|_| !observed.has_topic) {
            missing.push(format!("there is no topic {topic}"));
        }
        match (&self.group, &observed.group) {
            (None, _) => {}
            (Some(group), Ok(Some(found))) => self.missing_of_group(group, found, &mut missing),
            (Some(group), Ok(None)) => missing.push(format!("there is no group {group}")),
            (Some(group), Err(error)) => missing.push(format!("group {group} is not available yet: {error}")),
        }
        missing
    }

    fn missing_of_group(&self, group: &str, found: &ObservedGroup, missing: &mut Vec<String>) {
        if let Some(state) = self.state.as_ref().filter(|state| !found.state.eq_ignore_ascii_case(state)) {
            missing.push(format!("group {group} is {}, not {state}", found.state));
        }
        if let Some(members) = self.members.filter(|members| *members != found.members) {
            missing.push(format!("group {group} has {}, not {members}", counted(found.members, "member")));
        }
        if let Some(lag_max) = self.lag {
            match found.lag {
                Some(lag) if lag <= lag_max => {}
                Some(1) => missing.push(format!("group {group} is 1 record behind, more than {lag_max}")),
                Some(lag) => missing.push(format!("group {group} is {lag} records behind, more than {lag_max}")),
                None => missing.push(format!("group {group} has not committed any offset")),
            }
        }
    }
}

fn observe(conditions: &Conditions, pages: &Pages) -> Observed {
    let has_topic = conditions.topic.as_ref().is_some_and(|topic| pages.cluster.image().topic(topic).is_some());
    let group = conditions.group.as_deref().map_or(Ok(None), |group| {
        let found = pages.groups.look_up(group).map_err(|error| error.to_string())?;
        Ok(found.map(|(view, _)| ObservedGroup {
            state: view.state.name().to_string(),
            members: view.members.len(),
            lag: conditions.lag.and_then(|_| lag(pages, group, conditions.topic.as_deref())),
        }))
    });
    Observed { has_topic, group }
}

/// The lag of a group in records, for one topic, or for all topics that it has committed offsets for. A partition without a committed
/// offset counts from its start.
fn lag(pages: &Pages, group: &str, topic: Option<&str>) -> Option<i64> {
    let committed = pages.groups.all_committed(group).ok()?;
    let image = pages.cluster.image();
    let names: Vec<&str> = topic.map_or_else(|| committed.iter().map(|(name, _)| name.as_str()).collect(), |topic| vec![topic]);
    let mut total = 0;
    for name in names.iter().filter(|_| !committed.is_empty()) {
        let offsets = committed.iter().find(|(topic, _)| topic == name).map(|(_, offsets)| offsets.as_slice()).unwrap_or_default();
        for number in 0..image.topic(name).map_or(0, |t| t.partitions.len()) as i32 {
            let Some(replica) = pages.partitions.get(name, number) else { continue };
            let view = replica.view();
            let at = offsets.iter().find(|(partition, _)| *partition == number).map_or(view.log_start.0, |(_, offset)| offset.offset);
            total += (view.high_watermark.0 - at).max(0);
        }
    }
    (!committed.is_empty()).then_some(total)
}

/// `10s`, `500ms`, `2m`, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    let ms = number.parse::<u64>().ok().filter(|_| unit_ms > 0).and_then(|n| n.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or_else(|| format!("timeout={text} must be a time as in 10s, 500ms or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, ms) in [("10s", 10_000), ("500ms", 500), ("2m", 120_000), ("3", 3000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "-1s", "1h", "1.5s", "99999999999999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
