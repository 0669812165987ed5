//! The router: which path is answered by whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use super::hosts::{AllowedHosts, refuse_foreign};
use super::metrics::exposition;
use super::{groups, wait};
use crate::cluster::ClusterHandle;
use crate::coordinator::GroupCoordinator;
use crate::env::Listener;
use crate::partition::Partitions;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// Set once clients are served.
    pub ready: Arc<AtomicBool>,
    /// What was counted.
    pub counted: PrometheusHandle,
    /// Our id.
    pub node_id: i32,
    /// Metadata.
    pub cluster: ClusterHandle,
    /// The replicas.
    pub partitions: Arc<Partitions>,
    /// Groups.
    pub groups: Arc<GroupCoordinator>,
    /// By which names requests may call us.
    pub hosts: AllowedHosts,
}

/// Serves `/health` (the process answers), `/ready` (clients are served), `/metrics` (Prometheus' text format), `/v1/wait` and
/// `/v1/groups/{group}/explain` until told to stop. Nothing here writes.
pub async fn serve(listener: Listener, pages: Pages, stop: CancellationToken) -> std::io::Result<()> {
    let hosts = pages.hosts.clone();
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/wait", get(wait::wait))
        .route("/v1/groups/{group}/explain", get(groups::explain))
        .layer(axum::middleware::from_fn_with_state(hosts, refuse_foreign))
        .with_state(pages);
    axum::serve(listener.into_inner(), router).with_graceful_shutdown(stop.cancelled_owned()).await
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
