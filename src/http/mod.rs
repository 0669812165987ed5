//! Health, readiness and metrics over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::env::{Listener, process_memory_bytes};
use crate::partition::Partitions;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// Set once clients are served.
    pub ready: Arc<AtomicBool>,
    /// What was counted.
    pub metrics: PrometheusHandle,
    /// The replicas.
    pub partitions: Arc<Partitions>,
}

/// Serves `/health` (the process answers), `/ready` (clients are served) and `/metrics` (Prometheus' text format) until told to stop.
pub async fn serve(listener: Listener, pages: Pages, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    axum::serve(listener.into_inner(), router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.ready.load(Ordering::Acquire) { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "starting\n") }
}

async fn metrics(State(pages): State<Pages>) -> String {
    let replicas = pages.partitions.all();
    metrics::gauge!("dlog_partitions").set(replicas.len() as f64);
    metrics::gauge!("dlog_log_bytes").set(replicas.iter().map(|r| r.size()).sum::<u64>() as f64);
    metrics::gauge!("dlog_log_segments").set(replicas.iter().map(|r| r.segment_count()).sum::<usize>() as f64);
    if let Some(bytes) = process_memory_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    pages.metrics.run_upkeep();
    pages.metrics.render()
}
