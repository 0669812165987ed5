//! Explains the state of a group.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{Pages, utc};

#[derive(Serialize)]
struct Explanation {
    group: String,
    state: &'static str,
    members: usize,
    /// Events since this broker became the group's coordinator, oldest first.
    history: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    /// UTC.
    time: String,
    time_ms: i64,
    kind: &'static str,
    text: String,
}

/// `GET /v1/groups/{group}/explain`.
pub(super) async fn explain(State(pages): State<Pages>, Path(group): Path<String>) -> Response {
    match pages.groups.look_up(&group) {
        Ok(Some((view, history))) => {
            let line =
                |h: crate::coordinator::GroupEvent| Line { time: utc(h.wall_ms), time_ms: h.wall_ms, kind: h.kind.name(), text: h.text };
            let history = history.into_iter().map(line).collect();
            Json(Explanation { group, state: view.state.name(), members: view.members.len(), history }).into_response()
        }
        Ok(None) => (StatusCode::NOT_FOUND, format!("there is no group {group}\n")).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
