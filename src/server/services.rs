//! The services that handlers use.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::fetch_sessions::FetchSessions;
use super::limits::{Budgets, ServerLimits};
use super::metrics::ServerMetrics;
use super::visits::{AdvertisedAddress, Visit, Visits};
use crate::cluster::{ClusterHandle, ProducerIds, QuorumView};
use crate::coordinator::{GroupCoordinator, TransactionCoordinator};
use crate::env::Env;
use crate::partition::{Kind, Partitions, Replica};

/// The address that is advertised to the clients of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertised {
    /// A configured address.
    Address(String, u16),
    /// The address at which the client reached the broker: correct unless there is address translation in between.
    AsReached,
    /// The same, but `localhost` is advertised to clients that connect from this gateway: in a container these are the host's clients, which connect
    /// through a published port, usually with the same port number.
    AsReachedBehind(IpAddr),
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, as in `listeners`.
    pub name: String,
    /// The address that is advertised to its clients.
    pub advertised: Advertised,
}

/// The source of a setting's value; the number is the one of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// A topic's own value.
    Topic = 1,
    /// Set dynamically for this broker.
    DynamicBroker = 2,
    /// Set dynamically for all brokers.
    DynamicDefault = 3,
    /// From a file, the environment or a flag.
    Static = 4,
    /// The default; the setting was not set.
    Default = 5,
}

/// A broker setting as DescribeConfigs returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// The value with which the broker was started.
    pub value: Option<String>,
    /// The value if neither file, environment nor flags set it.
    pub default: Option<String>,
    /// Its type.
    pub kind: Kind,
    /// The source of its value.
    pub source: SettingSource,
    /// A description in one sentence.
    pub doc: &'static str,
}

/// Settings of the server; names are Kafka's.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: i32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// All broker settings, for DescribeConfigs.
    pub broker: Vec<BrokerSetting>,
    /// Limits.
    pub limits: ServerLimits,
}

/// The rooms below.
pub struct Rooms {
    /// Metadata.
    pub cluster: ClusterHandle,
    /// The voters of the metadata.
    pub quorum: QuorumView,
    /// The replicas.
    pub partitions: Arc<Partitions>,
    /// Groups.
    pub groups: Arc<GroupCoordinator>,
    /// Transactions.
    pub transactions: Arc<TransactionCoordinator>,
    /// Producer ids.
    pub producer_ids: Arc<ProducerIds>,
}

/// See [`Services::before_deletion`].
pub type BeforeDeletion = Box<dyn Fn(&Replica) + Send + Sync>;

/// The rooms below, as the handlers use them.
pub struct Services {
    /// Clock, disk and other access to the outside.
    pub env: Env,
    /// This broker's id.
    pub node_id: i32,
    /// The cluster's id.
    pub cluster_id: String,
    /// Metadata.
    pub cluster: ClusterHandle,
    /// The voters of the metadata.
    pub quorum: QuorumView,
    /// The replicas.
    pub partitions: Arc<Partitions>,
    /// Groups.
    pub groups: Arc<GroupCoordinator>,
    /// Transactions.
    pub transactions: Arc<TransactionCoordinator>,
    /// Producer ids.
    pub producer_ids: Arc<ProducerIds>,
    /// Settings.
    pub settings: ServerSettings,
    /// Findings about recent connections.
    pub visits: Arc<Visits>,
    pub(super) metrics: ServerMetrics,
    /// Called with each replica of a topic before a client's request deletes it; may block for a short time.
    pub before_deletion: OnceLock<BeforeDeletion>,
    pub(super) sessions: FetchSessions,
    pub(super) budgets: Budgets,
    /// Set once the log reported that replication factors are lowered.
    pub(super) clamping_said: AtomicBool,
}

impl Services {
    /// `max.connections`, which can change while the broker runs.
    pub(super) fn connections_max(&self) -> usize {
        let changed = self.cluster.image().broker_setting(self.node_id, "max.connections").and_then(|text| text.trim().parse().ok());
        changed.unwrap_or(self.settings.limits.connections_max)
    }

    /// Creates the services.
    pub fn new(
        env: Env,
        node_id: i32,
        cluster_id: String,
        rooms: Rooms,
        settings: ServerSettings,
        metrics: ServerMetrics,
    ) -> Arc<Services> {
        let Rooms { cluster, quorum, partitions, groups, transactions, producer_ids } = rooms;
        let sessions = FetchSessions::new(settings.fetch_sessions_max);
        let budgets = Budgets::of(&settings.limits);
        Arc::new(Services {
            env,
            node_id,
            cluster_id,
            cluster,
            quorum,
            partitions,
            groups,
            transactions,
            producer_ids,
            settings,
            visits: Arc::default(),
            metrics,
            before_deletion: OnceLock::new(),
            sessions,
            budgets,
            clamping_said: AtomicBool::new(false),
        })
    }
}

/// The client and connection of a request.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) services: Arc<Services>,
    pub(super) endpoint: Arc<Endpoint>,
    /// The local address that the client reached.
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) visit: Arc<Visit>,
}

impl Caller {
    /// Host and port that are advertised to this client.
    pub(super) fn advertised(&self) -> (String, i32) {
        match &self.endpoint.advertised {
            Advertised::Address(host, port) => (host.clone(), i32::from(*port)),
            Advertised::AsReachedBehind(gateway) if self.peer.ip().to_canonical() == *gateway => {
                ("localhost".into(), i32::from(self.local.port()))
            }
            Advertised::AsReached | Advertised::AsReachedBehind(_) => {
                (self.local.ip().to_canonical().to_string(), i32::from(self.local.port()))
            }
        }
    }

    /// The advertised address, as text for people.
    pub(super) fn advertised_address(&self) -> AdvertisedAddress {
        let (host, port) = self.advertised();
        AdvertisedAddress { listener: self.endpoint.name.clone(), address: format!("{host}:{port}") }
    }
}
