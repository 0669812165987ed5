//! What handlers work with.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::fetch_sessions::FetchSessions;
use super::limits::{Budgets, ServerLimits};
use super::metrics::ServerMetrics;
use super::visits::{Told, Visit, Visits};
use crate::cluster::{ClusterHandle, ProducerIds};
use crate::coordinator::{GroupCoordinator, TransactionCoordinator};
use crate::env::Env;
use crate::partition::{Kind, Partitions, Replica};

/// What clients of a listener are told to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertised {
    /// A configured address.
    Address(String, u16),
    /// The address that the client has reached us at: right wherever there is no address translation in between.
    AsReached,
    /// The same, but clients that come from this gateway are told `localhost`: in a container those are the host's, which came through a port that it
    /// publishes, under the same number if all is as usual.
    AsReachedBehind(IpAddr),
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, as in `listeners`.
    pub name: String,
    /// What its clients are told.
    pub advertised: Advertised,
}

/// Where a setting's value comes from; the number is that of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// A topic's own.
    Topic = 1,
    /// This broker's, changed while it ran.
    DynamicBroker = 2,
    /// All brokers', changed while they ran.
    DynamicDefault = 3,
    /// File, environment or flag.
    Static = 4,
    /// Nobody set it.
    Default = 5,
}

/// A broker setting as DescribeConfigs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// The value that the broker was started with.
    pub value: Option<String>,
    /// The value without file, environment and flags.
    pub default: Option<String>,
    /// Its type.
    pub kind: Kind,
    /// Where it comes from.
    pub source: SettingSource,
    /// One sentence.
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

/// The rooms below, as the handlers see them.
pub struct Services {
    /// The world.
    pub env: Env,
    /// Our id.
    pub node_id: i32,
    /// The cluster's id.
    pub cluster_id: String,
    /// Metadata.
    pub cluster: ClusterHandle,
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
    /// What recent connections did.
    pub visits: Arc<Visits>,
    pub(super) metrics: ServerMetrics,
    /// Called with each replica of a topic that a client is about to delete; it may block for a short time.
    pub before_deletion: OnceLock<BeforeDeletion>,
    pub(super) sessions: FetchSessions,
    pub(super) budgets: Budgets,
    /// Set once it was said that replication factors are lowered.
    pub(super) clamping_said: AtomicBool,
}

impl Services {
    /// Puts the rooms together.
    pub fn new(
        env: Env,
        node_id: i32,
        cluster_id: String,
        rooms: Rooms,
        settings: ServerSettings,
        metrics: ServerMetrics,
    ) -> Arc<Services> {
        let Rooms { cluster, partitions, groups, transactions, producer_ids } = rooms;
        let sessions = FetchSessions::new(settings.fetch_sessions_max);
        let budgets = Budgets::of(&settings.limits);
        Arc::new(Services {
            env,
            node_id,
            cluster_id,
            cluster,
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

/// Who sent a request, and over what.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) services: Arc<Services>,
    pub(super) endpoint: Arc<Endpoint>,
    /// The address that the client reached.
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) visit: Arc<Visit>,
}

impl Caller {
    /// Host and port that this client is told to connect to.
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

    /// The same, for people.
    pub(super) fn told(&self) -> Told {
        let (host, port) = self.advertised();
        Told { listener: self.endpoint.name.clone(), address: format!("{host}:{port}") }
    }
}
