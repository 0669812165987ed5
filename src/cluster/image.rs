//! The state of the cluster: the result of all committed records.
//!
//! The image is a pure function of the log: nodes that have applied the same offsets have equal images. A record that contradicts the
//! current state (a lower epoch, a leader that is no replica) is a bug of the controller that wrote it. Applying it fails an assertion,
//! because a broker that continued would serve a state that differs from that of the other brokers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Committed, Held, MetadataRecord, PartitionImage};
use crate::model::Uuid;
use crate::protocol::generated::cluster_metadata::{
    BrokerRegistrationChangeRecord, ConfigRecord, FeatureLevelRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord,
    RegisterBrokerRecord, RegisterControllerRecord, TopicRecord,
};

/// A topic's resource type in a ConfigRecord.
pub(super) const TOPIC_RESOURCE: i8 = 2;
/// A broker's resource type; an empty name means all brokers.
pub(super) const BROKER_RESOURCE: i8 = 4;

/// An immutable state. A change creates a new one that shares the unchanged parts.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataImage {
    topics: BTreeMap<Arc<str>, Arc<TopicImage>>,
    names: BTreeMap<Uuid, Arc<str>>,
    brokers: BTreeMap<i32, Arc<RegisterBrokerRecord>>,
    controllers: BTreeMap<i32, Arc<RegisterControllerRecord>>,
    broker_configs: BTreeMap<String, BTreeMap<String, String>>,
    features: BTreeMap<String, i16>,
    held: Arc<Held>,
    /// The records of a transaction of the log that has not ended (KIP-866).
    transaction: Option<Arc<Vec<MetadataRecord>>>,
    /// The offset of the last record or control record that was applied; -1 if there is none. Clients use it to recognize the newest feature
    /// levels.
    pub offset: i64,
    /// The epoch of the controller that wrote that record; 0 if there is none.
    pub epoch: i32,
    /// The first producer id that is not allocated.
    pub next_producer_id: i64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; a topic that is created again gets another id.
    pub id: Uuid,
    /// Its partitions in order.
    pub partitions: Vec<PartitionImage>,
    /// Its own settings.
    pub configs: BTreeMap<String, String>,
}

impl Default for MetadataImage {
    fn default() -> Self {
        MetadataImage {
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            brokers: BTreeMap::new(),
            controllers: BTreeMap::new(),
            broker_configs: BTreeMap::new(),
            features: BTreeMap::new(),
            held: Arc::default(),
            transaction: None,
            offset: -1,
            epoch: 0,
            next_producer_id: 0,
        }
    }
}

impl MetadataImage {
    /// Applies committed records: a snapshot replaces the state, an entry changes it. Offsets are contiguous.
    pub fn apply_committed(&mut self, committed: &Committed) {
        match committed {
            Committed::Snapshot(snapshot) => {
                assert!(
                    snapshot.end > self.offset && snapshot.epoch >= self.epoch,
                    "a snapshot of the metadata up to {} (epoch {}) came after offset {} (epoch {})",
                    snapshot.end,
                    snapshot.epoch,
                    self.offset,
                    self.epoch
                );
                *self = MetadataImage::default();
                snapshot.records.iter().for_each(|record| self.apply(record));
                (self.offset, self.epoch) = (snapshot.end - 1, snapshot.epoch);
            }
            Committed::Entry(entry) => {
                self.follow(entry.offset, entry.epoch);
                entry.records.iter().for_each(|record| self.apply(record));
                self.offset = entry.offset + entry.records.len() as i64 - 1;
            }
            Committed::LeaderChange(change) => self.follow(change.offset, change.epoch),
        }
    }

    /// Checks and records the next offset of the log and its epoch.
    fn follow(&mut self, offset: i64, epoch: i32) {
        assert_eq!(offset, self.offset + 1, "the committed metadata has a gap or goes back");
        assert!(epoch >= self.epoch, "the epoch of the metadata log fell from {} to {epoch} at offset {offset}", self.epoch);
        (self.offset, self.epoch) = (offset, epoch);
    }

    /// Applies one record. Within a transaction it is kept until the transaction ends.
    pub fn apply(&mut self, record: &MetadataRecord) {
        match (record, &mut self.transaction) {
            (MetadataRecord::BeginTransaction(_), open) => {
                assert!(open.is_none(), "a transaction of the metadata log begins within another one, after offset {}", self.offset);
                *open = Some(Arc::default());
            }
            (MetadataRecord::AbortTransaction(_), open) => {
                assert!(open.take().is_some(), "no transaction of the metadata log is open to abort, after offset {}", self.offset);
            }
            (MetadataRecord::EndTransaction(_), open) => {
                let records = open.take();
                assert!(records.is_some(), "no transaction of the metadata log is open to end, after offset {}", self.offset);
                records.iter().flat_map(|records| records.iter()).for_each(|record| self.apply_now(record));
            }
            (_, Some(open)) => Arc::make_mut(open).push(record.clone()),
            (_, None) => self.apply_now(record),
        }
    }

    fn apply_now(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::RegisterBroker(broker) => self.register(broker),
            MetadataRecord::UnregisterBroker(broker) => {
                self.broker_of_epoch(broker.broker_id, broker.broker_epoch);
                self.brokers.remove(&broker.broker_id);
            }
            MetadataRecord::FenceBroker(broker) => self.broker_of_epoch(broker.id, broker.epoch).fenced = true,
            MetadataRecord::UnfenceBroker(broker) => self.broker_of_epoch(broker.id, broker.epoch).fenced = false,
            MetadataRecord::BrokerRegistrationChange(change) => self.change_broker(change),
            MetadataRecord::RegisterController(controller) => {
                self.controllers.insert(controller.controller_id, Arc::new(controller.clone()));
            }
            MetadataRecord::UnregisterController(controller) => drop(self.controllers.remove(&controller.controller_id)),
            MetadataRecord::Topic(topic) => self.create(topic),
            MetadataRecord::Partition(partition) => self.put_partition(partition),
            MetadataRecord::PartitionChange(change) => self.change_partition(change),
            MetadataRecord::ClearElr(clear) => self.clear_elr(&clear.topic_name),
            MetadataRecord::RemoveTopic(removed) => {
                assert!(
                    self.names.contains_key(&removed.topic_id),
                    "the metadata log removes a topic that is not there: {}",
                    removed.topic_id
                );
                self.forget(removed.topic_id);
            }
            MetadataRecord::Config(config) => self.configure(config),
            MetadataRecord::ProducerIds(ids) => {
                assert!(
                    ids.next_producer_id >= self.next_producer_id,
                    "the metadata log allocates producer ids twice: {} after {}",
                    ids.next_producer_id,
                    self.next_producer_id
                );
                self.next_producer_id = ids.next_producer_id;
            }
            MetadataRecord::FeatureLevel(feature) => drop(self.features.insert(feature.name.clone(), feature.feature_level)),
            MetadataRecord::NoOp(_) => {}
            MetadataRecord::AccessControlEntry(_)
            | MetadataRecord::RemoveAccessControlEntry(_)
            | MetadataRecord::UserScramCredential(_)
            | MetadataRecord::RemoveUserScramCredential(_)
            | MetadataRecord::DelegationToken(_)
            | MetadataRecord::RemoveDelegationToken(_)
            | MetadataRecord::ClientQuota(_)
            | MetadataRecord::ZkMigrationState(_) => Arc::make_mut(&mut self.held).apply(record),
            MetadataRecord::BeginTransaction(_) | MetadataRecord::EndTransaction(_) | MetadataRecord::AbortTransaction(_) => {
                unreachable!("handled where records are applied")
            }
        }
    }

    /// Records that rebuild this image from an empty one: a snapshot. Not allowed within a transaction of the log, see
    /// [`in_transaction`](Self::in_transaction).
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        assert!(self.transaction.is_none(), "a snapshot within a transaction of the metadata log, at offset {}", self.offset);
        // Kafka's order: features first, so that a reader knows the level; topics before their settings.
        let level =
            |(name, level): (&String, &i16)| MetadataRecord::FeatureLevel(FeatureLevelRecord { name: name.clone(), feature_level: *level });
        let (version, others): (Vec<_>, Vec<_>) = self.features.iter().partition(|(name, _)| *name == super::METADATA_VERSION.name);
        let mut records: Vec<MetadataRecord> = version.into_iter().chain(others).map(level).collect();
        records.extend(self.controllers.values().map(|controller| MetadataRecord::RegisterController(controller.as_ref().clone())));
        records.extend(self.brokers.values().map(|broker| MetadataRecord::RegisterBroker(broker.as_ref().clone())));
        for topic in self.topics.values() {
            records.push(MetadataRecord::Topic(TopicRecord { name: topic.name.to_string(), topic_id: topic.id }));
            records.extend(topic.partitions.iter().enumerate().map(|(number, partition)| partition.to_record(topic.id, number as i32)));
            records.extend(config_records(TOPIC_RESOURCE, &topic.name, &topic.configs));
        }
        for (broker, configs) in &self.broker_configs {
            records.extend(config_records(BROKER_RESOURCE, broker, configs));
        }
        let next_producer_id = self.next_producer_id;
        let ids = ProducerIdsRecord { broker_id: -1, next_producer_id, ..Default::default() };
        records.extend((next_producer_id > 0).then_some(MetadataRecord::ProducerIds(ids)));
        records.extend(self.held.to_records());
        records
    }

    /// Removes a topic.
    pub(super) fn forget(&mut self, id: Uuid) {
        if let Some(name) = self.names.remove(&id) {
            self.topics.remove(&name);
        }
    }

    fn register(&mut self, broker: &RegisterBrokerRecord) {
        if let Some(known) = self.brokers.get(&broker.broker_id) {
            let (id, before, epoch) = (broker.broker_id, known.broker_epoch, broker.broker_epoch);
            assert!(epoch >= before, "the epoch of broker {id} fell from {before} to {epoch}");
        }
        self.brokers.insert(broker.broker_id, Arc::new(broker.clone()));
    }

    /// The registration of a broker; it must have this epoch.
    fn broker_of_epoch(&mut self, id: i32, epoch: i64) -> &mut RegisterBrokerRecord {
        let known = self.brokers.get(&id).map(|broker| broker.broker_epoch);
        assert_eq!(known, Some(epoch), "the metadata log changes broker {id} in an epoch that is not its own");
        Arc::make_mut(self.brokers.get_mut(&id).expect("asserted above"))
    }

    /// -1 means false and 1 means true; 0, an empty list and null leave a field unchanged.
    fn change_broker(&mut self, change: &BrokerRegistrationChangeRecord) {
        let broker = self.broker_of_epoch(change.broker_id, change.broker_epoch);
        let said = |field: i8, now: bool| if field == 0 { now } else { field > 0 };
        broker.fenced = said(change.fenced, broker.fenced);
        broker.in_controlled_shutdown = said(change.in_controlled_shutdown, broker.in_controlled_shutdown);
        if !change.log_dirs.is_empty() {
            broker.log_dirs = change.log_dirs.clone();
        }
        if change.cordoned_log_dirs.is_some() {
            broker.cordoned_log_dirs = change.cordoned_log_dirs.clone();
        }
    }

    fn create(&mut self, topic: &TopicRecord) {
        let name: Arc<str> = topic.name.as_str().into();
        let known = self.topics.get(&name).map(|topic| topic.id);
        assert!(known.is_none() && !self.names.contains_key(&topic.topic_id), "the metadata log creates topic {name} twice");
        self.names.insert(topic.topic_id, name.clone());
        let image = TopicImage { name: name.clone(), id: topic.topic_id, partitions: Vec::new(), configs: BTreeMap::new() };
        self.topics.insert(name, Arc::new(image));
    }

    fn put_partition(&mut self, record: &PartitionRecord) {
        let topic = self.topic_to_change(record.topic_id);
        let (number, next) = (record.partition_id, PartitionImage::of(record));
        next.check(&topic.name, number);
        match usize::try_from(number) {
            Ok(at) if at < topic.partitions.len() => {
                next.check_epochs(&topic.partitions[at], &topic.name, number);
                topic.partitions[at] = next;
            }
            at => {
                assert_eq!(at, Ok(topic.partitions.len()), "partition {number} of {} comes before the one below it", topic.name);
                topic.partitions.push(next);
            }
        }
    }

    fn change_partition(&mut self, change: &PartitionChangeRecord) {
        let topic = self.topic_to_change(change.topic_id);
        let number = change.partition_id;
        let known = usize::try_from(number).ok().and_then(|at| topic.partitions.get_mut(at));
        let Some(partition) = known else { panic!("the metadata log changes partition {number} of {}, which is not there", topic.name) };
        let next = partition.changed(change);
        next.check(&topic.name, number);
        next.check_epochs(partition, &topic.name, number);
        *partition = next;
    }

    fn clear_elr(&mut self, topic: &str) {
        for image in self.topics.values_mut().filter(|image| topic.is_empty() || *image.name == *topic) {
            Arc::make_mut(image).partitions.iter_mut().for_each(PartitionImage::clear_elr);
        }
    }

    fn configure(&mut self, config: &ConfigRecord) {
        match config.resource_type {
            TOPIC_RESOURCE => {
                // Settings of an unknown topic are ignored; Kafka's log has them if the topic was deleted meanwhile.
                if let Some(topic) = self.topics.get_mut(config.resource_name.as_str()) {
                    set(&mut Arc::make_mut(topic).configs, config);
                }
            }
            BROKER_RESOURCE => {
                let configs = self.broker_configs.entry(config.resource_name.clone()).or_default();
                set(configs, config);
                if configs.is_empty() {
                    self.broker_configs.remove(&config.resource_name);
                }
            }
            _ => Arc::make_mut(&mut self.held).configure(config),
        }
    }

    fn topic_to_change(&mut self, id: Uuid) -> &mut TopicImage {
        let topic = self.names.get(&id).and_then(|name| self.topics.get_mut(name));
        let Some(topic) = topic else { panic!("the metadata log changes a topic that is not there: {id}") };
        Arc::make_mut(topic)
    }

    /// The topic with this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// The topic with this id.
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

    /// The settings that were changed while brokers ran: of one broker, or of all brokers if the name is empty.
    pub fn broker_configs(&self, broker: &str) -> Option<&BTreeMap<String, String>> {
        self.broker_configs.get(broker)
    }

    /// A setting that was changed while brokers ran: the value for this broker, else the value for all brokers.
    pub fn broker_setting(&self, broker: i32, name: &str) -> Option<&str> {
        let of = |broker: &str| self.broker_configs.get(broker)?.get(name).map(String::as_str);
        of(&broker.to_string()).or_else(|| of(""))
    }

    /// The level at which the cluster uses a feature; none if it was never set.
    pub fn feature(&self, name: &str) -> Option<i16> {
        self.features.get(name).copied()
    }

    /// Whether any level was ever set. Clusters of early releases have none.
    pub fn has_features(&self) -> bool {
        !self.features.is_empty()
    }

    /// The registration of a broker, with its epoch, incarnation, endpoints, rack, features and directories, and whether it is fenced.
    pub fn broker(&self, id: i32) -> Option<&RegisterBrokerRecord> {
        self.brokers.get(&id).map(Arc::as_ref)
    }

    /// All registered brokers by id, fenced ones too.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &RegisterBrokerRecord> {
        self.brokers.values().map(Arc::as_ref)
    }

    /// All registered controllers by id.
    pub fn controllers(&self) -> impl ExactSizeIterator<Item = &RegisterControllerRecord> {
        self.controllers.values().map(Arc::as_ref)
    }

    /// Metadata that is stored for Kafka and not used here: access control entries, credentials, tokens, quotas, settings of other resources.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Whether a transaction of the log is open: its records are not applied yet, and no snapshot can be taken.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Applies the start of a broker in a log of an early release: its registration started a new leader epoch in every partition that it led,
    /// without a record of that change.
    pub(super) fn apply_implied(&mut self, broker: i32) {
        for topic in self.topics.values_mut() {
            for partition in Arc::make_mut(topic).partitions.iter_mut().filter(|p| p.leader == broker) {
                partition.leader_epoch += 1;
            }
        }
    }
}

/// Sets or removes a setting.
pub(super) fn set(configs: &mut BTreeMap<String, String>, config: &ConfigRecord) {
    match &config.value {
        Some(value) => configs.insert(config.name.clone(), value.clone()),
        None => configs.remove(&config.name),
    };
}

/// Records that set these settings of a resource.
pub(super) fn config_records(resource_type: i8, resource: &str, configs: &BTreeMap<String, String>) -> Vec<MetadataRecord> {
    let record = |(name, value): (&String, &String)| {
        let (resource_name, name, value) = (resource.to_string(), name.clone(), Some(value.clone()));
        MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name, value })
    };
    configs.iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Entry, LeaderChange, Snapshot};
    use crate::protocol::generated::cluster_metadata::*;

    const TOPIC: Uuid = Uuid([1; 16]);

    fn broker(id: i32, broker_epoch: i64) -> MetadataRecord {
        let end_points = vec![BrokerEndpoint { name: "PLAINTEXT".into(), host: "h".into(), port: 9092, security_protocol: 0 }];
        let features = vec![BrokerFeature { name: "metadata.version".into(), min_supported_version: 7, max_supported_version: 30 }];
        MetadataRecord::RegisterBroker(RegisterBrokerRecord {
            broker_id: id,
            incarnation_id: Uuid([id as u8; 16]),
            broker_epoch,
            end_points,
            features,
            rack: Some("r".into()),
            fenced: true,
            log_dirs: vec![Uuid([7; 16])],
            ..Default::default()
        })
    }

    fn config(resource_type: i8, resource: &str, name: &str, value: Option<&str>) -> MetadataRecord {
        let (resource_name, name, value) = (resource.to_string(), name.to_string(), value.map(str::to_string));
        MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name, value })
    }

    fn change() -> PartitionChangeRecord {
        PartitionChangeRecord { partition_id: 0, topic_id: TOPIC, ..Default::default() }
    }

    fn acl(id: u8) -> MetadataRecord {
        MetadataRecord::AccessControlEntry(AccessControlEntryRecord {
            id: Uuid([id; 16]),
            principal: "User:a".into(),
            ..Default::default()
        })
    }

    fn credential(name: &str) -> UserScramCredentialRecord {
        UserScramCredentialRecord { name: name.into(), mechanism: 1, iterations: 4096, ..Default::default() }
    }

    fn token(id: &str) -> MetadataRecord {
        MetadataRecord::DelegationToken(DelegationTokenRecord { token_id: id.into(), owner: "User:a".into(), ..Default::default() })
    }

    fn quota(user: Option<&str>, remove: bool) -> MetadataRecord {
        let entity = vec![EntityData { entity_type: "user".into(), entity_name: user.map(str::to_string) }];
        MetadataRecord::ClientQuota(ClientQuotaRecord { entity, key: "producer_byte_rate".into(), value: 1.5, remove })
    }

    /// A record of each type, so that the state contains something of each kind, and something of each kind was removed.
    fn all() -> Vec<MetadataRecord> {
        let wide = PartitionRecord {
            partition_id: 0,
            topic_id: TOPIC,
            replicas: vec![1, 2, 3],
            isr: vec![1, 2, 3],
            leader: 1,
            leader_epoch: 3,
            partition_epoch: 4,
            directories: vec![Uuid([7; 16]); 3],
            ..Default::default()
        };
        let topic = |name: &str, topic_id| MetadataRecord::Topic(TopicRecord { name: name.into(), topic_id });
        let controller = |controller_id| {
            MetadataRecord::RegisterController(RegisterControllerRecord { controller_id, incarnation_id: TOPIC, ..Default::default() })
        };
        vec![
            MetadataRecord::NoOp(NoOpRecord::default()),
            MetadataRecord::FeatureLevel(FeatureLevelRecord { name: "group.version".into(), feature_level: 1 }),
            MetadataRecord::FeatureLevel(FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 }),
            controller(1),
            controller(2),
            MetadataRecord::UnregisterController(UnregisterControllerRecord { controller_id: 2 }),
            broker(1, 10),
            broker(2, 11),
            broker(3, 12),
            broker(4, 13),
            MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { broker_id: 4, broker_epoch: 13 }),
            MetadataRecord::UnfenceBroker(UnfenceBrokerRecord { id: 1, epoch: 10 }),
            MetadataRecord::UnfenceBroker(UnfenceBrokerRecord { id: 2, epoch: 11 }),
            MetadataRecord::FenceBroker(FenceBrokerRecord { id: 2, epoch: 11 }),
            MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
                broker_id: 3,
                broker_epoch: 12,
                fenced: -1,
                in_controlled_shutdown: 1,
                log_dirs: vec![Uuid([8; 16])],
                cordoned_log_dirs: Some(vec![Uuid([9; 16])]),
            }),
            topic("t", TOPIC),
            topic("gone", Uuid([2; 16])),
            MetadataRecord::Partition(wide),
            config(2, "t", "retention.ms", Some("5")),
            config(2, "t", "segment.ms", Some("6")),
            config(2, "t", "segment.ms", None),
            config(4, "", "log.retention.ms", Some("7")),
            config(16, "metrics", "interval.ms", Some("8")),
            config(32, "group", "consumer.session.timeout.ms", Some("9")),
            config(32, "other", "x", Some("9")),
            config(32, "other", "x", None),
            MetadataRecord::PartitionChange(PartitionChangeRecord {
                isr: Some(vec![1]),
                eligible_leader_replicas: Some(vec![2]),
                last_known_elr: Some(vec![3]),
                ..change()
            }),
            MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: Uuid([2; 16]) }),
            MetadataRecord::ProducerIds(ProducerIdsRecord { broker_id: 1, broker_epoch: 10, next_producer_id: 2000 }),
            acl(1),
            acl(2),
            MetadataRecord::RemoveAccessControlEntry(RemoveAccessControlEntryRecord { id: Uuid([2; 16]) }),
            MetadataRecord::UserScramCredential(credential("a")),
            MetadataRecord::UserScramCredential(credential("b")),
            MetadataRecord::RemoveUserScramCredential(RemoveUserScramCredentialRecord { name: "b".into(), mechanism: 1 }),
            token("a"),
            token("b"),
            MetadataRecord::RemoveDelegationToken(RemoveDelegationTokenRecord { token_id: "b".into() }),
            quota(Some("a"), false),
            quota(None, false),
            quota(None, true),
            MetadataRecord::ZkMigrationState(ZkMigrationStateRecord { zk_migration_state: 0 }),
        ]
    }

    fn image(records: &[MetadataRecord]) -> MetadataImage {
        let mut image = MetadataImage::default();
        records.iter().for_each(|record| image.apply(&MetadataRecord::decode(record.encode()).unwrap()));
        image
    }

    #[test]
    fn nothing_of_any_record_type_is_lost_by_a_snapshot() {
        let image = image(&all());
        assert_eq!(super::tests::image(&image.to_records()), image);
        let (one, two, three) = (image.broker(1).unwrap(), image.broker(2).unwrap(), image.broker(3).unwrap());
        assert_eq!((one.fenced, two.fenced, three.fenced, three.in_controlled_shutdown), (false, true, false, true));
        assert_eq!((three.log_dirs.as_slice(), three.rack.as_deref()), (&[Uuid([8; 16])][..], Some("r")));
        assert_eq!((image.brokers().len(), image.controllers().len(), image.topic_count(), image.next_producer_id), (3, 1, 1, 2000));
        let partition = &image.topic("t").unwrap().partitions[0];
        assert_eq!(
            (partition.leader_epoch, partition.partition_epoch, &partition.elr, &partition.last_known_elr),
            (3, 5, &vec![2], &vec![3])
        );
        let kinds = [
            ("access control entries", 1),
            ("SCRAM credentials", 1),
            ("delegation tokens", 1),
            ("quotas", 1),
            ("settings of groups and client metrics", 2),
        ];
        assert_eq!(image.held().kinds(), kinds);
        let types: std::collections::BTreeSet<u8> = all().iter().map(|record| record.encode()[1]).collect();
        // Types 23 to 25 are transactions, and 28 removes what other records set: they have their own tests.
        assert_eq!(types.len(), 27 - 4);
    }

    #[test]
    fn eligible_leader_replicas_are_forgotten_on_demand() {
        for name in ["", "t"] {
            let mut image = image(&all());
            image.apply(&MetadataRecord::ClearElr(ClearElrRecord { topic_name: name.into() }));
            let partition = &image.topic("t").unwrap().partitions[0];
            assert!(partition.elr.is_empty() && partition.last_known_elr.is_empty() && partition.partition_epoch == 6);
        }
    }

    #[test]
    fn a_transaction_of_the_log_is_applied_as_a_whole_or_not_at_all() {
        let begin = MetadataRecord::BeginTransaction(BeginTransactionRecord::default());
        let mut half = image(&[]);
        [begin.clone()].iter().chain(&all()).for_each(|record| half.apply(record));
        assert!(half.in_transaction() && half.topic_count() == 0);
        let mut whole = half.clone();
        whole.apply(&MetadataRecord::EndTransaction(EndTransactionRecord::default()));
        assert_eq!(whole, image(&all()));
        half.apply(&MetadataRecord::AbortTransaction(AbortTransactionRecord::default()));
        assert_eq!(half, MetadataImage::default());
    }

    #[test]
    fn what_contradicts_the_image_is_not_applied() {
        let broken = [
            broker(1, 9),
            MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { broker_id: 9, broker_epoch: 1 }),
            MetadataRecord::FenceBroker(FenceBrokerRecord { id: 1, epoch: 9 }),
            MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
                broker_id: 1,
                broker_epoch: 11,
                ..Default::default()
            }),
            MetadataRecord::Topic(TopicRecord { name: "t".into(), topic_id: Uuid([5; 16]) }),
            MetadataRecord::Topic(TopicRecord { name: "u".into(), topic_id: TOPIC }),
            MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: Uuid([5; 16]) }),
            MetadataRecord::Partition(PartitionRecord { partition_id: 2, topic_id: TOPIC, ..Default::default() }),
            MetadataRecord::Partition(PartitionRecord { partition_id: -1, topic_id: TOPIC, ..Default::default() }),
            MetadataRecord::Partition(PartitionRecord { partition_id: 0, topic_id: TOPIC, ..Default::default() }),
            MetadataRecord::Partition(PartitionRecord { partition_id: 0, topic_id: Uuid([5; 16]), ..Default::default() }),
            MetadataRecord::PartitionChange(PartitionChangeRecord { partition_id: 1, ..change() }),
            MetadataRecord::PartitionChange(PartitionChangeRecord { topic_id: Uuid([5; 16]), ..change() }),
            MetadataRecord::PartitionChange(PartitionChangeRecord { leader: 2, ..change() }),
            MetadataRecord::PartitionChange(PartitionChangeRecord { isr: Some(vec![1, 2]), ..change() }),
            MetadataRecord::ProducerIds(ProducerIdsRecord { next_producer_id: 1999, ..Default::default() }),
            MetadataRecord::EndTransaction(EndTransactionRecord::default()),
            MetadataRecord::AbortTransaction(AbortTransactionRecord::default()),
        ];
        for record in broken {
            let mut image = image(&all());
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| image.apply(&record))).is_err(), "{record:?}");
        }
    }

    #[test]
    fn what_is_committed_comes_without_a_gap_and_in_epochs_that_never_fall() {
        let entry =
            |epoch, offset| Committed::Entry(Entry { epoch, offset, records: vec![MetadataRecord::NoOp(NoOpRecord::default()); 2] });
        let leader = |epoch, offset| Committed::LeaderChange(LeaderChange { epoch, offset, leader: 1 });
        let snapshot = |epoch, end| Committed::Snapshot(Snapshot { epoch, end, ..Default::default() });
        let mut image = MetadataImage::default();
        for (item, offset) in [(leader(3, 0), 0), (entry(3, 1), 2), (leader(4, 3), 3), (snapshot(4, 10), 9), (entry(4, 10), 11)] {
            image.apply_committed(&item);
            assert_eq!(image.offset, offset);
        }
        for item in [entry(4, 11), entry(4, 13), entry(3, 12), leader(3, 12), leader(5, 13), snapshot(4, 11), snapshot(3, 20)] {
            let mut image = image.clone();
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| image.apply_committed(&item))).is_err(), "{item:?}");
        }
    }
}
