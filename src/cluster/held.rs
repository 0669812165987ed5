//! Metadata that is stored for Kafka's clients and tools and that this broker does not enforce: access control entries, credentials, tokens,
//! quotas, and settings of resources other than topics and brokers. Snapshots and the takeover of a Kafka directory preserve all of it.

use std::collections::BTreeMap;

use super::MetadataRecord;
use super::image::{config_records, set};
use crate::model::Uuid;
use crate::protocol::generated::cluster_metadata::{
    AccessControlEntryRecord, ClientQuotaRecord, ConfigRecord, DelegationTokenRecord, UserScramCredentialRecord, ZkMigrationStateRecord,
};

/// The entity of a quota: types with their names, or null for the default of a type.
type QuotaEntity = Vec<(String, Option<String>)>;

/// Records that are still in effect, by their key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    acls: BTreeMap<Uuid, AccessControlEntryRecord>,
    credentials: BTreeMap<(String, i8), UserScramCredentialRecord>,
    tokens: BTreeMap<String, DelegationTokenRecord>,
    quotas: BTreeMap<(QuotaEntity, String), ClientQuotaRecord>,
    /// By type and name of the resource: client metrics (16), groups (32).
    configs: BTreeMap<(i8, String), BTreeMap<String, String>>,
    zk_migration: Option<i8>,
}

impl Held {
    /// Applies a record of these types; other types are ignored.
    pub(super) fn apply(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::AccessControlEntry(entry) => drop(self.acls.insert(entry.id, entry.clone())),
            MetadataRecord::RemoveAccessControlEntry(entry) => drop(self.acls.remove(&entry.id)),
            MetadataRecord::UserScramCredential(credential) => {
                self.credentials.insert((credential.name.clone(), credential.mechanism), credential.clone());
            }
            MetadataRecord::RemoveUserScramCredential(removed) => {
                self.credentials.remove(&(removed.name.clone(), removed.mechanism));
            }
            MetadataRecord::DelegationToken(token) => drop(self.tokens.insert(token.token_id.clone(), token.clone())),
            MetadataRecord::RemoveDelegationToken(token) => drop(self.tokens.remove(&token.token_id)),
            MetadataRecord::ClientQuota(quota) => self.set_quota(quota),
            MetadataRecord::ZkMigrationState(state) => self.zk_migration = Some(state.zk_migration_state),
            _ => {}
        }
    }

    fn set_quota(&mut self, quota: &ClientQuotaRecord) {
        let mut entity: QuotaEntity = quota.entity.iter().map(|e| (e.entity_type.clone(), e.entity_name.clone())).collect();
        entity.sort();
        let key = (entity, quota.key.clone());
        if quota.remove { drop(self.quotas.remove(&key)) } else { drop(self.quotas.insert(key, quota.clone())) }
    }

    /// Sets or removes a setting of a resource.
    pub(super) fn configure(&mut self, config: &ConfigRecord) {
        let key = (config.resource_type, config.resource_name.clone());
        let configs = self.configs.entry(key.clone()).or_default();
        set(configs, config);
        if configs.is_empty() {
            self.configs.remove(&key);
        }
    }

    /// Records that rebuild the same state from an empty one.
    pub(super) fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records: Vec<MetadataRecord> = self.acls.values().cloned().map(MetadataRecord::AccessControlEntry).collect();
        records.extend(self.credentials.values().cloned().map(MetadataRecord::UserScramCredential));
        records.extend(self.tokens.values().cloned().map(MetadataRecord::DelegationToken));
        records.extend(self.quotas.values().cloned().map(MetadataRecord::ClientQuota));
        records.extend(self.configs.iter().flat_map(|((kind, name), configs)| config_records(*kind, name, configs)));
        let state = |zk_migration_state| MetadataRecord::ZkMigrationState(ZkMigrationStateRecord { zk_migration_state });
        records.extend(self.zk_migration.map(state));
        records
    }

    /// What is stored, as text for people, each with its count.
    pub fn kinds(&self) -> Vec<(&'static str, usize)> {
        let kinds = [
            ("access control entries", self.acls.len()),
            ("SCRAM credentials", self.credentials.len()),
            ("delegation tokens", self.tokens.len()),
            ("quotas", self.quotas.len()),
            ("settings of groups and client metrics", self.configs.len()),
        ];
        kinds.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}
