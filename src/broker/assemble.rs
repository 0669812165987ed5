//! Starts, runs and stops a broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, error, info, warn};

use super::directories::open_directories;
use super::dynamic::Dynamic;
use super::maintenance::{commit, compact, maintain};
use super::seeding::{Seeded, write_seed};
use super::tails::DeletedTails;
use super::taken::{self, TakenPorts};
use super::telemetry::metrics_recorder;
use super::{Config, Error, Seed};
use crate::client::Connection;
use crate::cluster::{self, ClusterHandle, Following, ProducerIds, QuorumLog, Registration};
use crate::coordinator::{
    ClusterMetadata, GroupCoordinator, NewProducerIds, OFFSETS_TOPIC, Pending, TRANSACTIONS_TOPIC, TransactionCoordinator,
};
use crate::env::{Env, FailStop, Listener, Tasks, container_gateway};
use crate::http::{self, AllowedHosts, Pages};
use crate::model::{ProducerId, TopicPartition};
use crate::partition::{Keeping, Partitions};
use crate::protocol::ErrorCode;
use crate::protocol::generated::cluster_metadata::BrokerEndpoint;
use crate::server::{self, Endpoint, Rooms, ServerMetrics, Services};
use crate::storage::{self, Software, Start};

/// The maximum number of open segment files, if the broker's limit of open files is at least twice as high.
const FILES_MAX: usize = 10_000;
/// The deadline for each part of a broker to stop by itself. Connections need 2 s at most.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The deadline for tasks that were aborted.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);
/// The buffer size of the connection between the broker and itself that seeds it.
const SEED_PIPE_BYTES: usize = 64 << 10;
/// How often observations are sorted into the buckets of histograms.
const HISTOGRAMS_EVERY: Duration = Duration::from_secs(5);

/// A running broker. Several can run in one process, each with its own environment, directories, ports and metrics. A broken invariant stops only the
/// broker in which it is found, and a failed disk takes only its own directories offline.
pub struct Broker {
    listeners: Vec<(String, SocketAddr)>,
    advertised: Vec<(String, String)>,
    http: SocketAddr,
    stop: CancellationToken,
    fail_stop: FailStop,
    tasks: Tasks,
    pub(super) env: Env,
    pub(super) partitions: Arc<Partitions>,
    pub(super) groups: Arc<GroupCoordinator>,
    pub(super) deleted: Arc<DeletedTails>,
    controller: Tasks,
    /// Run for as long as a request may wait for a commit, until `commits_end` is dropped.
    committing: Tasks,
    commits_end: DropGuard,
}

impl Broker {
    /// Starts a broker; when this returns, clients are served. All its tasks inherit the span of its log lines.
    pub async fn start(config: Config, env: Env) -> Result<Broker, Error> {
        let span = env.log_span.clone();
        Broker::start_in_span(config, env).instrument(span).await
    }

    async fn start_in_span(config: Config, env: Env) -> Result<Broker, Error> {
        // Ports first: opening a directory changes it, and `reset` deletes its contents.
        let (bound, http_listener) = bind(&config, &env).await?;
        let (directories, lost) = match open_directories(&config, &env) {
            Err(Error::Storage(storage::Error::Locked(_))) => return Err(taken::error(&config, &env, &TakenPorts::default()).await),
            opened => opened?,
        };
        let (cluster_id, metadata_path) = (directories[0].cluster_id.clone(), directories[0].path().to_path_buf());
        let (made_by, is_fresh) = (directories[0].made_by, directories[0].start == Start::Fresh);
        let log_dirs = directories.iter().filter_map(|directory| directory.id).collect();
        let stop = CancellationToken::new();
        let fail_stop = FailStop::new(stop.clone());
        let (tasks, commits_end) = (Tasks::new(fail_stop.clone()), CancellationToken::new());
        let (log, committed) = match made_by {
            Software::Dlog => QuorumLog::open(&env, tasks.another(), &metadata_path, config.node_id).await?,
            Software::Kafka => QuorumLog::open_beside_kafka(&env, tasks.another(), &metadata_path, config.node_id).await?,
        };
        let quorum = log.view();
        let files_max = env.open_files_max.map_or(FILES_MAX, |limit| limit as usize / 2).min(FILES_MAX) / directories.len();
        let keeping = Keeping { durability: config.durability, files_max };
        let partitions = Arc::new(Partitions::new(env.clone(), directories, lost, keeping));
        let committers = partitions.committers().into_iter();
        let committing = tasks.another();
        committers.for_each(|at| {
            committing.spawn("commit", commit(partitions.clone(), env.workers.clone(), at, commits_end.clone()));
        });
        let commits_end = commits_end.drop_guard();
        let node = config.node_id.0;
        let (endpoints, rack) = (bound.iter().filter_map(registered).collect(), config.server.rack.clone());
        let registration = Registration { id: node, incarnation: env.entropy.uuid(), endpoints, rack, log_dirs };
        let following = Following { partitions: partitions.clone(), workers: env.workers.clone(), broker: node, tasks: tasks.clone() };
        let (handle, controller) = cluster::start(Box::new(log), committed, config.controller.clone(), following, registration).await?;
        let cluster = handle.clone();
        let mut group_settings = config.groups.clone();
        if let Some(topic) = cluster.image().topic(OFFSETS_TOPIC) {
            // The number of partitions that the topic was created with determines the partition of each group.
            group_settings.partitions = topic.partitions.len() as i32;
        }
        let mut transaction_settings = config.transactions.clone();
        if let Some(topic) = cluster.image().topic(TRANSACTIONS_TOPIC) {
            transaction_settings.partitions = topic.partitions.len() as i32;
        }
        let groups = GroupCoordinator::new(env.clone(), partitions.clone(), group_settings);
        let producer_ids = Arc::new(ProducerIds::new(handle.clone(), node));
        let ids = Box::new(IdsOfCluster(producer_ids.clone()));
        let dynamic = Dynamic::of(handle.clone(), node);
        let topics = Box::new(MetadataOfCluster(handle.clone(), dynamic.clone()));
        let transactions =
            TransactionCoordinator::new(env.clone(), partitions.clone(), groups.clone(), ids, topics, transaction_settings, tasks.clone());
        let rooms = Rooms {
            cluster: handle,
            quorum,
            partitions: partitions.clone(),
            groups: groups.clone(),
            transactions: transactions.clone(),
            producer_ids,
        };
        let recorder = metrics_recorder();
        let services = Services::new(env.clone(), node, cluster_id, rooms, config.server.clone(), ServerMetrics::new(&recorder));
        let counted = recorder.handle();
        let deleted = Arc::<DeletedTails>::default();
        if config.keep_deleted {
            let deleted = deleted.clone();
            // Nothing else sets it.
            let _ = services.before_deletion.set(Box::new(move |replica| deleted.remember(replica)));
        }

        let loading = (groups.clone(), transactions.clone());
        let workers = env.workers.clone();
        let loaded = tasks.spawn("loading", async move {
            let load = move || {
                loading.0.load();
                loading.1.load();
                loading.1.abort_orphans();
            };
            workers.blocking(load).await
        });
        tasks.spawn("groups", groups.clone().run(stop.clone()));
        tasks.spawn("transactions", transactions.run(stop.clone()));
        tasks.spawn("metrics", empty_histograms(counted.clone(), stop.clone()));
        tasks.spawn("maintenance", maintain(partitions.clone(), env.workers.clone(), config.clone(), dynamic.clone(), stop.clone()));
        if let Some(cleaner) = &config.cleaner {
            tasks.spawn("compaction", compact(partitions.clone(), env.clone(), cleaner.clone(), dynamic.clone(), stop.clone()));
        }
        seed_broker(&services, &config, loaded, &stop).await.inspect_err(|_| stop.cancel())?;
        let (mut listeners, mut advertised) = (Vec::new(), Vec::new());
        for (listener, endpoint) in bound {
            if let server::Advertised::Address(host, port) = &endpoint.advertised {
                advertised.push((endpoint.name.clone(), format!("{host}:{port}")));
            }
            listeners.push((endpoint.name.clone(), listener.local_address().map_err(|e| Error::Close(e.to_string()))?));
            tasks.spawn("a listener", server::serve(listener, endpoint, services.clone(), stop.clone(), tasks.clone()));
        }
        if !is_fresh {
            services.visits.expect_old_clients(tokio::time::Instant::now());
        }
        tasks.spawn("visits", services.visits.clone().watch(stop.clone()));
        let ready = Arc::new(AtomicBool::new(true));
        let http = http_listener.local_address().map_err(|e| Error::Close(e.to_string()))?;
        let hosts = allowed_hosts(&config, &advertised);
        let pages = Pages {
            ready,
            counted,
            node_id: node,
            cluster_id: services.cluster_id.clone(),
            listeners: listeners.clone().into(),
            advertised: advertised.clone().into(),
            http,
            visits: services.visits.clone(),
            cluster,
            partitions: partitions.clone(),
            groups: groups.clone(),
            clock: env.clock.clone(),
            hosts,
        };
        let not_ready = pages.ready.clone();
        let (http_stop, stopping) = (stop.clone(), stop.clone());
        tasks.spawn("HTTP", async move {
            if let Err(error) = http::serve(http_listener, pages, http_stop).await {
                error!(%error, "HTTP stopped");
            }
        });
        tasks.spawn("readiness", async move {
            stopping.cancelled().await;
            not_ready.store(false, Ordering::Release);
        });
        Ok(Broker {
            listeners,
            advertised,
            http,
            stop,
            fail_stop,
            tasks,
            env,
            partitions,
            groups,
            deleted,
            controller,
            committing,
            commits_end,
        })
    }

    /// Names and addresses of the listeners, as they were bound.
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// Names and advertised addresses (`host:port`) of the listeners that have a configured address.
    pub fn advertised(&self) -> &[(String, String)] {
        &self.advertised
    }

    /// The address on which HTTP is served.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Waits until the broker has stopped by itself because of a broken invariant, and returns the reason. [`Broker::stop`] must still be called.
    pub async fn failed(&self) -> String {
        self.fail_stop.failed().await
    }

    /// Stops: accepts no more connections, sends the pending responses, and closes the logs. Parts that do not end by themselves are aborted. The logs
    /// of a failed broker are left as they are.
    pub async fn stop(self) -> Result<(), Error> {
        let span = self.env.log_span.clone();
        self.stop_in_span().instrument(span).await
    }

    async fn stop_in_span(self) -> Result<(), Error> {
        self.stop.cancel();
        drop(self.groups);
        // In this order: commits end after the last request that may wait for one, and the last task drops the last handle of the controller, which
        // then closes the metadata log.
        let mut is_quiet = end("connections and tasks", &self.tasks).await != End::Never;
        drop(self.commits_end);
        is_quiet &= end("commits", &self.committing).await != End::Never;
        // A controller that was aborted has not closed the metadata log.
        is_quiet &= end("the controller", &self.controller).await == End::ByItself;
        // A failure is the cause of whatever else went wrong.
        if let Some(reason) = self.fail_stop.reason() {
            return Err(Error::Failed(reason.to_string()));
        }
        // The work of an aborted task on a blocking thread goes on.
        is_quiet &= tokio::time::timeout(STOP_PATIENCE, self.env.workers.idle()).await.is_ok();
        let partitions = self.partitions;
        if !is_quiet {
            // A thread that did not end may hold a lock that closing waits for.
            let closing = self.env.workers.blocking(move || partitions.close_unmarked());
            let outcome = tokio::time::timeout(STOP_PATIENCE, closing).await;
            warn!(?outcome, "the logs are closed while something may still be at work on them");
            return Err(Error::Close("a part of the broker did not end in time".into()));
        }
        let closed = self.env.workers.blocking(move || partitions.close()).await;
        closed.map_err(|e| Error::Close(e.to_string()))?.map_err(|e| Error::Close(e.to_string()))
    }
}

/// How tasks have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ByItself,
    Aborted,
    /// They hold a thread.
    Never,
}

/// Waits until tasks have ended, and aborts them if they do not end by themselves.
async fn end(what: &'static str, tasks: &Tasks) -> End {
    if tokio::time::timeout(STOP_PATIENCE, tasks.ended()).await.is_ok() {
        return End::ByItself;
    }
    warn!(part = what, "a part of the broker did not end in time and is aborted");
    tasks.abort();
    if tokio::time::timeout(ABORT_PATIENCE, tasks.ended()).await.is_ok() { End::Aborted } else { End::Never }
}

/// Producer ids from the cluster's controller.
struct IdsOfCluster(Arc<ProducerIds>);

impl NewProducerIds for IdsOfCluster {
    fn next(&self) -> Pending<'_, ProducerId> {
        Box::pin(async {
            self.0.next().await.map_err(|error| {
                error!(%error, "a producer id could not be allocated");
                ErrorCode::CoordinatorNotAvailable
            })
        })
    }
}

/// Partitions and settings in the cluster's metadata. The image is up to date as long as this broker is the only controller.
struct MetadataOfCluster(ClusterHandle, Dynamic);

impl ClusterMetadata for MetadataOfCluster {
    fn is_deleted(&self, partition: &TopicPartition) -> bool {
        let image = self.0.image();
        let count = image.topic(&partition.topic).map_or(0, |topic| topic.partitions.len());
        !usize::try_from(partition.partition).is_ok_and(|number| number < count)
    }

    fn verify_partitions(&self) -> Option<bool> {
        self.1.value("transaction.partition.verification.enable")
    }
}

/// Seeds the broker before clients are served.
async fn seed_broker<T>(services: &Arc<Services>, config: &Config, loaded: JoinHandle<T>, stop: &CancellationToken) -> Result<(), Error> {
    if config.seed == Seed::default() {
        return Ok(());
    }
    // A failed load is logged by the coordinator, and its groups then return an error here.
    let _ = loaded.await;
    let (ours, theirs) = tokio::io::duplex(SEED_PIPE_BYTES);
    let endpoint = Endpoint { name: "seed".into(), advertised: server::Advertised::AsReached };
    let serving = server::serve_stream(Box::new(theirs), endpoint, services.clone(), stop.clone());
    let (env, client) = (&services.env, Connection::over(ours, "dlog-seed"));
    let seeding = async { write_seed(&config.seed, &*env.disk, env.clock.wall_ms(), client).await };
    let (seeded, ()) = tokio::join!(seeding, serving);
    let Seeded { topics, records, offsets } = seeded?;
    info!(topics, records, offsets, "seeded");
    Ok(())
}

/// Binds all addresses before anything else is done: a port that is in use is reported at once, together with all others.
async fn bind(config: &Config, env: &Env) -> Result<(Vec<(Listener, Endpoint)>, Listener), Error> {
    let one = async |host: &str, port: u16, flag: &'static str| match env.network.bind(host, port).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if source.kind() == std::io::ErrorKind::AddrInUse => Ok(None),
        Err(source) => Err(Error::Bind { address: format!("{host}:{port}"), flag, source }),
    };
    let gateway = container_gateway();
    let (mut bound, mut others) = (Vec::new(), TakenPorts::default());
    for (at, listener) in config.listeners.iter().enumerate() {
        let mut endpoint = listener.endpoint.clone();
        let Some(own) = one(&listener.host, listener.port, "listen").await? else {
            others.listeners.push(at);
            continue;
        };
        if let (server::Advertised::Address(host, 0), Ok(address)) = (&endpoint.advertised, own.local_address()) {
            endpoint.advertised = server::Advertised::Address(host.clone(), address.port());
        }
        if let (server::Advertised::AsReached, Some(gateway)) = (&endpoint.advertised, gateway) {
            endpoint.advertised = server::Advertised::AsReachedBehind(gateway);
        }
        bound.push((own, endpoint));
    }
    let http = one(&config.http.0, config.http.1, "http").await?;
    others.http = http.is_none();
    match http {
        Some(http) if others.is_empty() => Ok((bound, http)),
        _ => Err(taken::error(config, env, &others).await),
    }
}

/// A listener's address in the cluster's metadata: the advertised address, or the bound one if each client gets the address that it connected to.
fn registered((listener, endpoint): &(Listener, Endpoint)) -> Option<BrokerEndpoint> {
    let (host, port) = match &endpoint.advertised {
        server::Advertised::Address(host, port) => (host.clone(), *port),
        server::Advertised::AsReached | server::Advertised::AsReachedBehind(_) => {
            let bound = listener.local_address().ok()?;
            (bound.ip().to_string(), bound.port())
        }
    };
    // Security protocol 0 is PLAINTEXT, the only one that is served.
    Some(BrokerEndpoint { name: endpoint.name.clone(), host, port, security_protocol: 0 })
}

/// Host names that HTTP requests may use: those of the advertised addresses, and those in `http.allowed.hosts`.
fn allowed_hosts(config: &Config, advertised: &[(String, String)]) -> AllowedHosts {
    let host = |(_, address): &(String, String)| address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.to_string());
    AllowedHosts::new(advertised.iter().map(host).chain(config.http_hosts.iter().cloned()))
}

/// Observations are kept in a list until they are sorted into buckets; without this, the list would grow if no client reads the metrics.
async fn empty_histograms(counted: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(HISTOGRAMS_EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        counted.run_upkeep();
    }
}
