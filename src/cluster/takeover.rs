//! Takes over the metadata of a one-node cluster from the log of Apache Kafka's controller. That log is only read.
//!
//! Metadata that is not enforced here (access control lists, quotas, SCRAM credentials, tokens, settings of groups) is kept in the image and
//! listed in a warning. Kafka's metadata transactions (KIP-866) are applied as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;

use super::batches::{SNAPSHOT_SUFFIX, batches_of_file, snapshot_place};
use super::image::TOPIC_RESOURCE;
use super::partition_image::{SAME_LEADER, UNASSIGNED_DIRECTORY};
use super::records::Framed;
use super::{Error, MetadataImage, MetadataRecord};
use crate::env::Disk;
use crate::model::{NodeId, Offset, Uuid};
use crate::protocol::generated::cluster_metadata::{
    ConfigRecord, FeatureLevelRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord, RemoveTopicRecord,
    TopicRecord,
};
use crate::protocol::{Message, decode_whole};
use crate::records::BatchHeader;

/// Kafka's record types that do not change the cluster for us: fencing, registrations and their changes, quorum, no-ops.
const WITHOUT_MEANING: &[i16] = &[1, 7, 8, 17, 20, 21, 27, 28, 29];
/// Kafka's record types that are kept unchanged: access control entries, tokens, credentials, quotas.
const HELD: &[i16] = &[10, 11, 14, 18, 19, 22, 26];
const BEGIN_TRANSACTION: i16 = 23;
const END_TRANSACTION: i16 = 24;
const ABORT_TRANSACTION: i16 = 25;
/// The content of Kafka's log.
#[derive(Debug)]
pub(super) struct TakenOver {
    /// The cluster's state, with all partitions led by the one node.
    pub(super) image: MetadataImage,
    /// Descriptions of what is not taken over.
    pub(super) left_behind: BTreeSet<String>,
    /// The offset of the next record that Kafka would write.
    pub(super) end: Offset,
}

/// Reads Kafka's metadata log in `directory`: the newest snapshot and the records after it.
pub(super) fn read(disk: &dyn Disk, directory: &Path, node: NodeId) -> Result<TakenOver, Error> {
    let names = disk.list(directory).map_err(|e| Error::Storage(e.to_string()))?;
    let mut state = State::default();
    let mut end = Offset(0);
    let snapshot = names.iter().filter(|n| n.ends_with(SNAPSHOT_SUFFIX)).filter_map(|n| snapshot_place(n));
    if let Some((name, offset, _)) = snapshot.max_by_key(|(_, offset, epoch)| (*offset, *epoch)) {
        batches_of_file(disk, &directory.join(name), |header, batch| state.batch(header, batch))?;
        end = offset;
    }
    for name in names.iter().filter(|n| n.ends_with(".log")) {
        batches_of_file(disk, &directory.join(name), |header, batch| {
            if header.next_offset() <= end {
                return Ok(());
            }
            end = header.next_offset();
            state.batch(header, batch)
        })?;
    }
    if state.brokers.iter().any(|id| *id != node.0) {
        let others: Vec<String> = state.brokers.iter().map(i32::to_string).collect();
        return Err(Error::Storage(format!(
            "{} belongs to a cluster with the brokers {}: only the directory of a cluster with one broker can be migrated",
            directory.display(),
            others.join(", ")
        )));
    }
    let left_behind = std::mem::take(&mut state.left_behind);
    Ok(TakenOver { image: state.image(node), left_behind, end })
}

/// The offset after the last complete batch of Kafka's log; none if there is no log.
pub(super) fn end(disk: &dyn Disk, directory: &Path) -> Result<Offset, Error> {
    let names = disk.list(directory).map_err(|e| Error::Storage(e.to_string()))?;
    let mut end = Offset(0);
    if let Some(last) = names.iter().rfind(|n| n.ends_with(".log")) {
        batches_of_file(disk, &directory.join(last), |header, _| {
            end = header.next_offset();
            Ok(())
        })?;
    }
    Ok(end)
}

/// The result of the records.
#[derive(Debug, Default)]
struct State {
    brokers: BTreeSet<i32>,
    topics: BTreeMap<Uuid, TopicRecord>,
    partitions: BTreeMap<(Uuid, i32), PartitionRecord>,
    configs: BTreeMap<(i8, String, String), ConfigRecord>,
    features: BTreeMap<String, FeatureLevelRecord>,
    producer_ids: Option<ProducerIdsRecord>,
    held: Vec<MetadataRecord>,
    left_behind: BTreeSet<String>,
    /// Records of a transaction that has not ended.
    open: Option<Vec<Framed>>,
}

impl State {
    fn batch(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), Error> {
        if header.is_control() {
            return Ok(());
        }
        let malformed = |what: String| Error::Storage(format!("Kafka's metadata log at offset {}: {what}", header.base_offset));
        let opened = header.open(batch, usize::MAX).map_err(|e| malformed(e.to_string()))?;
        for record in opened.records() {
            let record = record.map_err(|e| malformed(e.to_string()))?;
            let value = record.value.ok_or_else(|| malformed("a record without a value".into()))?;
            self.record(Framed::read(Bytes::copy_from_slice(value)).map_err(malformed)?).map_err(malformed)?;
        }
        Ok(())
    }

    fn record(&mut self, record: Framed) -> Result<(), String> {
        match (record.type_id, &mut self.open) {
            (BEGIN_TRANSACTION, open) => *open = Some(Vec::new()),
            (ABORT_TRANSACTION, open) => *open = None,
            (END_TRANSACTION, open) => {
                for record in open.take().unwrap_or_default() {
                    self.apply(record)?;
                }
            }
            (_, Some(open)) => open.push(record),
            (_, None) => self.apply(record)?,
        }
        Ok(())
    }

    fn apply(&mut self, record: Framed) -> Result<(), String> {
        match Some(record.type_id) {
            RegisterBrokerRecord::TYPE_ID => {
                self.brokers.insert(decode::<RegisterBrokerRecord>(&record)?.broker_id);
            }
            TopicRecord::TYPE_ID => {
                let topic: TopicRecord = decode(&record)?;
                self.topics.insert(topic.topic_id, topic);
            }
            PartitionRecord::TYPE_ID => {
                let partition: PartitionRecord = decode(&record)?;
                self.partitions.insert((partition.topic_id, partition.partition_id), partition);
            }
            PartitionChangeRecord::TYPE_ID => self.change(&decode(&record)?),
            ConfigRecord::TYPE_ID => self.configure(decode(&record)?),
            RemoveTopicRecord::TYPE_ID => self.remove(decode::<RemoveTopicRecord>(&record)?.topic_id),
            FeatureLevelRecord::TYPE_ID => {
                let feature: FeatureLevelRecord = decode(&record)?;
                self.features.insert(feature.name.clone(), feature);
            }
            ProducerIdsRecord::TYPE_ID => self.producer_ids = Some(decode(&record)?),
            _ if WITHOUT_MEANING.contains(&record.type_id) => {}
            _ if HELD.contains(&record.type_id) => self.held.push(record.decode()?),
            _ => drop(self.left_behind.insert(format!("records of type {}", record.type_id))),
        }
        Ok(())
    }

    /// Every change of the leader, even to the same broker, starts a new epoch.
    fn change(&mut self, change: &PartitionChangeRecord) {
        let Some(partition) = self.partitions.get_mut(&(change.topic_id, change.partition_id)) else { return };
        partition.partition_epoch += 1;
        if change.leader != SAME_LEADER {
            partition.leader_epoch += 1;
        }
        if let Some(replicas) = &change.replicas {
            partition.replicas = replicas.clone();
        }
    }

    fn configure(&mut self, config: ConfigRecord) {
        let key = (config.resource_type, config.resource_name.clone(), config.name.clone());
        match config.value {
            Some(_) => self.configs.insert(key, config),
            None => self.configs.remove(&key),
        };
    }

    fn remove(&mut self, topic: Uuid) {
        let Some(removed) = self.topics.remove(&topic) else { return };
        self.partitions.retain(|(id, _), _| *id != topic);
        self.configs.retain(|(kind, name, _), _| *kind != TOPIC_RESOURCE || *name != removed.name);
    }

    /// The image of this state. The single node leads every partition, also those that Kafka left without a leader when it stopped.
    fn image(self, node: NodeId) -> MetadataImage {
        let mut image = MetadataImage::default();
        let alone = |partition: PartitionRecord| PartitionRecord {
            replicas: vec![node.0],
            isr: vec![node.0],
            leader: node.0,
            directories: vec![UNASSIGNED_DIRECTORY],
            leader_recovery_state: 0,
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            eligible_leader_replicas: None,
            last_known_elr: None,
            ..partition
        };
        let known: BTreeSet<Uuid> = self.topics.keys().copied().collect();
        let records = (self.topics.into_values().map(MetadataRecord::Topic))
            .chain(
                self.partitions
                    .into_values()
                    .filter(|p| known.contains(&p.topic_id))
                    .map(|partition| MetadataRecord::Partition(alone(partition))),
            )
            .chain(self.configs.into_values().map(MetadataRecord::Config))
            .chain(self.features.into_values().map(MetadataRecord::FeatureLevel))
            .chain(self.producer_ids.map(MetadataRecord::ProducerIds))
            .chain(self.held);
        records.for_each(|record| image.apply(&record));
        image
    }
}

fn decode<M: Message>(record: &Framed) -> Result<M, String> {
    if !(M::MIN_VERSION..=M::MAX_VERSION).contains(&record.version) {
        return Err(format!("{} version {} is unknown", M::NAME, record.version));
    }
    decode_whole(&record.body, record.version).map_err(|error| format!("{}: {error}", M::NAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::protocol::generated::cluster_metadata::*;
    use crate::records::{BatchBuilder, NewRecord};

    fn kafkas(records: &[MetadataRecord], raw: &[&'static [u8]]) -> Result<TakenOver, Error> {
        let folder = tempfile::tempdir().unwrap();
        let mut values: Vec<Bytes> = records.iter().map(MetadataRecord::encode).collect();
        values.extend(raw.iter().map(|bytes| Bytes::from_static(bytes)));
        let batch = values.iter().fold(BatchBuilder::new(), |builder, value| builder.record(NewRecord::value(value)));
        std::fs::write(folder.path().join("00000000000000000000.log"), batch.build(0)).unwrap();
        read(&*Env::real().disk, folder.path(), NodeId(1))
    }

    #[test]
    fn what_is_not_enforced_is_taken_over_and_kept() {
        let id = Uuid([3; 16]);
        let acl = |id| MetadataRecord::AccessControlEntry(AccessControlEntryRecord { id, ..Default::default() });
        let group = ConfigRecord { resource_type: 32, resource_name: "g".into(), name: "n".into(), value: Some("1".into()) };
        let records = [
            MetadataRecord::RegisterBroker(RegisterBrokerRecord { broker_id: 1, ..Default::default() }),
            acl(id),
            MetadataRecord::UserScramCredential(UserScramCredentialRecord { name: "u".into(), ..Default::default() }),
            MetadataRecord::DelegationToken(DelegationTokenRecord { token_id: "t".into(), ..Default::default() }),
            MetadataRecord::ClientQuota(ClientQuotaRecord { key: "k".into(), ..Default::default() }),
            MetadataRecord::Config(group),
            MetadataRecord::BeginTransaction(Default::default()),
            acl(Uuid([4; 16])),
            MetadataRecord::AbortTransaction(Default::default()),
        ];
        // Type 99 is not in any known version of Kafka.
        let taken = kafkas(&records, &[&[1, 99, 0]]).unwrap();
        let kinds: Vec<_> = taken.image.held().kinds().into_iter().map(|(_, count)| count).collect();
        assert_eq!(kinds, [1; 5], "{:?}", taken.image.held());
        assert_eq!(taken.left_behind, BTreeSet::from(["records of type 99".to_string()]));
        assert_eq!(taken.end, Offset(10));
        let mut restored = MetadataImage::default();
        taken.image.to_records().iter().for_each(|record| restored.apply(record));
        assert_eq!(restored.held(), taken.image.held());
    }

    #[test]
    fn partitions_are_led_alone_whatever_kafka_left() {
        let topic_id = Uuid([1; 16]);
        let partition = PartitionRecord {
            partition_id: 0,
            topic_id,
            replicas: vec![1, 2],
            isr: vec![2],
            leader: 2,
            leader_epoch: 4,
            partition_epoch: 6,
            eligible_leader_replicas: Some(vec![1]),
            adding_replicas: vec![2],
            ..Default::default()
        };
        let gone = PartitionChangeRecord { partition_id: 0, topic_id, leader: -1, isr: Some(vec![1]), ..Default::default() };
        let records = [
            MetadataRecord::Topic(TopicRecord { name: "t".into(), topic_id }),
            MetadataRecord::Partition(partition),
            MetadataRecord::PartitionChange(gone),
        ];
        let taken = kafkas(&records, &[]).unwrap();
        let partition = &taken.image.topic("t").unwrap().partitions[0];
        assert_eq!((partition.leader, partition.leader_epoch, partition.partition_epoch), (1, 5, 7));
        assert_eq!((partition.replicas.as_slice(), partition.isr.as_slice(), partition.elr.len()), (&[1][..], &[1][..], 0));
    }
}
