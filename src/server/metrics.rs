//! The metrics that the server records.

use metrics::{Counter, Gauge, Histogram, Recorder, counter, gauge, histogram, with_local_recorder};

use super::dispatch::SERVED;
use crate::protocol::ApiKey;

/// Handles of a broker's metrics. They are looked up by name and labels once, when the broker starts, so recording needs no lock and no allocation.
pub struct ServerMetrics {
    connections: Gauge,
    accepted: Counter,
    /// By API key; keys that are not served have a histogram that records nothing.
    request_seconds: Vec<Histogram>,
}

impl ServerMetrics {
    /// Registers the metrics with the broker's own recorder.
    pub fn new(recorder: &dyn Recorder) -> ServerMetrics {
        with_local_recorder(recorder, || {
            let last = SERVED.iter().map(|served| served.key as usize).max().unwrap_or_default();
            let mut request_seconds = vec![Histogram::noop(); last + 1];
            for served in SERVED {
                request_seconds[served.key as usize] = histogram!("dlog_request_seconds", "request" => served.key.name());
            }
            ServerMetrics {
                connections: gauge!("dlog_connections"),
                accepted: counter!("dlog_connections_accepted_total"),
                request_seconds,
            }
        })
    }

    /// The histogram of a served API.
    pub(super) fn request_seconds(&self, key: ApiKey) -> &Histogram {
        &self.request_seconds[key as usize]
    }

    /// Counts a connection; it counts as open until the returned value is dropped, however the connection ends.
    pub(super) fn connection(&self) -> OpenConnection<'_> {
        self.accepted.increment(1);
        self.connections.increment(1.0);
        OpenConnection(&self.connections)
    }
}

/// A connection that is counted as open.
pub(super) struct OpenConnection<'a>(&'a Gauge);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
