//! The host names that a request may use: a page of another site in a browser must not reach the broker under that site's name (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Host names that requests may use, besides addresses, `localhost` and names without a dot, which no other site can own. `*` means any name.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts(Arc<Vec<String>>);

impl AllowedHosts {
    /// Allows these names.
    pub fn new(names: impl IntoIterator<Item = String>) -> AllowedHosts {
        AllowedHosts(Arc::new(names.into_iter().map(|name| name.to_ascii_lowercase()).collect()))
    }

    fn allows(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok() || !name.contains('.') || self.0.iter().any(|allowed| *allowed == name || allowed == "*")
    }
}

/// The maximum length of a DNS name.
const NAME_MAX: usize = 253;

/// Returns 403 for requests that use a host name that is not allowed.
pub(super) async fn refuse_foreign(State(hosts): State<AllowedHosts>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|value| value.to_str().unwrap_or(".")).unwrap_or_default().to_string();
    if hosts.allows(&host) {
        return next.run(request).await;
    }
    let host = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    // The client chooses the name: characters that are invalid in a host name are omitted from the response.
    let name: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).take(NAME_MAX).collect();
    let text =
        format!("the Host {name:?} is not allowed: set http.allowed.hosts={name} (KAFKA_HTTP_ALLOWED_HOSTS), or use an IP address\n");
    (StatusCode::FORBIDDEN, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_allowed() {
        let hosts = AllowedHosts::new(["Broker.Example.org".to_string()]);
        for ours in ["localhost:9644", "127.0.0.1:9644", "[::1]:9644", "dlog:9644", "broker.example.org", "BROKER.example.org:9644", ""] {
            assert!(hosts.allows(ours), "{ours}");
        }
        for foreign in ["evil.example", "evil.example:9644", "127.0.0.1.evil.example", "."] {
            assert!(!hosts.allows(foreign), "{foreign}");
        }
        assert!(AllowedHosts::new(["*".to_string()]).allows("evil.example"));
    }
}
