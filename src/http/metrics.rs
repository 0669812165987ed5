//! The metrics of `/metrics`: counters that are updated when something happens, and values that are read from the broker's state for each request.
//!
//! State is not kept in gauges, because the gauges of a deleted topic would remain.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use super::Pages;
use crate::env::process_use;
use crate::partition::Replica;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only increases, and is 0 when the broker starts.
    Counter,
    /// It increases and decreases.
    Gauge,
    /// Counts of observations by size.
    Histogram,
}

impl MetricKind {
    /// The type's name in Prometheus' format.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name: that of the JMX exporter or of kafka_exporter if dashboards use one.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: MetricKind, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

const TOPIC: &[&str] = &["topic"];
const PARTITION: &[&str] = &["topic", "partition"];
const GROUP: &[&str] = &["consumergroup"];
const GROUP_PARTITION: &[&str] = &["consumergroup", "topic", "partition"];

use MetricKind::{Counter, Gauge, Histogram};

/// All metrics, by name.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("dlog_build_info", Gauge, &["version"], "Always 1; the version is in the label."),
    metric("dlog_connections", Gauge, &[], "Open client connections."),
    metric("dlog_connections_accepted_total", Counter, &[], "Accepted client connections."),
    metric("dlog_log_directory_bytes", Gauge, &["directory"], "Size of the file system of a log directory in bytes."),
    metric("dlog_log_directory_free_bytes", Gauge, &["directory"], "Free bytes of the file system of a log directory."),
    metric("dlog_request_seconds", Histogram, &["request"], "Time from the arrival of a request to its response, by API."),
    metric("kafka_brokers", Gauge, &[], "Brokers of the cluster."),
    metric("kafka_consumergroup_current_offset", Gauge, GROUP_PARTITION, "The offset that a group has committed."),
    metric("kafka_consumergroup_current_offset_sum", Gauge, &["consumergroup", "topic"], "The sum of the offsets that a group has committed for a topic."),
    metric("kafka_consumergroup_lag", Gauge, GROUP_PARTITION, "The lag of a group in a partition, in records."),
    metric("kafka_consumergroup_lag_sum", Gauge, &["consumergroup", "topic"], "The lag of a group in a topic, in records."),
    metric("kafka_consumergroup_members", Gauge, GROUP, "Members of a group."),
    metric("kafka_controller_kafkacontroller_activecontrollercount", Gauge, &[], "1 if this broker is the controller."),
    metric("kafka_controller_kafkacontroller_globalpartitioncount", Gauge, &[], "Partitions of the cluster."),
    metric("kafka_controller_kafkacontroller_globaltopiccount", Gauge, &[], "Topics of the cluster."),
    metric("kafka_controller_kafkacontroller_offlinepartitionscount", Gauge, &[], "Partitions without a leader."),
    metric("kafka_log_log_logendoffset", Gauge, PARTITION, "The log end offset."),
    metric("kafka_log_log_logstartoffset", Gauge, PARTITION, "The first offset."),
    metric("kafka_log_log_numlogsegments", Gauge, PARTITION, "Segments of a partition."),
    metric("kafka_log_log_size", Gauge, PARTITION, "Bytes of a partition on disk."),
    metric("kafka_log_logmanager_offlinelogdirectorycount", Gauge, &[], "Log directories that are offline after a disk error."),
    metric("kafka_network_requestmetrics_requests_total", Counter, &["request"], "Requests that have received a response, by API."),
    metric("kafka_server_brokertopicmetrics_bytesin_total", Counter, TOPIC, "Bytes of record batches received from producers."),
    metric("kafka_server_brokertopicmetrics_bytesout_total", Counter, TOPIC, "Bytes of record batches sent to consumers."),
    metric("kafka_server_brokertopicmetrics_messagesin_total", Counter, TOPIC, "Records received from producers."),
    metric("kafka_server_replicamanager_leadercount", Gauge, &[], "Partitions that this broker leads."),
    metric("kafka_server_replicamanager_partitioncount", Gauge, &[], "Partitions of which this broker has a replica."),
    metric("kafka_server_replicamanager_underreplicatedpartitions", Gauge, &[], "Partitions with fewer in-sync replicas than replicas."),
    metric("kafka_topic_partition_current_offset", Gauge, PARTITION, "The high watermark."),
    metric("kafka_topic_partition_in_sync_replica", Gauge, PARTITION, "In-sync replicas."),
    metric("kafka_topic_partition_leader", Gauge, PARTITION, "The id of the leader."),
    metric("kafka_topic_partition_leader_is_preferred", Gauge, PARTITION, "1 if the preferred replica is the leader."),
    metric("kafka_topic_partition_oldest_offset", Gauge, PARTITION, "The first offset."),
    metric("kafka_topic_partition_replicas", Gauge, PARTITION, "Replicas."),
    metric("kafka_topic_partition_under_replicated_partition", Gauge, PARTITION, "1 if there are fewer in-sync replicas than replicas."),
    metric("kafka_topic_partitions", Gauge, TOPIC, "Partitions of a topic."),
    metric("process_cpu_seconds_total", Counter, &[], "CPU time of the process in seconds."),
    metric("process_max_fds", Gauge, &[], "The limit of open files of the process."),
    metric("process_open_fds", Gauge, &[], "Open files of the process."),
    metric("process_resident_memory_bytes", Gauge, &[], "Resident memory of the process in bytes."),
    metric("process_start_time_seconds", Gauge, &[], "Start time of the process in seconds since 1970."),
];

/// Lines with values from the broker's state, by metric.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, Vec<(Vec<String>, f64)>>);

impl Samples {
    fn add(&mut self, name: &'static str, labels: &[&str], value: f64) {
        self.0.entry(name).or_default().push((labels.iter().map(|l| l.to_string()).collect(), value));
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for metric in METRICS {
            let Some(samples) = self.0.get(metric.name) else { continue };
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {}", metric.name, metric.help, metric.name, metric.kind.name());
            for (labels, value) in samples {
                let pairs: Vec<String> =
                    metric.labels.iter().zip(labels).map(|(name, label)| format!("{name}=\"{}\"", escaped(label))).collect();
                let braces = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
                let _ = writeln!(text, "{}{braces} {value}", metric.name);
            }
            text.push('\n');
        }
        text
    }
}

/// A label's value, escaped for the format.
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The response of `/metrics`.
pub(super) fn exposition(pages: &Pages) -> String {
    let mut samples = Samples::default();
    let mut replicas = pages.partitions.all();
    replicas.sort_by(|a, b| a.id().cmp(b.id()));
    samples.add("dlog_build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
    topics(pages, &mut samples);
    directories(pages, &mut samples);
    storage(&replicas, &mut samples);
    groups(pages, &mut samples);
    process(&mut samples);
    pages.counted.run_upkeep();
    let counted = pages.counted.render();
    requests(&counted, &mut samples);
    counted + &samples.render()
}

fn topics(pages: &Pages, samples: &mut Samples) {
    let image = pages.cluster.image();
    let (mut partitions, mut offline, mut under, mut led, mut ours) = (0, 0, 0, 0, 0);
    for topic in image.topics() {
        samples.add("kafka_topic_partitions", &[&topic.name], topic.partitions.len() as f64);
        for (number, partition) in topic.partitions.iter().enumerate() {
            let number = number.to_string();
            let labels = &[&*topic.name, number.as_str()];
            let short = partition.isr.len() < partition.replicas.len();
            let truth = |holds: bool| f64::from(u8::from(holds));
            samples.add("kafka_topic_partition_leader", labels, f64::from(partition.leader));
            samples.add("kafka_topic_partition_leader_is_preferred", labels, truth(partition.replicas.first() == Some(&partition.leader)));
            samples.add("kafka_topic_partition_replicas", labels, partition.replicas.len() as f64);
            samples.add("kafka_topic_partition_in_sync_replica", labels, partition.isr.len() as f64);
            samples.add("kafka_topic_partition_under_replicated_partition", labels, truth(short));
            partitions += 1;
            offline += u32::from(partition.leader < 0);
            under += u32::from(short && partition.leader == pages.node_id);
            led += u32::from(partition.leader == pages.node_id);
            ours += u32::from(partition.replicas.contains(&pages.node_id));
        }
    }
    samples.add(
        "kafka_log_logmanager_offlinelogdirectorycount",
        &[],
        pages.partitions.directories().iter().filter(|d| d.is_offline).count() as f64,
    );
    samples.add("kafka_brokers", &[], image.brokers().len() as f64);
    samples.add("kafka_controller_kafkacontroller_activecontrollercount", &[], 1.0);
    samples.add("kafka_controller_kafkacontroller_globaltopiccount", &[], image.topic_count() as f64);
    samples.add("kafka_controller_kafkacontroller_globalpartitioncount", &[], f64::from(partitions));
    samples.add("kafka_controller_kafkacontroller_offlinepartitionscount", &[], f64::from(offline));
    samples.add("kafka_server_replicamanager_underreplicatedpartitions", &[], f64::from(under));
    samples.add("kafka_server_replicamanager_leadercount", &[], f64::from(led));
    samples.add("kafka_server_replicamanager_partitioncount", &[], f64::from(ours));
}

/// A directory whose space cannot be read has no such metrics.
fn directories(pages: &Pages, samples: &mut Samples) {
    for directory in pages.partitions.directories() {
        let Some((total, free)) = directory.space else { continue };
        let path = directory.path.display().to_string();
        samples.add("dlog_log_directory_bytes", &[&path], total as f64);
        samples.add("dlog_log_directory_free_bytes", &[&path], free as f64);
    }
}

fn storage(replicas: &[Arc<Replica>], samples: &mut Samples) {
    let mut by_topic: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for replica in replicas {
        let (topic, number) = (&*replica.id().topic, replica.id().partition.to_string());
        let labels = &[topic, number.as_str()];
        let (view, traffic) = (replica.view(), replica.traffic());
        samples.add("kafka_topic_partition_current_offset", labels, view.high_watermark.0 as f64);
        samples.add("kafka_topic_partition_oldest_offset", labels, view.log_start.0 as f64);
        samples.add("kafka_log_log_logendoffset", labels, view.log_end.0 as f64);
        samples.add("kafka_log_log_logstartoffset", labels, view.log_start.0 as f64);
        samples.add("kafka_log_log_size", labels, replica.size() as f64);
        samples.add("kafka_log_log_numlogsegments", labels, replica.segment_count() as f64);
        let (records, bytes_in, bytes_out) = by_topic.entry(topic).or_default();
        *records += traffic.records_in;
        *bytes_in += traffic.bytes_in;
        *bytes_out += traffic.bytes_out;
    }
    for (topic, (records, bytes_in, bytes_out)) in by_topic {
        samples.add("kafka_server_brokertopicmetrics_messagesin_total", &[topic], records as f64);
        samples.add("kafka_server_brokertopicmetrics_bytesin_total", &[topic], bytes_in as f64);
        samples.add("kafka_server_brokertopicmetrics_bytesout_total", &[topic], bytes_out as f64);
    }
}

fn groups(pages: &Pages, samples: &mut Samples) {
    for group in pages.groups.list().unwrap_or_default() {
        let members = pages.groups.describe(&group.id).ok().flatten().map_or(0, |view| view.members.len());
        samples.add("kafka_consumergroup_members", &[&group.id], members as f64);
        for (topic, offsets) in pages.groups.all_committed(&group.id).unwrap_or_default() {
            let (mut sum, mut lag_sum) = (0, 0);
            for (number, committed) in &offsets {
                let Some(replica) = pages.partitions.get(&topic, *number) else { continue };
                let lag = (replica.view().high_watermark.0 - committed.offset).max(0);
                let number = number.to_string();
                samples.add("kafka_consumergroup_current_offset", &[&group.id, &topic, &number], committed.offset as f64);
                samples.add("kafka_consumergroup_lag", &[&group.id, &topic, &number], lag as f64);
                (sum, lag_sum) = (sum + committed.offset, lag_sum + lag);
            }
            samples.add("kafka_consumergroup_current_offset_sum", &[&group.id, &topic], sum as f64);
            samples.add("kafka_consumergroup_lag_sum", &[&group.id, &topic], lag_sum as f64);
        }
    }
}

fn process(samples: &mut Samples) {
    let Some(used) = process_use() else { return };
    samples.add("process_resident_memory_bytes", &[], used.resident_bytes as f64);
    samples.add("process_cpu_seconds_total", &[], used.cpu_seconds);
    samples.add("process_open_fds", &[], used.open_files as f64);
    samples.add("process_max_fds", &[], used.open_files_max.map_or(f64::INFINITY, |max| max as f64));
    samples.add("process_start_time_seconds", &[], used.began_seconds);
}

/// The histogram's counts under the metric name that dashboards use.
fn requests(counted: &str, samples: &mut Samples) {
    for line in counted.lines() {
        let count = line.strip_prefix("dlog_request_seconds_count{request=\"").and_then(|rest| rest.split_once("\"} "));
        if let Some((request, Ok(count))) = count.map(|(request, count)| (request, count.parse())) {
            samples.add("kafka_network_requestmetrics_requests_total", &[request], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_labels_escaped() {
        assert!(METRICS.is_sorted_by_key(|m| m.name));
        let mut samples = Samples::default();
        samples.add("kafka_topic_partitions", &["a\"b\\c\nd"], 3.0);
        assert!(samples.render().ends_with("kafka_topic_partitions{topic=\"a\\\"b\\\\c\\nd\"} 3\n\n"));
    }
}
