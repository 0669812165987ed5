//! Logs and metrics of the process.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Upper bounds of the request latency's buckets, in seconds.
const LATENCY_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Sends logs to stdout, from `level` on: `error`, `warn`, `info`, `debug`, `trace`, or a filter as of tracing.
pub fn init_logging(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|e| format!("the log level {level}: {e}"))?;
    // A second broker in the same process logs where the first one does.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_target(true).with_ansi(false).try_init();
    Ok(())
}

/// The metrics of this process, which all its brokers share.
pub fn metrics_handle() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS).expect("the list of buckets is not empty");
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            metrics::describe_gauge!("dlog_connections", "Open connections of clients.");
            metrics::describe_histogram!("dlog_request_seconds", "Time from a request's arrival to its answer, by API.");
            metrics::describe_counter!("dlog_produced_bytes_total", "Bytes of record batches that were appended for clients.");
            metrics::describe_counter!("dlog_fetched_bytes_total", "Bytes of record batches that were sent to clients.");
            let _ = metrics::set_global_recorder(recorder);
            handle
        })
        .clone()
}
