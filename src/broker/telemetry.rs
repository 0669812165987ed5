//! Logs of the process, and metrics of a broker.

use std::fmt;

use super::repeats::{COUNTED_FOR, Repeats};
use crate::http::{METRICS, MetricKind};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Upper bounds of the request latency's buckets, in seconds.
const LATENCY_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Kafka's pattern, `[%d] %p %m (%c)`.
    Kafka,
}

/// Where logs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTo {
    /// For a broker.
    Stdout,
    /// For a process whose stdout has another use.
    Stderr,
}

/// The log levels, the least verbose first.
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging at `level`: `off`, `error`, `warn`, `info`, `debug`, `trace`, or a filter of levels for parts of the broker
/// (`warn,dlog::server=debug`).
pub fn init_logging(level: &str, format: LogFormat, to: LogTo) -> Result<(), String> {
    let filter = filter(level)?;
    let writer = match to {
        LogTo::Stdout => BoxMakeWriter::new(std::io::stdout),
        LogTo::Stderr => BoxMakeWriter::new(std::io::stderr),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    let (repeats, is_counted) = Repeats::new(COUNTED_FOR);
    let counting = repeats.clone();
    // A second broker in the same process uses the logging of the first.
    let begun = match format {
        LogFormat::Text => lines.finish().with(counting).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().with(counting).try_init(),
        LogFormat::Kafka => lines.event_format(KafkaPattern).finish().with(counting).try_init(),
    };
    if begun.is_ok() {
        repeats.report_in_background(is_counted);
    }
    Ok(())
}

/// openraft reports its errors to the metadata log, which logs what matters to users; a filter that names it shows its own lines too.
const QUIET: &str = "openraft=off";

/// The filter for a text. tracing treats a word that is no level as the name of a module, and would then log all events of that module and no others.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word.trim()));
    let is_sound = |word: &str| match word.rsplit_once('=') {
        Some((_, level)) => is_level(level),
        None => is_level(word),
    };
    let refuse = |what: &str| {
        format!("--log {text}: {what}; levels are {}, and a filter names parts, as in warn,dlog::server=debug", LEVELS.join(", "))
    };
    match text.split(',').find(|word| !is_sound(word)) {
        Some(word) => Err(refuse(&format!("{word:?} is not a level"))),
        None => EnvFilter::try_new(format!("{QUIET},{text}")).map_err(|error| refuse(&error.to_string())),
    }
}

/// `[2026-11-23 10:11:12,131] INFO message fields (target)`.
struct KafkaPattern;

impl<S, N> FormatEvent<S, N> for KafkaPattern
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut now = String::new();
        tracing_subscriber::fmt::time().format_time(&mut Writer::new(&mut now))?;
        let metadata = event.metadata();
        write!(writer, "[{}] {} ", kafka_time(&now), metadata.level())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer, " ({})", metadata.target())
    }
}

/// `2026-11-23T10:11:12.131415Z` in Kafka's format: to the millisecond, after a comma.
fn kafka_time(rfc3339: &str) -> String {
    let (seconds, fraction) = rfc3339.trim_end_matches('Z').split_once('.').unwrap_or((rfc3339, "000"));
    format!("{},{}", seconds.replace('T', " "), fraction.get(..3).unwrap_or("000"))
}

/// A recorder for the metrics of one broker. No global recorder is installed in the process: each room creates its handles with the broker's recorder
/// when the broker starts, so that brokers in one process share no counter.
pub(super) fn metrics_recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS).expect("the list of buckets is not empty");
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, || {
        for metric in METRICS {
            match metric.kind {
                MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
                MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
            }
        }
    });
    recorder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_of_a_list() {
        for fine in ["info", "WARN", "warn,dlog::server=debug", "dlog=trace", "off"] {
            assert!(filter(fine).is_ok(), "{fine}");
        }
        for wrong in ["verbose", "", "info,verbose", "dlog=verbose", "dlog::server", "dlog="] {
            let said = filter(wrong).unwrap_err();
            assert!(said.contains("levels are off, error, warn, info, debug, trace"), "{said}");
        }
    }

    #[test]
    fn kafkas_time_has_a_comma() {
        assert_eq!(kafka_time("2026-11-23T10:11:12.131415Z"), "2026-11-23 10:11:12,131");
    }
}
