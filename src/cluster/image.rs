//! The state of the cluster: what all committed records add up to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Committed, MetadataRecord};
use crate::model::Uuid;
use crate::protocol::generated::cluster_metadata::{
    ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, TopicRecord,
};

/// A topic's resource type in a ConfigRecord.
pub(super) const TOPIC_RESOURCE: i8 = 2;
/// A broker's; an empty name means all brokers.
pub(super) const BROKER_RESOURCE: i8 = 4;

/// An immutable state; a change makes a new one that shares what stayed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataImage {
    topics: BTreeMap<Arc<str>, Arc<TopicImage>>,
    names: BTreeMap<Uuid, Arc<str>>,
    brokers: Vec<i32>,
    broker_configs: BTreeMap<String, BTreeMap<String, String>>,
    features: BTreeMap<String, i16>,
    /// The index of the last change; clients take the newest levels of features by it.
    pub index: i64,
    /// The first producer id that no block holds.
    pub next_producer_id: i64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; a topic that is created again has another one.
    pub id: Uuid,
    /// Its partitions in order.
    pub partitions: Vec<PartitionImage>,
    /// Its own settings.
    pub configs: BTreeMap<String, String>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionImage {
    /// The broker that leads it.
    pub leader: i32,
    /// Grows with each leader and each start of it.
    pub leader_epoch: i32,
    /// The brokers that have it.
    pub replicas: Vec<i32>,
    /// Those of them in sync.
    pub isr: Vec<i32>,
}

impl PartitionImage {
    /// The record that makes partition `number` of a topic.
    pub(super) fn to_record(&self, topic_id: Uuid, number: i32) -> MetadataRecord {
        MetadataRecord::Partition(PartitionRecord {
            partition_id: number,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: 0,
            directories: vec![Uuid::ZERO; self.replicas.len()],
            ..Default::default()
        })
    }
}

impl MetadataImage {
    /// Applies one record.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::RegisterBroker(broker) => self.register(broker.broker_id),
            MetadataRecord::Topic(topic) => {
                let name: Arc<str> = topic.name.as_str().into();
                self.names.insert(topic.topic_id, name.clone());
                let image = TopicImage { name: name.clone(), id: topic.topic_id, partitions: Vec::new(), configs: BTreeMap::new() };
                self.topics.insert(name, Arc::new(image));
            }
            MetadataRecord::Partition(partition) => {
                let image = PartitionImage {
                    leader: partition.leader,
                    leader_epoch: partition.leader_epoch,
                    replicas: partition.replicas.clone(),
                    isr: partition.isr.clone(),
                };
                self.change_topic(partition.topic_id, |topic| topic.partitions.push(image));
            }
            MetadataRecord::Config(config) if config.resource_type == TOPIC_RESOURCE => {
                if let Some(topic) = self.topics.get_mut(config.resource_name.as_str()) {
                    set(&mut Arc::make_mut(topic).configs, config);
                }
            }
            MetadataRecord::Config(config) if config.resource_type == BROKER_RESOURCE => {
                set(self.broker_configs.entry(config.resource_name.clone()).or_default(), config);
            }
            MetadataRecord::Config(_) => {}
            MetadataRecord::RemoveTopic(removed) => self.forget(removed.topic_id),
            MetadataRecord::ProducerIds(ids) => self.next_producer_id = ids.next_producer_id,
            MetadataRecord::FeatureLevel(feature) => {
                self.features.insert(feature.name.clone(), feature.feature_level);
            }
        }
    }

    /// Applies what the log has committed: a snapshot takes the place of everything, an entry changes it.
    pub fn apply_committed(&mut self, committed: &Committed) {
        match committed {
            Committed::Snapshot(_) => *self = MetadataImage::default(),
            Committed::Entry(entry) => self.index = entry.index,
        }
        committed.records().iter().for_each(|record| self.apply(record));
    }

    /// Records that make this image out of an empty one: a snapshot.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        // Brokers come first: a registration raises the epochs of the partitions that are there.
        let registered =
            |id: &i32| MetadataRecord::RegisterBroker(RegisterBrokerRecord { broker_id: *id, fenced: false, ..Default::default() });
        let mut records: Vec<MetadataRecord> = self.brokers.iter().map(registered).collect();
        records.push(MetadataRecord::ProducerIds(ProducerIdsRecord { next_producer_id: self.next_producer_id, ..Default::default() }));
        let level =
            |(name, level): (&String, &i16)| MetadataRecord::FeatureLevel(FeatureLevelRecord { name: name.clone(), feature_level: *level });
        records.extend(self.features.iter().map(level));
        for topic in self.topics.values() {
            records.push(MetadataRecord::Topic(TopicRecord { name: topic.name.to_string(), topic_id: topic.id }));
            records.extend(topic.partitions.iter().enumerate().map(|(number, partition)| partition.to_record(topic.id, number as i32)));
            records.extend(config_records(TOPIC_RESOURCE, &topic.name, &topic.configs));
        }
        for (broker, configs) in &self.broker_configs {
            records.extend(config_records(BROKER_RESOURCE, broker, configs));
        }
        records
    }

    /// Takes a topic away.
    pub(super) fn forget(&mut self, id: Uuid) {
        if let Some(name) = self.names.remove(&id) {
            self.topics.remove(&name);
        }
    }

    /// A broker that starts begins a new epoch in every partition that it leads, so that clients notice.
    fn register(&mut self, broker: i32) {
        if !self.brokers.contains(&broker) {
            self.brokers.push(broker);
        }
        for topic in self.topics.values_mut() {
            for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|p| p.leader == broker) {
                partition.leader_epoch += 1;
            }
        }
    }

    fn change_topic(&mut self, id: Uuid, change: impl FnOnce(&mut TopicImage)) {
        if let Some(topic) = self.names.get(&id).and_then(|name| self.topics.get_mut(name)) {
            change(Arc::make_mut(topic));
        }
    }

    /// The topic of a name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// The topic of an id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topic(self.names.get(&id)?)
    }

    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// The number of topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// The settings that were changed while brokers ran: of one broker, or with an empty name of all.
    pub fn broker_configs(&self, broker: &str) -> Option<&BTreeMap<String, String>> {
        self.broker_configs.get(broker)
    }

    /// The level at which the cluster uses a feature; none where it was never set.
    pub fn feature(&self, name: &str) -> Option<i16> {
        self.features.get(name).copied()
    }

    /// Whether any level was ever set: not in the clusters of earlier releases.
    pub fn has_features(&self) -> bool {
        !self.features.is_empty()
    }

    /// The ids of the brokers.
    pub fn brokers(&self) -> &[i32] {
        &self.brokers
    }
}

fn set(configs: &mut BTreeMap<String, String>, config: &ConfigRecord) {
    match &config.value {
        Some(value) => configs.insert(config.name.clone(), value.clone()),
        None => configs.remove(&config.name),
    };
}

/// Records that give a resource these settings.
pub(super) fn config_records(resource_type: i8, resource: &str, configs: &BTreeMap<String, String>) -> Vec<MetadataRecord> {
    let record = |(name, value): (&String, &String)| {
        let (resource_name, name, value) = (resource.to_string(), name.clone(), Some(value.clone()));
        MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name, value })
    };
    configs.iter().map(record).collect()
}
