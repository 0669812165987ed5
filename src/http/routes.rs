//! The HTTP routes, as docs/http.md and the page at `/` list them. A test requests each of them.

/// A path with a method.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// `GET` or `DELETE`.
    pub method: &'static str,
    /// The path; parts in braces are placeholders.
    pub path: &'static str,
    /// Parameters, each with its meaning.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Status codes, each with the case in which it is returned.
    pub answers: &'static [(u16, &'static str)],
    /// One sentence.
    pub help: &'static str,
    /// Whether a browser can open the path as it is.
    pub is_link: bool,
}

const PAGED: &[(&str, &str)] =
    &[("after", "the `next` of the previous page"), ("limit", "entries of a page, 1 to 1000; the default is 100")];
const WHOLE: &[(u16, &str)] = &[(200, "JSON")];
const LIST: &[(u16, &str)] = &[(200, "JSON"), (400, "an unknown parameter, or a value that is not a number")];

const fn get(path: &'static str, help: &'static str, answers: &'static [(u16, &'static str)]) -> Route {
    Route { method: "GET", path, parameters: &[], answers, help, is_link: true }
}

/// All routes.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    get("/", "The broker at a glance: version, addresses, topics, groups with lag. A page where `Accept` has `text/html`, else JSON.", &[(200, "HTML or JSON")]),
    get("/health", "Whether the process responds, for liveness probes.", &[(200, "`ok`")]),
    get("/ready", "Whether clients are served, for readiness probes.", &[(200, "`ready`"), (503, "the broker is starting or stopping, or its log directory is offline")]),
    get("/metrics", "Metrics in Prometheus' text format; [list of metrics](metrics.md). Accepts any `Host`.", &[(200, "text")]),
    get("/v1/brokers", "The brokers of the cluster, and the listeners of this broker with their advertised addresses.", WHOLE),
    Route { parameters: PAGED, ..get("/v1/topics", "Topics by name, with partitions, replicas, offsets and bytes.", LIST) },
    Route { parameters: &[("after", "the number of the last partition of the previous page"), ("limit", "partitions of a page, 1 to 1000; the default is 100")], is_link: false,
        ..get("/v1/topics/{topic}", "A topic's settings, and its partitions with leader, replicas, offsets and bytes.", &[(200, "JSON"), (400, "an unknown parameter, or a value that is not a number"), (404, "there is no such topic")]) },
    Route { parameters: PAGED, ..get("/v1/groups", "Groups by name, with state, members and lag.", &[(200, "JSON"), (400, "an unknown parameter, or a value that is not a number"), (503, "groups are being loaded")]) },
    Route { is_link: false, ..get("/v1/groups/{group}/explain", "The history of a group since this broker became its coordinator: joins, leaves, time-outs, and rebalances with their causes.", &[(200, "JSON"), (404, "there is no such group"), (503, "groups are being loaded")]) },
    Route { is_link: false, parameters: &[
        ("topic", "the topic exists; with `lag`, only this topic is counted"),
        ("group", "the group that `state`, `members` and `lag` apply to"),
        ("state", "the group is in this state: `stable`, `empty` ..."),
        ("members", "the group has exactly this number of members"),
        ("lag", "the lag of the group is at most this number of records"),
        ("timeout", "the time-out: `500ms`, `10s` (the default), `2m`; at most 10 min"),
    ], ..get("/v1/wait", "Responds when all conditions are true, so that tests need no sleep.", &[(200, "all conditions are true"), (400, "invalid conditions"), (408, "the time-out has passed; `missing` lists the conditions that are not true"), (503, "the broker is stopping")]) },
    get("/v1/doctor", "The problems that the broker has found: the findings of `dlog doctor`.", WHOLE),
    Route { method: "DELETE", is_link: false, ..get("/v1/doctor", "Deletes the observations of clients, like `dlog doctor --clear`.", &[(204, "no content")]) },
];
