//! `/`: an overview of the broker, as a page for browsers and as JSON for other clients.

use std::fmt::Write;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Pages;
use super::lists::{BrokerEntry, Groups, Page, Topics, brokers_of, groups_of, topics_of};
use super::routes::ROUTES;
use super::time::utc;

/// The number of topics and groups on the page; the lists have all of them.
const SHOWN: usize = 50;

#[derive(Serialize)]
struct Home {
    version: &'static str,
    cluster_id: String,
    brokers: Vec<BrokerEntry>,
    topics: usize,
    groups: Option<usize>,
    links: Vec<&'static str>,
}

/// HTML for clients that accept it; JSON for curl and programs.
pub(super) async fn home(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"));
    if !accepts {
        return Json(json(&pages)).into_response();
    }
    // The page runs no scripts and loads nothing from other hosts.
    let policy = (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([policy, kind, (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], page(&pages)).into_response()
}

fn json(pages: &Pages) -> Home {
    let brokers = brokers_of(pages);
    Home {
        version: env!("CARGO_PKG_VERSION"),
        cluster_id: brokers.cluster_id,
        brokers: brokers.brokers,
        topics: pages.cluster.image().topic_count(),
        groups: pages.groups.list().ok().map(|groups| groups.len()),
        links: ROUTES.iter().filter(|route| route.method == "GET" && !route.path.contains('{')).map(|route| route.path).collect(),
    }
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>dlog</title><style>
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2.5rem auto; max-width: 62rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h1 small { color: var(--dim); font-weight: normal; font-size: 1rem; margin-left: .5rem; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .4rem; } h2 small { color: var(--dim); font-weight: normal; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: normal; font-size: .85rem; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
a { color: inherit; text-underline-offset: .2em; } code { font: .92em ui-monospace, monospace; } .dim { color: var(--dim); } .behind { color: #c60; }
</style></head><body>
";

fn page(pages: &Pages) -> String {
    let mut html = HEAD.to_string();
    let brokers = brokers_of(pages);
    let _ = write!(
        html,
        "<h1>dlog <small>{} &middot; cluster <code>{}</code> &middot; {}</small></h1>",
        env!("CARGO_PKG_VERSION"),
        escaped(&brokers.cluster_id),
        utc(pages.clock.wall_ms())
    );
    html.push_str("<h2>Brokers</h2><table><tr><th>id</th><th>listener</th><th>address</th><th>advertised to clients</th></tr>");
    for broker in &brokers.brokers {
        for listener in &broker.listeners {
            let advertised = listener.advertised.as_deref().unwrap_or("the address that each client used");
            let row = [broker.node_id.to_string(), listener.name.clone(), listener.address.clone(), advertised.to_string()];
            let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
            let _ = write!(html, "<tr>{cells}</tr>");
        }
    }
    html.push_str("</table>");
    if let Ok(found) = topics_of(pages, &Page::first(SHOWN)) {
        topics(&mut html, &found);
    }
    match pages.groups.list().map(|all| groups_of(pages, all, &Page::first(SHOWN))) {
        Ok(Ok(found)) => groups(&mut html, &found),
        _ => html.push_str("<h2>Groups</h2><p class=\"dim\">The groups are being loaded.</p>"),
    }
    html.push_str("<h2>HTTP API</h2><table>");
    for route in ROUTES.iter().filter(|route| route.path != "/") {
        let path = escaped(route.path);
        let link = if route.is_link { format!("<a href=\"{path}\"><code>{path}</code></a>") } else { format!("<code>{path}</code>") };
        let _ = write!(html, "<tr><td>{} {link}</td><td>{}</td></tr>", route.method, escaped(route.help));
    }
    html.push_str("</table></body></html>\n");
    html
}

fn topics(html: &mut String, found: &Topics) {
    let _ = write!(html, "<h2>Topics <small>{}</small></h2>", shown(found.topics.len(), found.count, "/v1/topics"));
    if found.topics.is_empty() {
        return;
    }
    html.push_str("<table><tr><th>name</th><th class=\"n\">partitions</th><th class=\"n\">replicas</th><th class=\"n\">offsets</th><th class=\"n\">on disk</th></tr>");
    for topic in &found.topics {
        let class = if topic.is_internal { " class=\"dim\"" } else { "" };
        let _ = write!(
            html,
            "<tr><td{class}><a href=\"/v1/topics/{}\">{}</a></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            encoded(&topic.name),
            escaped(&topic.name),
            topic.partitions,
            topic.replication_factor,
            topic.offsets,
            size(topic.bytes)
        );
    }
    html.push_str("</table>");
}

fn groups(html: &mut String, found: &Groups) {
    let _ = write!(html, "<h2>Groups <small>{}</small></h2>", shown(found.groups.len(), found.count, "/v1/groups"));
    if found.groups.is_empty() {
        return;
    }
    html.push_str("<table><tr><th>group</th><th>state</th><th class=\"n\">members</th><th class=\"n\">lag</th><th>topics</th></tr>");
    for group in &found.groups {
        let class = if group.lag > 0 { "n behind" } else { "n" };
        let names: Vec<String> = group.topics.iter().take(5).map(|topic| escaped(&topic.topic)).collect();
        let more = if group.topics.len() > 5 { ", ..." } else { "" };
        let _ = write!(
            html,
            "<tr><td><a href=\"/v1/groups/{}/explain\">{}</a></td><td>{}</td><td class=\"n\">{}</td><td class=\"{class}\">{}</td><td>{}{more}</td></tr>",
            encoded(&group.group),
            escaped(&group.group),
            group.state,
            group.members,
            group.lag,
            names.join(", ")
        );
    }
    html.push_str("</table>");
}

/// The number of entries shown out of all, with a link to the rest.
fn shown(here: usize, all: usize, path: &str) -> String {
    if here < all { format!("the first {here} of <a href=\"{path}\">{all}</a>") } else { all.to_string() }
}

/// A size in the largest unit in which it is at least 1.
fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000.0), ("MB", 1_000_000.0), ("kB", 1000.0)];
    let unit = units.iter().find(|(_, unit)| bytes as f64 >= *unit);
    unit.map_or_else(|| format!("{bytes} B"), |(name, unit)| format!("{:.1} {name}", bytes as f64 / unit))
}

/// Text escaped for HTML elements and quoted attributes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Percent-encoded, as a part of a path or of a query (RFC 3986).
pub fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_tags() {
        assert_eq!(escaped("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(encoded("a/b?<ä"), "a%2Fb%3F%3C%C3%A4");
        assert_eq!((size(999), size(1500), size(2_000_000_000)), ("999 B".into(), "1.5 kB".into(), "2.0 GB".into()));
    }
}
