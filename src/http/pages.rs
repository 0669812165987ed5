//! The router: the handler of each path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::hosts::{AllowedHosts, refuse_foreign};
use super::metrics::exposition;
use super::{doctor, groups, home, lists, wait};
use crate::cluster::ClusterHandle;
use crate::coordinator::GroupCoordinator;
use crate::env::{ByteStream, Clock, Listener, ended_by};
use crate::partition::Partitions;
use crate::server::Visits;

/// The pause after a failed accept, for example at the limit of open files.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long connections may take to end after `stop` is cancelled; then they are closed.
const LAST_PAGES: Duration = Duration::from_secs(1);

/// The state that the handlers read.
#[derive(Clone)]
pub struct Pages {
    /// Set once clients are served.
    pub ready: Arc<AtomicBool>,
    /// The counters and histograms.
    pub counted: PrometheusHandle,
    /// This broker's id.
    pub node_id: i32,
    /// The cluster's id.
    pub cluster_id: String,
    /// Names and bound addresses of the listeners.
    pub listeners: Arc<[(String, SocketAddr)]>,
    /// Listeners with a configured address, and the advertised addresses: `host:port`.
    pub advertised: Arc<[(String, String)]>,
    /// The address on which HTTP is served.
    pub http: SocketAddr,
    /// Recent connections.
    pub visits: Arc<Visits>,
    /// Metadata.
    pub cluster: ClusterHandle,
    /// The replicas.
    pub partitions: Arc<Partitions>,
    /// Groups.
    pub groups: Arc<GroupCoordinator>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The host names that requests may use.
    pub hosts: AllowedHosts,
}

/// Serves [`ROUTES`](super::ROUTES) until `stop` is cancelled. None of them changes data: `DELETE /v1/doctor` only clears findings about clients.
pub async fn serve(listener: Listener, pages: Pages, stop: CancellationToken) -> std::io::Result<()> {
    let hosts = pages.hosts.clone();
    let router = Router::new()
        .route("/", get(home::home))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/v1/brokers", get(lists::brokers))
        .route("/v1/topics", get(lists::topics))
        .route("/v1/topics/{topic}", get(lists::topic))
        .route("/v1/groups", get(lists::groups))
        .route("/v1/groups/{group}/explain", get(groups::explain))
        .route("/v1/wait", get(wait::wait))
        .route("/v1/doctor", get(doctor::doctor).delete(doctor::clear))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is no such path; / lists the paths\n") })
        .layer(axum::middleware::from_fn_with_state(hosts, refuse_foreign))
        // Prometheus in Kubernetes uses host names that are not ours, and metrics contain nothing that a page of another site could misuse.
        .route("/metrics", get(metrics))
        .with_state(pages);
    // Connections are tasks of axum, which waits for them without limit, and which they outlive if this future is dropped.
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let listening = Listening { listener, end: end.clone() };
    let serving = axum::serve(listening, router).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future();
    let ending = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_PAGES).await;
        end.cancel();
        std::future::pending().await
    };
    tokio::select! {
        served = serving => served,
        // It only closes connections, and never completes.
        () = ending => Ok(()),
    }
}

/// Our listener as axum requires it. The streams of its connections end when `end` is cancelled.
struct Listening {
    listener: Listener,
    end: CancellationToken,
}

impl axum::serve::Listener for Listening {
    type Io = Box<dyn ByteStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let accepted = self.listener.accept().await.and_then(|accepted| {
                let peer = accepted.peer;
                Ok((ended_by(accepted.into_stream()?, &self.end), peer))
            });
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) => {
                    warn!(%error, "a connection to HTTP could not be accepted");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_address()
    }
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    match (pages.ready.load(Ordering::Acquire), pages.partitions.is_offline()) {
        (true, false) => (StatusCode::OK, "ready\n"),
        (true, true) => (StatusCode::SERVICE_UNAVAILABLE, "the log directory is offline after a disk error\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n"),
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], exposition(&pages))
}
