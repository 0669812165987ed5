//! Decides changes: an event in, records and a response out. It uses no clock, no disk and no randomness.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::configs::altered;
use super::image::{TOPIC_RESOURCE, config_records};
use super::partition_image::UNASSIGNED_DIRECTORY;
use super::{
    Alteration, Downgrade, Error, FEATURES, Feature, FeatureUpdate, METADATA_TOPIC, METADATA_VERSION, MetadataImage, MetadataRecord,
    PartitionImage, Resource,
};
use crate::model::{TopicPartition, Uuid, is_internal_topic, is_legal_topic_name};
use crate::partition::{Setting, SettingError, setting_named};
use crate::protocol::generated::cluster_metadata::{
    AbortTransactionRecord, BrokerEndpoint, BrokerFeature, ConfigRecord, FeatureLevelRecord, ProducerIdsRecord, RegisterBrokerRecord,
    RemoveTopicRecord, TopicRecord,
};

/// The maximum length in bytes of a partition's directory name, `topic-partition`, on common file systems.
const DIRECTORY_NAME_MAX: usize = 255;
/// The most partitions that one request may create, as in Kafka.
const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;
/// The size of a block of producer ids, as in Kafka.
pub(super) const PRODUCER_ID_BLOCK: i64 = 1000;

/// How a replication factor above the number of brokers is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// It is lowered to the number of brokers.
    Clamp,
    /// The topic is rejected, as in Kafka.
    Refuse,
}

/// The broker's settings that the controller uses for topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerSettings {
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// For topics that clients create; internal topics are always clamped.
    pub replication: Replication,
    /// The broker's values for settings that a topic does not have, under the topic's names.
    pub topic_defaults: BTreeMap<String, String>,
}

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// A new id.
    pub id: Uuid,
    /// The number of partitions; -1 means the broker's default.
    pub partitions: i32,
    /// The number of replicas; -1 means the broker's default.
    pub replication_factor: i16,
    /// The replicas of each partition, if the client chooses them.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings; null is rejected.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic by name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(Uuid),
}

/// More partitions for a topic.
#[derive(Debug, Clone)]
pub struct MorePartitions {
    /// Its name.
    pub name: String,
    /// The new total number of partitions.
    pub count: i32,
    /// The replicas of each new partition, if the client chooses them.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// What a broker registers when it starts.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// Its id.
    pub id: i32,
    /// New at each start.
    pub incarnation: Uuid,
    /// The addresses of its listeners.
    pub endpoints: Vec<BrokerEndpoint>,
    /// Its rack.
    pub rack: Option<String>,
    /// The ids of its log directories.
    pub log_dirs: Vec<Uuid>,
}

/// A request to the controller.
#[derive(Debug, Clone)]
pub enum Event {
    /// A broker has started.
    RegisterBroker(Registration),
    /// Create topics, or only validate the request.
    CreateTopics {
        /// The topics.
        topics: Vec<NewTopic>,
        /// Write nothing.
        validate_only: bool,
    },
    /// Delete topics.
    DeleteTopics(Vec<TopicRef>),
    /// Add partitions to topics, or only validate the request.
    CreatePartitions {
        /// The topics.
        topics: Vec<MorePartitions>,
        /// Write nothing.
        validate_only: bool,
    },
    /// Change the settings of resources, or only validate the request.
    AlterConfigs {
        /// Each resource at most once.
        alterations: Vec<(Resource, Alteration)>,
        /// Write nothing.
        validate_only: bool,
    },
    /// Change the levels of features, or only validate the request. Either all levels change or none.
    UpdateFeatures {
        /// Each feature at most once.
        updates: Vec<FeatureUpdate>,
        /// Write nothing.
        validate_only: bool,
    },
    /// Allocate a block of producer ids to a broker.
    AllocateProducerIds {
        /// Its id.
        broker: i32,
    },
}

/// A topic that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: Uuid,
    /// The number of partitions.
    pub partitions: i32,
    /// The number of replicas.
    pub replication_factor: i16,
    /// Whether the replication factor was lowered to the number of brokers.
    pub clamped: bool,
}

/// The controller's response; lists have the order of the event.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// Done.
    Done,
    /// The created topic, or the reason why it was not created.
    Topics(Vec<Result<CreatedTopic, Error>>),
    /// Name and id of each deleted topic, or the reason why it was not deleted.
    Deleted(Vec<Result<(Arc<str>, Uuid), Error>>),
    /// Partitions were added, or the reason why not.
    Partitions(Vec<Result<(), Error>>),
    /// The settings were changed, or the reason why not.
    Altered(Vec<Result<(), Error>>),
    /// The levels were changed, or the reason why not.
    Features(Result<(), Error>),
    /// The first id of a block, and the id after its last one.
    ProducerIds(i64, i64),
}

/// The state machine. It decides only while it is the leader, based on an image that is ahead of the committed one by the proposed records.
#[derive(Debug)]
pub struct Controller {
    leading: Option<Leading>,
    settings: ControllerSettings,
}

#[derive(Debug)]
struct Leading {
    epoch: i32,
    image: MetadataImage,
}

/// A decision of the controller.
#[derive(Debug, PartialEq)]
pub struct Decided {
    /// The records to commit; they are already applied to the controller's own image.
    pub records: Vec<MetadataRecord>,
    /// The response, valid once the records are committed.
    pub response: Response,
}

impl Controller {
    /// A controller that is not the leader.
    pub fn new(settings: ControllerSettings) -> Self {
        Controller { leading: None, settings }
    }

    /// Starts to lead from `committed`, in its epoch. Earlier decisions that it does not contain are dropped. Returns the records to commit first:
    /// the end of a transaction that another controller left open.
    pub fn lead(&mut self, committed: MetadataImage) -> Vec<MetadataRecord> {
        let known = self.leading.as_ref().map_or(0, |leading| leading.epoch);
        assert!(committed.epoch >= known, "the controller's epoch fell from {known} to {}", committed.epoch);
        let open = committed.in_transaction();
        let mut deciding = Deciding { image: committed, settings: &self.settings, records: Vec::new() };
        if open {
            deciding.note(vec![MetadataRecord::AbortTransaction(AbortTransactionRecord { reason: Some("the controller changed".into()) })]);
        }
        let Deciding { image, records, .. } = deciding;
        self.leading = Some(Leading { epoch: image.epoch, image });
        records
    }

    /// Stops leading; decisions that are not committed are dropped.
    pub fn resign(&mut self) {
        self.leading = None;
    }

    /// The epoch in which it leads, and the offset of the next record that it decides; none if it is not the leader.
    pub fn position(&self) -> Option<(i32, i64)> {
        self.leading.as_ref().map(|leading| (leading.epoch, leading.image.offset + 1))
    }

    /// Decides an event. Fails with [`Error::NotController`] if this controller is not the leader.
    pub fn handle(&mut self, event: &Event) -> Result<Decided, Error> {
        let leading = self.leading.as_mut().ok_or(Error::NotController)?;
        let mut deciding = Deciding { image: std::mem::take(&mut leading.image), settings: &self.settings, records: Vec::new() };
        let response = deciding.decide(event);
        let Deciding { image, records, .. } = deciding;
        leading.image = image;
        Ok(Decided { records, response })
    }
}

/// A decision in progress.
struct Deciding<'a> {
    image: MetadataImage,
    settings: &'a ControllerSettings,
    records: Vec<MetadataRecord>,
}

impl Deciding<'_> {
    fn decide(&mut self, event: &Event) -> Response {
        match event {
            Event::RegisterBroker(registration) => {
                self.register(registration);
                Response::Done
            }
            Event::CreateTopics { topics, validate_only } => Response::Topics(self.create_topics(topics, *validate_only)),
            Event::DeleteTopics(topics) => Response::Deleted(topics.iter().map(|topic| self.delete_topic(topic)).collect()),
            Event::CreatePartitions { topics, validate_only } => {
                Response::Partitions(topics.iter().map(|topic| self.create_partitions(topic, *validate_only)).collect())
            }
            Event::AlterConfigs { alterations, validate_only } => {
                let results = alterations.iter().map(|(resource, alteration)| {
                    let new = self.plan_configs(resource, alteration)?;
                    if !validate_only {
                        self.note(new);
                    }
                    Ok(())
                });
                Response::Altered(results.collect())
            }
            Event::UpdateFeatures { updates, validate_only } => {
                let planned = updates.iter().map(|update| self.plan_feature(update)).collect::<Result<Vec<_>, _>>();
                Response::Features(planned.map(|new| {
                    if !validate_only {
                        self.note(new);
                    }
                }))
            }
            Event::AllocateProducerIds { broker } => {
                let first = self.image.next_producer_id;
                let end = first + PRODUCER_ID_BLOCK;
                let broker_epoch = self.image.broker(*broker).map_or(-1, |registered| registered.broker_epoch);
                let record = ProducerIdsRecord { broker_id: *broker, broker_epoch, next_producer_id: end };
                self.note(vec![MetadataRecord::ProducerIds(record)]);
                Response::ProducerIds(first, end)
            }
        }
    }

    fn note(&mut self, new: Vec<MetadataRecord>) {
        new.iter().for_each(|record| self.image.apply(record));
        self.image.offset += new.len() as i64;
        self.records.extend(new);
    }

    /// Registers a broker, and starts a new leader epoch in every partition that it led, or that has no leader and has it in its ISR: clients that
    /// know the broker's earlier incarnation notice the change, and requests to that incarnation are no longer valid.
    fn register(&mut self, registration: &Registration) {
        if self.image.feature(METADATA_VERSION.name).is_none() {
            // The first record of a new cluster, as in Kafka. Early releases stored no metadata level.
            let is_new = !self.image.has_features();
            let newest = FEATURES.iter().filter(|feature| is_new || feature.name == METADATA_VERSION.name);
            let newest = newest.map(|feature| feature_record(feature.name, feature.max)).collect();
            self.note(newest);
        }
        let Registration { id, incarnation, endpoints, rack, log_dirs } = registration;
        let feature = |f: &Feature| BrokerFeature { name: f.name.into(), min_supported_version: f.min, max_supported_version: f.max };
        let record = RegisterBrokerRecord {
            broker_id: *id,
            incarnation_id: *incarnation,
            broker_epoch: self.image.offset + 1,
            end_points: endpoints.clone(),
            features: FEATURES.iter().map(feature).collect(),
            rack: rack.clone(),
            fenced: false,
            log_dirs: log_dirs.clone(),
            ..Default::default()
        };
        self.note(vec![MetadataRecord::RegisterBroker(record)]);
        let partitions = self.image.topics().flat_map(|topic| topic.partitions.iter().enumerate().map(|(number, p)| (topic.id, number, p)));
        let led = partitions.filter(|(_, _, p)| p.leader == *id || (p.leader == -1 && p.isr.contains(id)));
        let begins = led.map(|(topic, number, _)| PartitionImage::leader_record(topic, number as i32, *id)).collect();
        self.note(begins);
    }

    fn create_topics(&mut self, topics: &[NewTopic], validate_only: bool) -> Vec<Result<CreatedTopic, Error>> {
        let mut partitions_left = PARTITIONS_PER_REQUEST_MAX;
        topics
            .iter()
            .map(|topic| {
                let (created, new) = self.plan_topic(topic)?;
                let too_many = || Error::PolicyViolation(format!("More than {PARTITIONS_PER_REQUEST_MAX} partitions in one request"));
                partitions_left = partitions_left.checked_sub(created.partitions as usize).ok_or_else(too_many)?;
                if !validate_only {
                    self.note(new);
                }
                Ok(created)
            })
            .collect()
    }

    /// Checks in Kafka's order: name, collision, existence, settings, assignment.
    fn plan_topic(&self, topic: &NewTopic) -> Result<(CreatedTopic, Vec<MetadataRecord>), Error> {
        if !is_legal_topic_name(&topic.name) {
            return Err(Error::InvalidTopic(topic.name.clone()));
        }
        if topic.name == METADATA_TOPIC {
            // Its partition would share the directory of the metadata log, and deleting it would delete the cluster.
            return Err(Error::InvalidRequest(format!("Creation of internal topic {METADATA_TOPIC} is prohibited.")));
        }
        if self.image.topic(&topic.name).is_some() {
            return Err(Error::TopicExists(topic.name.clone()));
        }
        if topic.name.contains(['.', '_']) {
            let plain = topic.name.replace('.', "_");
            if let Some(existing) = self.image.topics().find(|t| t.name.contains(['.', '_']) && t.name.replace('.', "_") == plain) {
                return Err(Error::Collision { topic: topic.name.clone(), existing: existing.name.to_string() });
            }
        }
        let configs = check_configs(&topic.configs)?;
        let (assignments, clamped) = self.assign(topic)?;
        let mut records = vec![MetadataRecord::Topic(TopicRecord { name: topic.name.clone(), topic_id: topic.id })];
        records.extend(assignments.iter().enumerate().map(|(number, replicas)| self.partition_record(topic.id, number as i32, replicas)));
        records.extend(config_records(TOPIC_RESOURCE, &topic.name, &configs));
        let replication_factor = assignments.first().map_or(0, Vec::len) as i16;
        Ok((CreatedTopic { id: topic.id, partitions: assignments.len() as i32, replication_factor, clamped }, records))
    }

    /// The records of a change of settings: new values, and null for each setting that returns to its default.
    fn plan_configs(&self, resource: &Resource, alteration: &Alteration) -> Result<Vec<MetadataRecord>, Error> {
        let none = BTreeMap::new();
        let own = match resource {
            Resource::Topic(name) => &self.image.topic(name).ok_or(Error::UnknownTopic)?.configs,
            Resource::Broker(Some(id)) if self.image.broker(*id).is_none() => {
                return Err(Error::InvalidRequest(format!("No broker with id {id} found.")));
            }
            Resource::Broker(_) => self.image.broker_configs(&resource.record_name()).unwrap_or(&none),
        };
        let next = altered(resource, own, alteration, |setting| self.effective(setting))?;
        let (resource_type, resource_name) = (resource.record_type(), resource.record_name());
        let changed = next.iter().filter(|(name, value)| own.get(*name) != Some(value));
        let changed: BTreeMap<String, String> = changed.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut records = config_records(resource_type, &resource_name, &changed);
        records.extend(own.keys().filter(|name| !next.contains_key(*name)).map(|name| {
            let (resource_name, name) = (resource_name.clone(), name.clone());
            MetadataRecord::Config(ConfigRecord { resource_type, resource_name, name, value: None })
        }));
        Ok(records)
    }

    fn plan_feature(&self, update: &FeatureUpdate) -> Result<MetadataRecord, Error> {
        let FeatureUpdate { name, level, downgrade } = update;
        let refuse = |what: String| Err(Error::InvalidFeature(format!("Invalid update version {level} for feature {name}. {what}")));
        let Some(feature) = Feature::named(name) else { return refuse("Does not support this feature.".into()) };
        if !(feature.min..=feature.max).contains(level) {
            return refuse(format!("The broker supports {}-{}.", feature.min, feature.max));
        }
        let current = self.image.feature(name).unwrap_or(0);
        if *level < current && *downgrade == Downgrade::Allowed && *name == METADATA_VERSION.name {
            // The message is Kafka's; Kafka 4.3 does not downgrade either.
            return Err(Error::InvalidFeature(format!(
                "Unsupported {name} downgrade from {current} to {level}. Refusing to perform the requested downgrade because it might delete \
                 metadata information."
            )));
        }
        if *level < current && *downgrade == Downgrade::Refused {
            return refuse("Can't downgrade the version of this feature with an upgrade.".into());
        }
        Ok(feature_record(name, *level))
    }

    /// The value of a setting for a topic that does not set it.
    fn effective(&self, setting: &Setting) -> String {
        let dynamic = self.image.broker_configs("").and_then(|all| all.get(setting.broker_synonym));
        dynamic.or_else(|| self.settings.topic_defaults.get(setting.name)).map_or(setting.default, String::as_str).to_string()
    }

    /// The replicas of each partition, and whether there are fewer than requested.
    fn assign(&self, topic: &NewTopic) -> Result<(Vec<Vec<i32>>, bool), Error> {
        if !topic.assignments.is_empty() {
            return Ok((self.check_assignments(topic)?, false));
        }
        let partitions = if topic.partitions == -1 { self.settings.num_partitions } else { topic.partitions };
        if partitions < 1 {
            return Err(Error::InvalidPartitions("Number of partitions was set to an invalid non-positive value.".into()));
        }
        if partitions as usize > PARTITIONS_PER_REQUEST_MAX {
            return Err(Error::PolicyViolation(format!("More than {PARTITIONS_PER_REQUEST_MAX} partitions in one request")));
        }
        let wanted = if topic.replication_factor == -1 { self.settings.default_replication_factor } else { topic.replication_factor };
        if wanted < 1 {
            return Err(Error::InvalidReplicationFactor(
                "Replication factor must be larger than 0, or -1 to use the default value.".into(),
            ));
        }
        let brokers: Vec<i32> = self.image.brokers().filter(|broker| !broker.fenced).map(|broker| broker.broker_id).collect();
        let clamp = self.settings.replication == Replication::Clamp || is_internal_topic(&topic.name);
        if wanted as usize > brokers.len() && !clamp {
            let there = brokers.len();
            return Err(Error::InvalidReplicationFactor(format!(
                "Unable to replicate the partition {wanted} time(s): The target replication factor of {wanted} cannot be reached because only {there} broker(s) are registered."
            )));
        }
        let factor = (wanted as usize).min(brokers.len());
        let replicas = |partition: usize| (0..factor).map(|at| brokers[(partition + at) % brokers.len()]).collect();
        Ok(((0..partitions as usize).map(replicas).collect(), factor < wanted as usize))
    }

    fn check_assignments(&self, topic: &NewTopic) -> Result<Vec<Vec<i32>>, Error> {
        if topic.partitions != -1 {
            return Err(Error::InvalidRequest("A manual partition assignment was specified, but numPartitions was not set to -1.".into()));
        }
        if topic.replication_factor != -1 {
            return Err(Error::InvalidRequest(
                "A manual partition assignment was specified, but replication factor was not set to -1.".into(),
            ));
        }
        let by_number: BTreeMap<i32, &Vec<i32>> = topic.assignments.iter().map(|(number, brokers)| (*number, brokers)).collect();
        if by_number.len() != topic.assignments.len() || !by_number.keys().copied().eq(0..by_number.len() as i32) {
            return Err(Error::InvalidReplicaAssignment("partitions should be a consecutive 0-based integer sequence".into()));
        }
        by_number.into_values().map(|brokers| self.check_replicas(brokers)).collect()
    }

    fn check_replicas(&self, brokers: &[i32]) -> Result<Vec<i32>, Error> {
        let different: BTreeSet<&i32> = brokers.iter().collect();
        if brokers.is_empty() || different.len() != brokers.len() {
            return Err(Error::InvalidReplicaAssignment("The manual partition assignment is empty or names a broker twice.".into()));
        }
        match brokers.iter().find(|id| self.image.broker(**id).is_none()) {
            Some(id) => Err(Error::InvalidReplicaAssignment(format!(
                "The manual partition assignment includes broker {id}, but no such broker is registered."
            ))),
            None => Ok(brokers.to_vec()),
        }
    }

    /// The record of a new partition. A broker with one log directory stores its replica there; other brokers report the directory later (KIP-858).
    fn partition_record(&self, topic_id: Uuid, number: i32, replicas: &[i32]) -> MetadataRecord {
        let directory = |id: &i32| match self.image.broker(*id).map(|broker| broker.log_dirs.as_slice()) {
            Some([only]) => *only,
            _ => UNASSIGNED_DIRECTORY,
        };
        let directories = replicas.iter().map(directory).collect();
        PartitionImage { directories, ..PartitionImage::new(replicas) }.to_record(topic_id, number)
    }

    fn delete_topic(&mut self, topic: &TopicRef) -> Result<(Arc<str>, Uuid), Error> {
        let found = match topic {
            TopicRef::Name(name) => self.image.topic(name).ok_or(Error::UnknownTopic)?,
            TopicRef::Id(id) => self.image.topic_by_id(*id).ok_or(Error::UnknownTopicId)?,
        };
        let gone = (found.name.clone(), found.id);
        self.note(vec![MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: gone.1 })]);
        Ok(gone)
    }

    fn create_partitions(&mut self, more: &MorePartitions, validate_only: bool) -> Result<(), Error> {
        let topic = self.image.topic(&more.name).ok_or(Error::UnknownTopic)?;
        let there = topic.partitions.len() as i32;
        if more.count <= there {
            let name = &more.name;
            return Err(Error::InvalidPartitions(if more.count == there {
                format!("Topic already has {there} partition(s).")
            } else {
                format!("The topic {name} currently has {there} partition(s); {} would not be an increase.", more.count)
            }));
        }
        let added = (more.count - there) as usize;
        if added > PARTITIONS_PER_REQUEST_MAX {
            return Err(Error::PolicyViolation(format!("More than {PARTITIONS_PER_REQUEST_MAX} partitions in one request")));
        }
        let last = TopicPartition::new(more.name.as_str(), more.count - 1).to_string();
        if last.len() > DIRECTORY_NAME_MAX {
            let what = format!("Partition {} cannot be stored: file names have at most {DIRECTORY_NAME_MAX} bytes.", more.count - 1);
            return Err(Error::InvalidPartitions(what));
        }
        let replicas: Vec<Vec<i32>> = match &more.assignments {
            Some(lists) if lists.len() != added => {
                return Err(Error::InvalidReplicaAssignment(format!(
                    "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                    lists.len()
                )));
            }
            Some(lists) => lists.iter().map(|brokers| self.check_replicas(brokers)).collect::<Result<_, _>>()?,
            None => vec![topic.partitions.first().map_or(Vec::new(), |p| p.replicas.clone()); added],
        };
        let id = topic.id;
        let new = replicas.iter().enumerate().map(|(at, replicas)| self.partition_record(id, there + at as i32, replicas)).collect();
        if !validate_only {
            self.note(new);
        }
        Ok(())
    }
}

/// Validates the settings of a new topic. If a name occurs twice, the last value wins, as in Kafka.
fn check_configs(configs: &[(String, Option<String>)]) -> Result<BTreeMap<String, String>, Error> {
    configs
        .iter()
        .map(|(name, value)| {
            let what = "Null value not supported for topic configs".to_string();
            let value = value.clone().ok_or_else(|| SettingError::Value { name: name.clone(), value: "null".into(), what })?;
            setting_named(name).ok_or_else(|| SettingError::Unknown(name.clone()))?.check(&value)?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn feature_record(name: &str, feature_level: i16) -> MetadataRecord {
    MetadataRecord::FeatureLevel(FeatureLevelRecord { name: name.to_string(), feature_level })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Operation;

    fn controller(replication: Replication) -> Controller {
        let settings =
            ControllerSettings { num_partitions: 3, default_replication_factor: 1, replication, topic_defaults: BTreeMap::new() };
        let mut controller = Controller::new(settings);
        controller.lead(MetadataImage::default());
        handle(&mut controller, &start());
        controller
    }

    fn start() -> Event {
        Event::RegisterBroker(Registration { id: 1, ..Registration::default() })
    }

    fn handle(controller: &mut Controller, event: &Event) -> (Vec<MetadataRecord>, Response) {
        let Decided { records, response } = controller.handle(event).unwrap();
        (records, response)
    }

    fn image(controller: &Controller) -> &MetadataImage {
        &controller.leading.as_ref().unwrap().image
    }

    fn topic(name: &str) -> NewTopic {
        NewTopic { name: name.into(), id: Uuid([name.len() as u8; 16]), partitions: -1, replication_factor: -1, ..NewTopic::default() }
    }

    fn create(controller: &mut Controller, topic: NewTopic) -> Result<CreatedTopic, Error> {
        match handle(controller, &Event::CreateTopics { topics: vec![topic], validate_only: false }) {
            (_, Response::Topics(mut results)) => results.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_topic_gets_defaults_and_its_records_make_the_same_image() {
        let mut controller = controller(Replication::Refuse);
        let before = image(&controller).clone();
        let with_config = NewTopic { configs: vec![("retention.ms".into(), Some("5".into()))], ..topic("a") };
        let (records, _) = handle(&mut controller, &Event::CreateTopics { topics: vec![with_config], validate_only: false });
        let mut image = before;
        for record in &records {
            let stored = MetadataRecord::decode(record.encode()).unwrap();
            assert_eq!(&stored, record);
            image.apply(&stored);
        }
        image.offset += records.len() as i64;
        assert_eq!(&image, super::tests::image(&controller));
        let topic = image.topic("a").unwrap();
        assert_eq!((topic.partitions.len(), topic.configs["retention.ms"].as_str()), (3, "5"));
    }

    #[test]
    fn bad_topics_are_refused_as_kafka_does() {
        let mut controller = controller(Replication::Refuse);
        create(&mut controller, topic("a.b")).unwrap();
        type Expected = fn(&Error) -> bool;
        let cases: Vec<(NewTopic, Expected)> = vec![
            (topic("a b"), |e| matches!(e, Error::InvalidTopic(_))),
            (topic("a.b"), |e| matches!(e, Error::TopicExists(_))),
            (topic("a_b"), |e| matches!(e, Error::Collision { .. })),
            (NewTopic { partitions: 0, ..topic("p") }, |e| matches!(e, Error::InvalidPartitions(_))),
            (NewTopic { partitions: 10_001, ..topic("p") }, |e| matches!(e, Error::PolicyViolation(_))),
            (NewTopic { replication_factor: 0, ..topic("p") }, |e| matches!(e, Error::InvalidReplicationFactor(_))),
            (NewTopic { replication_factor: 3, ..topic("p") }, |e| matches!(e, Error::InvalidReplicationFactor(_))),
            (NewTopic { configs: vec![("x".into(), Some("1".into()))], ..topic("p") }, |e| matches!(e, Error::InvalidConfig(_))),
            (NewTopic { configs: vec![("retention.ms".into(), None)], ..topic("p") }, |e| matches!(e, Error::InvalidConfig(_))),
            (NewTopic { partitions: 1, assignments: vec![(0, vec![1])], ..topic("p") }, |e| matches!(e, Error::InvalidRequest(_))),
            (NewTopic { assignments: vec![(1, vec![1])], ..topic("p") }, |e| matches!(e, Error::InvalidReplicaAssignment(_))),
            (NewTopic { assignments: vec![(0, vec![7])], ..topic("p") }, |e| matches!(e, Error::InvalidReplicaAssignment(_))),
            (NewTopic { assignments: vec![(0, vec![1, 1])], ..topic("p") }, |e| matches!(e, Error::InvalidReplicaAssignment(_))),
        ];
        for (new, expected) in cases {
            let error = create(&mut controller, new.clone()).unwrap_err();
            assert!(expected(&error), "{new:?}: {error:?}");
        }
        assert_eq!(image(&controller).topic_count(), 1);
    }

    #[test]
    fn replication_is_clamped_where_that_is_set_and_always_for_internal_topics() {
        let three = |name: &str| NewTopic { replication_factor: 3, ..topic(name) };
        let created = create(&mut controller(Replication::Clamp), three("a")).unwrap();
        assert_eq!((created.replication_factor, created.clamped), (1, true));
        let internal = create(&mut controller(Replication::Refuse), three("__consumer_offsets")).unwrap();
        assert_eq!((internal.replication_factor, internal.clamped), (1, true));
    }

    #[test]
    fn validate_only_writes_nothing() {
        let mut controller = controller(Replication::Refuse);
        let (records, response) = handle(&mut controller, &Event::CreateTopics { topics: vec![topic("a")], validate_only: true });
        assert!(records.is_empty() && matches!(response, Response::Topics(results) if results[0].is_ok()));
    }

    #[test]
    fn the_topic_of_the_metadata_is_nobodys_to_create() {
        let created = create(&mut controller(Replication::Refuse), topic(METADATA_TOPIC));
        assert!(
            matches!(created, Err(Error::InvalidRequest(what)) if what == "Creation of internal topic __cluster_metadata is prohibited.")
        );
    }

    #[test]
    fn no_topic_grows_beyond_what_a_directory_can_be_called() {
        let mut controller = controller(Replication::Refuse);
        let name = "x".repeat(249);
        create(&mut controller, topic(&name)).unwrap();
        let mut grow = |count| {
            let topics = vec![MorePartitions { name: name.clone(), count, assignments: None }];
            let Response::Partitions(mut results) = handle(&mut controller, &Event::CreatePartitions { topics, validate_only: false }).1
            else {
                panic!()
            };
            results.remove(0)
        };
        (1..=10).for_each(|times| grow(10_000 * times).unwrap());
        assert!(matches!(grow(100_001), Err(Error::InvalidPartitions(what)) if what.contains("255 bytes")));
    }

    #[test]
    fn deleting_and_growing() {
        let mut controller = controller(Replication::Refuse);
        create(&mut controller, topic("a")).unwrap();
        let grow = |count, assignments| Event::CreatePartitions {
            topics: vec![MorePartitions { name: "a".into(), count, assignments }],
            validate_only: false,
        };
        assert!(
            matches!(handle(&mut controller, &grow(3, None)).1, Response::Partitions(r) if matches!(r[0], Err(Error::InvalidPartitions(_))))
        );
        assert!(
            matches!(handle(&mut controller, &grow(5, Some(vec![vec![1]]))).1, Response::Partitions(r) if matches!(r[0], Err(Error::InvalidReplicaAssignment(_))))
        );
        assert!(matches!(handle(&mut controller, &grow(5, None)).1, Response::Partitions(r) if r[0].is_ok()));
        assert_eq!(image(&controller).topic("a").unwrap().partitions.len(), 5);
        let delete = Event::DeleteTopics(vec![TopicRef::Name("a".into()), TopicRef::Name("a".into()), TopicRef::Id(Uuid::ZERO)]);
        let Response::Deleted(results) = handle(&mut controller, &delete).1 else { panic!() };
        assert!(results[0].is_ok());
        assert_eq!(results[1..], [Err(Error::UnknownTopic), Err(Error::UnknownTopicId)]);
    }

    #[test]
    fn a_start_raises_leader_epochs_and_a_new_topic_begins_at_zero() {
        let mut controller = controller(Replication::Refuse);
        create(&mut controller, topic("a")).unwrap();
        let (records, _) = handle(&mut controller, &start());
        create(&mut controller, topic("bb")).unwrap();
        let epochs =
            |name| image(&controller).topic(name).unwrap().partitions.iter().map(|p| (p.leader_epoch, p.partition_epoch)).collect();
        assert_eq!((epochs("a"), epochs("bb")), (vec![(1, 1); 3], vec![(0, 0); 3]));
        // Each change is a record of its own; the registration contains its own offset.
        assert!(
            matches!(&records[..], [MetadataRecord::RegisterBroker(_), MetadataRecord::PartitionChange(change), _, _] if change.leader == 1)
        );
        let MetadataRecord::RegisterBroker(broker) = &records[0] else { panic!() };
        assert_eq!(broker.broker_epoch + 7, image(&controller).offset, "3 changes, a topic and 3 partitions follow");
    }

    #[test]
    fn altered_settings_are_records_that_make_the_same_image() {
        let mut controller = controller(Replication::Refuse);
        create(&mut controller, NewTopic { configs: vec![("retention.ms".into(), Some("5".into()))], ..topic("a") }).unwrap();
        let before = image(&controller).clone();
        let set = |name: &str, value: &str| Alteration::Change(vec![(name.into(), Operation::Set, Some(value.into()))]);
        let alterations = vec![
            (Resource::Topic("a".into()), Alteration::Replace(vec![("segment.ms".into(), Some("9".into()))])),
            (Resource::Broker(None), set("log.retention.ms", "7")),
            (Resource::Broker(Some(1)), set("log.retention.ms", "8")),
            (Resource::Topic("missing".into()), set("segment.ms", "9")),
            (Resource::Broker(Some(7)), set("log.retention.ms", "8")),
        ];
        let checked = handle(&mut controller, &Event::AlterConfigs { alterations: alterations.clone(), validate_only: true });
        assert!(checked.0.is_empty() && *image(&controller) == before);
        let (records, response) = handle(&mut controller, &Event::AlterConfigs { alterations, validate_only: false });
        assert_eq!(checked.1, response);
        let Response::Altered(results) = response else { panic!() };
        assert!(
            results[..3].iter().all(Result::is_ok) && matches!(results[3..], [Err(Error::UnknownTopic), Err(Error::InvalidRequest(_))])
        );
        let mut image = before;
        records.iter().for_each(|record| image.apply(&MetadataRecord::decode(record.encode()).unwrap()));
        image.offset += records.len() as i64;
        assert_eq!(&image, super::tests::image(&controller));
        assert_eq!(image.topic("a").unwrap().configs, BTreeMap::from([("segment.ms".to_string(), "9".to_string())]));
        let mut restored = MetadataImage::default();
        image.to_records().iter().for_each(|record| restored.apply(record));
        assert_eq!(restored.broker_configs("1"), image.broker_configs("1"));
        assert_eq!(restored.broker_configs("").unwrap()["log.retention.ms"], "7");
    }

    #[test]
    fn producer_id_blocks_follow_each_other() {
        let mut controller = controller(Replication::Refuse);
        for block in 0..3 {
            let (_, response) = handle(&mut controller, &Event::AllocateProducerIds { broker: 1 });
            assert_eq!(response, Response::ProducerIds(block * 1000, block * 1000 + 1000));
        }
    }

    #[test]
    fn a_controller_that_does_not_lead_decides_nothing_and_one_that_leads_again_forgets_what_was_not_committed() {
        let mut controller = controller(Replication::Refuse);
        let committed = image(&controller).clone();
        create(&mut controller, topic("lost")).unwrap();
        controller.resign();
        assert_eq!(controller.handle(&start()), Err(Error::NotController));
        let mut again = committed.clone();
        again.epoch = 7;
        controller.lead(again);
        assert_eq!(controller.position(), Some((7, committed.offset + 1)));
        assert!(image(&controller).topic("lost").is_none());
        create(&mut controller, topic("lost")).unwrap();
    }

    #[test]
    fn a_new_leader_aborts_a_transaction_that_was_left_open() {
        let mut committed = image(&controller(Replication::Refuse)).clone();
        committed.apply(&MetadataRecord::BeginTransaction(Default::default()));
        committed.apply(&MetadataRecord::Topic(TopicRecord { name: "half".into(), topic_id: Uuid([9; 16]) }));
        let mut controller = controller(Replication::Refuse);
        let first = controller.lead(committed);
        assert!(matches!(first[..], [MetadataRecord::AbortTransaction(_)]));
        assert!(image(&controller).topic("half").is_none() && !image(&controller).in_transaction());
        assert_eq!(controller.lead(image(&controller).clone()), []);
    }

    #[test]
    fn a_partition_without_leader_is_led_again_by_a_replica_in_sync_that_starts() {
        let mut controller = controller(Replication::Refuse);
        create(&mut controller, NewTopic { partitions: 1, ..topic("a") }).unwrap();
        let id = image(&controller).topic("a").unwrap().id;
        let mut committed = image(&controller).clone();
        committed.apply(&PartitionImage::leader_record(id, 0, -1));
        controller.lead(committed);
        handle(&mut controller, &start());
        let partition = &image(&controller).topic("a").unwrap().partitions[0];
        assert_eq!((partition.leader, partition.leader_epoch, partition.partition_epoch), (1, 2, 2));
    }

    #[test]
    fn a_replica_is_stored_in_the_only_directory_of_its_broker() {
        for (log_dirs, expected) in [
            (vec![Uuid([5; 16])], Uuid([5; 16])),
            (vec![Uuid([5; 16]), Uuid([6; 16])], UNASSIGNED_DIRECTORY),
            (vec![], UNASSIGNED_DIRECTORY),
        ] {
            let mut controller = controller(Replication::Refuse);
            handle(&mut controller, &Event::RegisterBroker(Registration { id: 1, log_dirs, ..Registration::default() }));
            create(&mut controller, topic("a")).unwrap();
            assert_eq!(image(&controller).topic("a").unwrap().partitions[0].directories, [expected]);
        }
    }

    #[test]
    fn an_old_cluster_gets_the_level_of_its_metadata_once_and_keeps_its_other_levels() {
        let level = |image: &MetadataImage, name| image.feature(name);
        let fresh = controller(Replication::Refuse);
        assert_eq!((level(image(&fresh), "metadata.version"), level(image(&fresh), "transaction.version")), (Some(30), Some(2)));
        let mut old = MetadataImage::default();
        old.apply(&feature_record("transaction.version", 0));
        let mut controller = controller(Replication::Refuse);
        controller.lead(old);
        let (records, _) = handle(&mut controller, &start());
        assert_eq!(records[0], feature_record("metadata.version", 30));
        assert_eq!((level(image(&controller), "metadata.version"), level(image(&controller), "transaction.version")), (Some(30), Some(0)));
        assert_eq!(handle(&mut controller, &start()).0.len(), 1);
    }

    #[test]
    fn the_level_of_the_metadata_does_not_fall() {
        let mut controller = controller(Replication::Refuse);
        let mut set = |level, downgrade| {
            let updates = vec![FeatureUpdate { name: "metadata.version".into(), level, downgrade }];
            match handle(&mut controller, &Event::UpdateFeatures { updates, validate_only: false }).1 {
                Response::Features(result) => result.map_err(|error| error.to_string()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(set(30, Downgrade::Refused), Ok(()));
        assert!(set(29, Downgrade::Refused).unwrap_err().contains("Can't downgrade"));
        assert!(set(29, Downgrade::Allowed).unwrap_err().starts_with("Unsupported metadata.version downgrade from 30 to 29."));
        assert!(set(31, Downgrade::Refused).unwrap_err().contains("The broker supports 7-30."));
        assert!(set(6, Downgrade::Allowed).unwrap_err().contains("The broker supports 7-30."));
    }
}
