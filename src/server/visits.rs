//! Findings about recent connections, for `dlog doctor`: clients that requested the broker's address and never connected to it, members that try a
//! group protocol that is not served, and bytes that are not Kafka's protocol or not a served version of it.
//!
//! A broker sees only the connections that reach it. The following clients were observed with an advertised address that is not reachable:
//! kafka-python 3.0, aiokafka 0.14, librdkafka 2.0 (kcat) and 2.16 (confluent-kafka), and the Java clients 4.3:
//!
//! | client | on the bootstrap connection | then | rule |
//! |---|---|---|---|
//! | kafka-python, aiokafka | Metadata of no topics, closed at once | nothing | 3 |
//! | kcat -C | Metadata of a topic that it may not create, closed | nothing | 3 |
//! | librdkafka 2.0 | Metadata of topics or FindCoordinator, again every second | stays open | 1 |
//! | librdkafka 2.16 | Metadata or FindCoordinator, closed within a second | bootstraps again at once | 2 |
//! | Java | Metadata, once or several times a second | stays open | 1 |
//!
//! And with a correct address:
//!
//! | client | evidence that it reached the broker |
//! |---|---|
//! | any client that works | a request that is not in [`ASKING`], on any connection |
//! | an idle Java client | a second connection while the first is open |
//! | an idle kafka-python, librdkafka 2.16 | a connection after the first, which stays open |
//! | kcat -L, admin tools | they request all topics or the cluster, get the response, and disconnect |
//!
//! An aiokafka producer that has not sent anything yet cannot be distinguished from one that never reaches the broker; its first record decides. Rule
//! 1 applies to a client that asks once and stays connected only if it cannot be an idle client that reconnected after a restart: a client that has
//! not arrived before, at a broker whose directory was new or that has run for [`OLD_CLIENTS`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::dispatch::{Refusal, served};
use crate::protocol::ApiKey;

/// The maximum number of clients that are remembered; a new one replaces the one that was seen longest ago.
const CLIENTS_MAX: usize = 1000;
/// The maximum number of strangers (peer, listener, what it sent) that are remembered.
const STRANGERS_MAX: usize = 100;
/// The maximum number of open connections that are tracked for a client; further ones are ignored.
const OPEN_MAX: usize = 64;
/// How long a client may take from asking to arriving. All observed clients take milliseconds.
const ARRIVING: Duration = Duration::from_secs(5);
/// A client that bootstraps this often in succession does not reach the broker.
const VISITS_IN_VAIN: u32 = 3;
/// A longer pause between two bootstraps is normal for a tool or health check that runs every few seconds.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A client that keeps asking, with pauses of at most [`PAUSE_MAX`], this often and for this long, is waiting for something.
const ASKS_IN_VAIN: u32 = 4;
const ASKING_IN_VAIN: Duration = Duration::from_secs(3);
/// After this time all clients that knew the broker before its start have reconnected: clients refresh their metadata every 5 minutes.
const OLD_CLIENTS: Duration = Duration::from_secs(600);
/// Two connections that were open at the same time for this long are two connections and not one that replaces the other.
const BESIDE: Duration = Duration::from_secs(1);
/// How long a finding is kept after the client was last seen.
const FINDING_KEPT: Duration = Duration::from_secs(3600);
/// How often new findings are looked for and logged.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The prefix of the client ids of `dlog health` and `dlog doctor`, which are ignored here.
const OWN_TOOLS: &str = "dlog-";
/// The requests that a client may send to any broker before it connects to the advertised address.
const ASKING: [ApiKey; 5] =
    [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::DescribeCluster, ApiKey::FindCoordinator, ApiKey::InitProducerId];
/// Recent clients and strangers.
#[derive(Debug, Default)]
pub struct Visits {
    recent: Mutex<Recent>,
    /// The number of the next connection.
    connections: AtomicU64,
    /// How often the findings were cleared by [`Visits::clear`].
    clears: AtomicU64,
    /// Whether there may be seekers; without any, group requests and fetches need no lock.
    has_seekers: AtomicBool,
}

#[derive(Debug, Default)]
struct Recent {
    /// Until this time, clients may know the broker from before its start.
    old_clients_until: Option<Instant>,
    /// When each client last arrived.
    arrived: BTreeMap<(IpAddr, String), Instant>,
    clients: BTreeMap<(IpAddr, String), Client>,
    /// Clients that asked for a group's coordinator and are not known to send group requests.
    seekers: BTreeMap<(IpAddr, String), Seeker>,
    strangers: BTreeMap<(IpAddr, String, Sent), Seen>,
}

#[derive(Debug)]
struct Seeker {
    advertised: AdvertisedAddress,
    /// How often it asked for a group's coordinator.
    seen: Seen,
    /// Whether none of the topics in its last request exists, or it requests topics that match a pattern: librdkafka then does not join its group.
    misses_topics: bool,
    /// When it last began to fetch: an application that assigns partitions may ask for the coordinator later, and end before its next fetch.
    fetched: Option<Instant>,
    is_said: bool,
}

/// What a client did since it bootstrapped. The entry is removed when the client arrives.
#[derive(Debug)]
struct Client {
    advertised: AdvertisedAddress,
    seen: Seen,
    /// The connection that began the current attempt, and the number of successive visits; a pause without a connection ends an attempt.
    first_connection: u64,
    visits: u32,
    /// What was asked in this attempt, over all connections.
    asked: Asked,
    /// Open connections, by number.
    open: BTreeMap<u64, Open>,
    /// Whether another connection was opened while the first one was open.
    has_second: bool,
    closed: Option<Instant>,
    /// The requests since the last pause, and when the first of them was received.
    asks: u32,
    asks_since: Instant,
    /// Whether asking once and then staying silent is a finding too.
    is_new: bool,
    /// Whether it is a finding.
    is_lost: bool,
    is_said: bool,
}

/// An open connection.
#[derive(Debug)]
struct Open {
    since: Instant,
    /// The stage of its [`Visit`].
    stage: Arc<AtomicU8>,
}

/// What a client has asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Asked {
    /// Metadata of no topic.
    brokers: bool,
    /// Metadata of some topics, which may be created.
    topics: bool,
    /// Metadata of some topics, which may not be created.
    topics_to_read: bool,
    /// All topics, or the cluster, as tools do.
    listing: bool,
    /// A coordinator or a producer id, which no client needs alone.
    more: bool,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Metadata of no topic.
    Brokers,
    /// Metadata of some topics, which may be created.
    Topics,
    /// Metadata of some topics, which may not be created.
    TopicsToRead,
    /// All topics, or the cluster.
    Listing,
    /// The coordinator of a group.
    GroupCoordinator,
    /// Another coordinator, or a producer id.
    More,
}

/// How often something was seen, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The number of times.
    pub count: u32,
    /// The first time.
    pub first: Instant,
    /// The last time.
    pub last: Instant,
}

/// The address that was advertised to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedAddress {
    /// The listener that it asked.
    pub listener: String,
    /// `host:port`.
    pub address: String,
}

/// Why a client makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It asked for the broker's address and did not connect to it.
    NeverCame,
    /// It found a group's coordinator and sends no request of the classic group protocol.
    GroupProtocol,
}

/// A client that makes no progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The reason.
    pub loss: Loss,
    /// Its address.
    pub ip: IpAddr,
    /// Its client id.
    pub client_id: String,
    /// The address that was advertised to it.
    pub advertised: AdvertisedAddress,
    /// The connections in which it asked.
    pub seen: Seen,
}

impl Lost {
    /// The problem in one sentence.
    pub fn text(&self) -> String {
        let Lost { ip, client_id, advertised: AdvertisedAddress { listener, address }, .. } = self;
        match self.loss {
            Loss::NeverCame => format!(
                "client {client_id:?} at {ip} requested metadata from listener {listener}, received the address {address}, and never connected to it: \
                 {address} does not reach this broker from where the client runs"
            ),
            Loss::GroupProtocol => format!(
                "client {client_id:?} at {ip} found the coordinator of its group and sent no request of the classic group protocol: it uses \
                 group.protocol=consumer or is a share consumer, which this broker does not support"
            ),
        }
    }

    /// The recommended change.
    pub fn remedy(&self) -> String {
        let listener = &self.advertised.listener;
        match self.loss {
            Loss::NeverCame => format!(
                "set advertised.listeners={listener}://HOST:PORT (KAFKA_ADVERTISED_LISTENERS) to the address at which this client reaches the broker, \
                 usually its bootstrap server: for a port published as 29092:9092 that is localhost:29092. Clients in different networks, such as inside \
                 and outside of Docker, need one listener per network. An aiokafka producer that has not sent anything yet looks the same"
            ),
            Loss::GroupProtocol => "set group.protocol=classic in the client, and use a consumer instead of a share consumer".to_string(),
        }
    }
}

/// A peer whose connections were closed because they could not be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its address.
    pub ip: IpAddr,
    /// The listener to which it connected.
    pub listener: String,
    /// What it sent.
    pub sent: Sent,
    /// How often and when.
    pub seen: Seen,
}

/// Something that cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sent {
    /// A TLS handshake on a listener without TLS.
    Tls,
    /// HTTP.
    Http,
    /// SASL on a listener without authentication.
    Sasl,
    /// A frame with a length that is not allowed.
    Length(i32),
    /// An API that is not offered.
    Api(i16),
    /// A version that is not offered.
    Version(ApiKey, i16),
}

impl Sent {
    /// Interprets the first four bytes of a frame if they are not an allowed length.
    pub(super) fn of_length(length: i32) -> Sent {
        match &length.to_be_bytes() {
            // A handshake record of SSL 3.0 to TLS 1.3.
            [0x16, 3, 0..=4, _] => Sent::Tls,
            b"GET " | b"HEAD" | b"POST" | b"PUT " | b"PATC" | b"DELE" | b"OPTI" | b"CONN" | b"PRI " => Sent::Http,
            _ => Sent::Length(length),
        }
    }

    /// None if the rejected request contains no evidence about its sender.
    pub(super) fn of_refusal(refusal: &Refusal) -> Option<Sent> {
        match refusal {
            Refusal::Api(key) => Some(Sent::Api(*key)),
            Refusal::Version(key, version) => Some(Sent::Version(*key, *version)),
            Refusal::Malformed(..) | Refusal::Unacknowledged(_) => None,
        }
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sent::Tls => write!(f, "a TLS handshake, but the listener does not use TLS"),
            Sent::Sasl => write!(f, "a SASL handshake, but the listener does not support authentication"),
            Sent::Http => write!(f, "an HTTP request, but this is a Kafka listener"),
            Sent::Length(length) => write!(f, "a request with the invalid size {length}"),
            Sent::Api(key) => write!(f, "a request with API key {key}, which is not supported"),
            Sent::Version(key, version) => {
                let range = served(*key).map_or_else(String::new, |s| format!("; versions {} to {} are", s.min, s.max));
                write!(f, "{} version {version}, which is not supported{range}", key.name())
            }
        }
    }
}

impl Visits {
    /// Clients that make no progress, with the address that was advertised to them.
    pub fn lost(&self, now: Instant) -> Vec<Lost> {
        let mut recent = self.recent();
        recent.judge(now);
        recent.findings(now).map(|(lost, _)| lost).collect()
    }

    /// The most recent strangers.
    pub fn strangers(&self, now: Instant) -> Vec<Stranger> {
        let mut recent = self.recent();
        recent.strangers.retain(|_, seen| now.duration_since(seen.last) < FINDING_KEPT);
        let stranger = |((ip, listener, sent), seen): (&(IpAddr, String, Sent), &Seen)| Stranger {
            ip: *ip,
            listener: listener.clone(),
            sent: *sent,
            seen: *seen,
        };
        recent.strangers.iter().map(stranger).collect()
    }

    /// Deletes all findings.
    pub fn clear(&self) {
        self.clears.fetch_add(1, Ordering::Relaxed);
        let mut recent = self.recent();
        let Recent { old_clients_until, arrived, .. } = std::mem::take(&mut *recent);
        *recent = Recent { old_clients_until, arrived, ..Recent::default() };
    }

    /// The broker has run before: some of its clients reconnect to the address that they know, and may then be idle.
    pub fn expect_old_clients(&self, now: Instant) {
        self.recent().old_clients_until = Some(now + OLD_CLIENTS);
    }

    /// Logs each new finding once, until it is stopped.
    pub async fn watch(self: Arc<Visits>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for lost in self.not_yet_logged(Instant::now()) {
                warn!("{}; {}", lost.text(), lost.remedy());
            }
        }
    }

    /// Findings that were not returned before.
    fn not_yet_logged(&self, now: Instant) -> Vec<Lost> {
        let mut recent = self.recent();
        recent.judge(now);
        recent.findings(now).filter_map(|(lost, is_said)| (!std::mem::replace(is_said, true)).then_some(lost)).collect()
    }

    /// Records what a peer sent; returns true the first time.
    pub(super) fn note(&self, peer: SocketAddr, listener: &str, sent: Sent, now: Instant) -> bool {
        let mut recent = self.recent();
        let key = (peer.ip().to_canonical(), listener.to_string(), sent);
        make_room(&mut recent.strangers, &key, STRANGERS_MAX, |seen| seen.last);
        let seen = recent.strangers.entry(key).or_insert_with(|| Seen::none(now));
        seen.again(now);
        seen.count == 1
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn none(now: Instant) -> Seen {
        Seen { count: 0, first: now, last: now }
    }

    fn again(&mut self, now: Instant) {
        self.first = if self.count == 0 { now } else { self.first };
        (self.count, self.last) = (self.count.saturating_add(1), now);
    }
}

/// Removes the entry that was seen longest ago if `key` would exceed the maximum.
fn make_room<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, max: usize, last: impl Fn(&V) -> Instant) {
    if map.len() >= max && !map.contains_key(key) {
        let oldest = map.iter().min_by_key(|(_, value)| last(value)).map(|(key, _)| key.clone());
        oldest.map(|key| map.remove(&key));
    }
}

impl Recent {
    /// The entry of a client that asks; a new attempt begins if the last one has ended.
    fn asking(&mut self, key: &(IpAddr, String), connection: u64, advertised: &AdvertisedAddress, now: Instant) -> &mut Client {
        make_room(&mut self.clients, key, CLIENTS_MAX, |client| client.seen.last);
        let is_new = !self.arrived.contains_key(key) && self.old_clients_until.is_none_or(|until| now >= until);
        let client = self.clients.entry(key.clone()).or_insert_with(|| Client {
            advertised: advertised.clone(),
            seen: Seen::none(now),
            first_connection: connection,
            visits: 0,
            asked: Asked::default(),
            open: BTreeMap::new(),
            has_second: false,
            closed: None,
            asks: 0,
            asks_since: now,
            is_new,
            is_lost: false,
            is_said: false,
        });
        let has_others = client.open.keys().any(|open| *open != connection);
        if !has_others && client.closed.is_some_and(|closed| now.duration_since(closed) > PAUSE_MAX) {
            (client.first_connection, client.visits, client.asked, client.has_second) = (connection, 0, Asked::default(), false);
            // While a connection is open there is no pause.
            client.closed = None;
        }
        if now.duration_since(client.seen.last) > PAUSE_MAX {
            (client.asks, client.asks_since) = (0, now);
        }
        client.asks = client.asks.saturating_add(1);
        client
    }

    /// A client has reached the broker: its entry is removed, and further asking over its open connections is ignored.
    fn arrives(&mut self, key: &(IpAddr, String), now: Instant) {
        if let Some(client) = self.clients.remove(key) {
            client.open.values().for_each(|open| open.stage.store(WORKS, Ordering::Relaxed));
        }
        make_room(&mut self.arrived, key, CLIENTS_MAX, |last| *last);
        self.arrived.insert(key.clone(), now);
    }

    fn seeker(&mut self, key: &(IpAddr, String), advertised: &AdvertisedAddress, now: Instant) -> &mut Seeker {
        make_room(&mut self.seekers, key, CLIENTS_MAX, |seeker| seeker.seen.last);
        let new = || Seeker { advertised: advertised.clone(), seen: Seen::none(now), misses_topics: false, fetched: None, is_said: false };
        self.seekers.entry(key.clone()).or_insert_with(new)
    }

    /// A client sends a request after which it is no seeker; returns whether it was one.
    fn ends_seeking(&mut self, client: &(IpAddr, String), key: ApiKey, now: Instant) -> bool {
        let Some(seeker) = self.seekers.get_mut(client) else { return false };
        let was_one = seeker.seen.count > 0;
        (seeker.seen, seeker.fetched) = (Seen::none(now), Some(now));
        if key != ApiKey::Fetch {
            self.seekers.remove(client);
        }
        was_one
    }

    /// Evaluates the time that has passed, and removes old entries.
    fn judge(&mut self, now: Instant) {
        self.seekers.retain(|_, seeker| now.duration_since(seeker.seen.last) < FINDING_KEPT);
        let silent: Vec<_> =
            self.clients.iter().filter(|(_, client)| client.has_arrived_in_silence(now)).map(|(key, _)| key.clone()).collect();
        silent.iter().for_each(|key| self.arrives(key, now));
        self.clients.retain(|_, client| !client.is_old(now));
        self.clients.values_mut().for_each(|client| client.is_lost |= client.is_in_vain(now));
    }

    /// The findings, each with a flag whether it was logged.
    fn findings(&mut self, now: Instant) -> impl Iterator<Item = (Lost, &mut bool)> {
        let Recent { clients, seekers, .. } = self;
        // A client that did not arrive could not send group requests.
        let has_arrived = |key: &&(IpAddr, String)| clients.get(*key).is_none_or(|client| client.has_second && !client.is_lost);
        let has_arrived: Vec<_> = seekers.keys().filter(has_arrived).cloned().collect();
        let lost = |loss, (ip, client_id): &(IpAddr, String), advertised: &AdvertisedAddress, seen: Seen| Lost {
            loss,
            ip: *ip,
            client_id: client_id.clone(),
            advertised: advertised.clone(),
            seen,
        };
        let never_came = clients.iter_mut().filter(|(_, client)| client.is_lost);
        let never_came =
            never_came.map(move |(key, client)| (lost(Loss::NeverCame, key, &client.advertised, client.seen), &mut client.is_said));
        let no_group = seekers.iter_mut().filter(move |(key, seeker)| has_arrived.contains(key) && seeker.is_in_vain(now));
        let no_group =
            no_group.map(move |(key, seeker)| (lost(Loss::GroupProtocol, key, &seeker.advertised, seeker.seen), &mut seeker.is_said));
        never_came.chain(no_group)
    }
}

impl Seeker {
    fn is_in_vain(&self, now: Instant) -> bool {
        self.seen.count > 0 && !self.misses_topics && now.duration_since(self.seen.first) >= ARRIVING
    }
}

impl Client {
    /// Rules 1 to 3 of the table above.
    fn is_in_vain(&self, now: Instant) -> bool {
        let waited = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= ARRIVING);
        let waits = self.is_new || self.asks >= ASKS_IN_VAIN && self.seen.last.duration_since(self.asks_since) >= ASKING_IN_VAIN;
        let stays = waits && waited(self.open.get(&self.first_connection).map(|open| open.since));
        let repeats = self.visits >= VISITS_IN_VAIN;
        let Asked { brokers, topics, topics_to_read, listing, more } = self.asked;
        let wanted_more = !listing && (more || brokers && !topics || topics_to_read);
        let left = self.visits == 1 && !self.has_second && self.open.is_empty() && waited(self.closed) && wanted_more;
        stays || repeats || left
    }

    /// It opened a connection after its first one which stays open without further requests: for [`ARRIVING`], or for [`BESIDE`] if the first one is
    /// open too. The connection of a client that bootstraps again may begin before the end of the last one is seen.
    fn has_arrived_in_silence(&self, now: Instant) -> bool {
        let long = if self.open.contains_key(&self.first_connection) { BESIDE } else { ARRIVING };
        self.open.iter().any(|(number, open)| *number != self.first_connection && now.duration_since(open.since) >= long)
    }

    /// Whether no further activity of the client is expected.
    fn is_old(&self, now: Instant) -> bool {
        let kept = if self.is_lost { FINDING_KEPT } else { 2 * ARRIVING };
        self.open.is_empty() && now.duration_since(self.closed.unwrap_or(self.seen.last).max(self.seen.last)) >= kept
    }

    fn opened(&mut self, connection: u64, stage: &Arc<AtomicU8>, now: Instant) {
        if self.open.len() < OPEN_MAX {
            self.has_second |= connection != self.first_connection && self.open.contains_key(&self.first_connection);
            self.open.entry(connection).or_insert_with(|| Open { since: now, stage: stage.clone() });
        }
    }
}

const NEW: u8 = 0;
const GREETED: u8 = 1;
const ASKS: u8 = 2;
const WORKS: u8 = 3;

/// One connection, until it is closed.
#[derive(Debug)]
pub(super) struct Visit {
    visits: Arc<Visits>,
    ip: IpAddr,
    number: u64,
    stage: Arc<AtomicU8>,
    /// The value of [`Visits::clears`] when it last asked.
    clears: AtomicU64,
    client_id: Mutex<Option<String>>,
}

impl Visit {
    pub(super) fn new(visits: Arc<Visits>, ip: IpAddr) -> Visit {
        let number = visits.connections.fetch_add(1, Ordering::Relaxed);
        Visit { visits, ip, number, stage: Arc::new(AtomicU8::new(NEW)), clears: AtomicU64::new(0), client_id: Mutex::default() }
    }

    /// Records a request. After the first request that is not in [`ASKING`] this costs one atomic load.
    pub(super) fn request(&self, key: ApiKey, client_id: Option<&str>) {
        let client_id = client_id.unwrap_or_default();
        if ends_seeking(key) && self.visits.has_seekers.load(Ordering::Relaxed) {
            let mut recent = self.visits.recent();
            // The lock is held: no seeker is added meanwhile.
            if recent.ends_seeking(&self.key(client_id), key, Instant::now()) {
                self.visits.has_seekers.store(recent.seekers.values().any(|seeker| seeker.seen.count > 0), Ordering::Relaxed);
            }
        }
        // No race: requests of a connection are read one after the other.
        let stage = self.stage.load(Ordering::Relaxed);
        if stage == WORKS || client_id.starts_with(OWN_TOOLS) {
            return;
        }
        match key {
            ApiKey::ApiVersions if stage == NEW => self.greets(client_id),
            key if ASKING.contains(&key) || matches!(key, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate) => {}
            _ => self.works(key, client_id),
        }
    }

    /// Records what a request of [`ASKING`] asks for; `advertised` returns the address that is advertised to its client.
    pub(super) fn asks(&self, ask: Ask, client_id: &str, advertised: impl FnOnce() -> AdvertisedAddress) {
        let stage = self.stage.load(Ordering::Relaxed);
        if client_id.starts_with(OWN_TOOLS) || stage == WORKS && ask != Ask::GroupCoordinator {
            return;
        }
        let (now, advertised, key) = (Instant::now(), advertised(), self.key(client_id));
        let mut recent = self.visits.recent();
        if ask == Ask::GroupCoordinator {
            let seeker = recent.seeker(&key, &advertised, now);
            if seeker.fetched.is_none_or(|fetched| now.duration_since(fetched) >= ARRIVING) {
                seeker.seen.again(now);
                self.visits.has_seekers.store(true, Ordering::Relaxed);
            }
        }
        let clears = self.visits.clears.load(Ordering::Relaxed);
        let is_first = stage < ASKS || self.clears.load(Ordering::Relaxed) != clears;
        // A client that asked before and has no entry has arrived over another connection, and continues to ask over this one.
        if stage == WORKS || !is_first && !recent.clients.contains_key(&key) {
            return;
        }
        let client = recent.asking(&key, self.number, &advertised, now);
        client.opened(self.number, &self.stage, now);
        if is_first {
            self.stage.store(ASKS, Ordering::Relaxed);
            self.clears.store(clears, Ordering::Relaxed);
            // Only a bootstrap that replaces another one counts: librdkafka opens a second connection to its coordinator next to the leader's, and
            // asks there too.
            client.visits += u32::from(client.open.len() == 1);
            client.seen.again(now);
        }
        client.seen.last = now;
        let asked = &mut client.asked;
        match ask {
            Ask::Brokers => asked.brokers = true,
            Ask::Topics => asked.topics = true,
            Ask::TopicsToRead => asked.topics_to_read = true,
            Ask::Listing => asked.listing = true,
            Ask::GroupCoordinator | Ask::More => asked.more = true,
        }
        drop(recent);
        self.keep_name(client_id);
    }

    /// Records whether none of the topics that a client requested exists.
    pub(super) fn looks_for_topics(&self, client_id: &str, misses: bool, advertised: impl FnOnce() -> AdvertisedAddress) {
        let (key, mut recent) = (self.key(client_id), self.visits.recent());
        // A working producer does not look for a group.
        if self.stage.load(Ordering::Relaxed) != WORKS || recent.seekers.contains_key(&key) {
            recent.seeker(&key, &advertised(), Instant::now()).misses_topics = misses;
        }
    }

    /// A connection begins; it may be the client's connection to the advertised address.
    fn greets(&self, client_id: &str) {
        self.stage.store(GREETED, Ordering::Relaxed);
        let mut recent = self.visits.recent();
        let Some(client) = recent.clients.get_mut(&self.key(client_id)) else { return };
        client.opened(self.number, &self.stage, Instant::now());
        drop(recent);
        self.keep_name(client_id);
    }

    /// A request that is not in [`ASKING`]: the client has arrived, even if it asked from another address a moment ago.
    fn works(&self, key: ApiKey, client_id: &str) {
        self.stage.store(WORKS, Ordering::Relaxed);
        let now = Instant::now();
        // Behind a load balancer it may have asked from another address.
        let is_meant = |at: IpAddr, client: &Client| at == self.ip || !client.is_lost && now.duration_since(client.seen.last) < ARRIVING;
        let mut recent = self.visits.recent();
        recent.clients.retain(|(at, id), client| id != client_id || !is_meant(*at, client));
        let client = self.key(client_id);
        recent.arrives(&client, now);
        if key == ApiKey::Fetch {
            recent.ends_seeking(&client, key, now);
        }
    }

    fn key(&self, client_id: &str) -> (IpAddr, String) {
        (self.ip, client_id.to_string())
    }

    fn keep_name(&self, client_id: &str) {
        self.client_id.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| client_id.to_string());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(client_id) = self.client_id.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let key = self.key(&client_id);
        let mut recent = self.visits.recent();
        let Some(client) = recent.clients.get_mut(&key) else { return };
        let Some(since) = client.open.get(&self.number).map(|open| open.since) else { return };
        let now = Instant::now();
        if client.has_arrived_in_silence(now) {
            return recent.arrives(&key, now);
        }
        client.is_lost |= client.is_in_vain(now);
        client.open.remove(&self.number);
        client.closed = Some(now);
        // A client that asked for a list and disconnected soon has received what it asked for.
        if !client.is_lost && client.asked.listing && now.duration_since(since) < ARRIVING {
            recent.clients.remove(&key);
        }
    }
}

/// The requests that a client sends after it asked for a group's coordinator, unless its group protocol is not served. A consumer whose application
/// assigns its partitions joins no group: librdkafka then asks for the coordinator, fetches, and sends nothing to the group before its first commit.
fn ends_seeking(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::JoinGroup
            | ApiKey::SyncGroup
            | ApiKey::Heartbeat
            | ApiKey::LeaveGroup
            | ApiKey::OffsetCommit
            | ApiKey::OffsetFetch
            | ApiKey::OffsetDelete
            | ApiKey::DescribeGroups
            | ApiKey::DeleteGroups
            | ApiKey::ListGroups
            | ApiKey::TxnOffsetCommit
            | ApiKey::AddOffsetsToTxn
            | ApiKey::Fetch
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn advertised() -> AdvertisedAddress {
        AdvertisedAddress { listener: "PLAINTEXT".into(), address: "nowhere:9092".into() }
    }

    /// A new connection that asks for `all`.
    fn asks(visits: &Arc<Visits>, client_id: &str, all: &[Ask]) -> Visit {
        let visit = Visit::new(visits.clone(), IP);
        visit.request(ApiKey::ApiVersions, Some(client_id));
        all.iter().for_each(|ask| visit.asks(*ask, client_id, advertised));
        visit
    }

    async fn pass(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    /// The client ids and losses of the findings.
    fn found(visits: &Visits) -> Vec<(String, Loss)> {
        visits.lost(Instant::now()).into_iter().map(|lost| (lost.client_id, lost.loss)).collect()
    }

    fn never_came(names: &[&str]) -> Vec<(String, Loss)> {
        names.iter().map(|name| (name.to_string(), Loss::NeverCame)).collect()
    }

    /// The behaviour of the clients in the first table above, while the advertised address is not reachable.
    #[tokio::test(start_paused = true)]
    async fn clients_that_bootstrap_in_vain_are_found_while_they_try_and_for_an_hour() {
        let visits = Arc::<Visits>::default();
        drop(asks(&visits, "aiokafka", &[Ask::Brokers]));
        drop(asks(&visits, "kcat -C", &[Ask::TopicsToRead, Ask::TopicsToRead]));
        let java = asks(&visits, "java", &[Ask::Topics, Ask::More]);
        let kcat = asks(&visits, "kcat", &[Ask::Topics]);
        for _ in 0..4 {
            let connection = asks(&visits, "rdkafka", &[Ask::Topics]);
            pass(900).await;
            drop(connection);
            pass(1000).await;
            java.asks(Ask::Topics, "java", advertised);
        }
        drop(kcat);
        let all = ["aiokafka", "java", "kcat", "kcat -C", "rdkafka"];
        assert_eq!(found(&visits), never_came(&all));
        drop(java);
        pass(600_000).await;
        assert_eq!(found(&visits), never_came(&all), "after ten minutes");
        let counts: Vec<u32> = visits.lost(Instant::now()).iter().map(|lost| lost.seen.count).collect();
        assert_eq!(counts, [1, 1, 1, 1, 4]);
        let works = Visit::new(visits.clone(), IP);
        works.request(ApiKey::Produce, Some("java"));
        assert_eq!(found(&visits), never_came(&["aiokafka", "kcat", "kcat -C", "rdkafka"]), "java has arrived at last");
        pass(3_000_000).await;
        assert_eq!(found(&visits), [], "after an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_work_idle_or_list_are_not_found() {
        let visits = Arc::<Visits>::default();
        // Clients that send records.
        let same = asks(&visits, "over the same", &[Ask::Topics, Ask::More]);
        same.request(ApiKey::Produce, Some("over the same"));
        drop(asks(&visits, "over another", &[Ask::Brokers]));
        let another = asks(&visits, "over another", &[Ask::Topics]);
        another.request(ApiKey::Fetch, Some("over another"));
        // Idle clients: Java, kafka-python, librdkafka.
        let first = asks(&visits, "idle java", &[Ask::Brokers, Ask::More]);
        let second = asks(&visits, "idle java", &[]);
        drop(asks(&visits, "idle kafka-python", &[Ask::Brokers]));
        let _later = asks(&visits, "idle kafka-python", &[Ask::More]);
        drop(asks(&visits, "idle rdkafka", &[Ask::Brokers]));
        pass(1000).await;
        let _much_later = asks(&visits, "idle rdkafka", &[Ask::Brokers]);
        // A consumer of librdkafka without a topic: bootstrap, leader and coordinator.
        drop(asks(&visits, "rdkafka", &[Ask::Brokers, Ask::GroupCoordinator]));
        let leader = asks(&visits, "rdkafka", &[Ask::TopicsToRead]);
        leader.looks_for_topics("rdkafka", true, advertised);
        let _coordinator = asks(&visits, "rdkafka", &[Ask::Brokers, Ask::GroupCoordinator]);
        // Tools that list every second, each time with a new connection.
        for _ in 0..10 {
            drop(asks(&visits, "kcat -L", &[Ask::Brokers, Ask::Listing]));
            let admin = asks(&visits, "kafka-topics", &[Ask::Brokers]);
            drop((asks(&visits, "kafka-topics", &[Ask::Listing]), admin));
            drop(asks(&visits, "dlog-health", &[Ask::Brokers]));
            drop(asks(&visits, "only greets", &[]));
            pass(1000).await;
            assert_eq!(found(&visits), []);
        }
        for _ in 0..10 {
            drop(asks(&visits, "kcat -L -t", &[Ask::Topics, Ask::Topics]));
            pass(5000).await;
        }
        // A client that arrived continues to ask over its connections.
        for _ in 0..10 {
            second.asks(Ask::Topics, "idle java", advertised);
            pass(1000).await;
        }
        first.asks(Ask::Topics, "idle java", advertised);
        pass(5000).await;
        assert_eq!(found(&visits), []);
        let remembered = visits.recent().clients.len();
        assert!(remembered <= 1, "{remembered}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_once_may_lose_its_way_later_and_one_that_works_does_not_hide_another() {
        let visits = Arc::<Visits>::default();
        let works = asks(&visits, "rdkafka", &[Ask::Topics]);
        works.request(ApiKey::Fetch, Some("rdkafka"));
        for _ in 0..3 {
            drop(asks(&visits, "rdkafka", &[Ask::Topics]));
            pass(1000).await;
            works.request(ApiKey::Fetch, Some("rdkafka"));
        }
        let java = asks(&visits, "java", &[Ask::Topics]);
        pass(5000).await;
        assert_eq!(found(&visits), never_came(&["java", "rdkafka"]));
        visits.clear();
        assert_eq!(found(&visits), []);
        java.asks(Ask::Topics, "java", advertised);
        pass(5000).await;
        assert_eq!(found(&visits), never_came(&["java"]), "it goes on to try");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_of_a_group_protocol_that_is_not_served_is_found_and_others_are_not() {
        let visits = Arc::<Visits>::default();
        for (name, next) in [
            ("classic", Some(ApiKey::JoinGroup)),
            ("assigns", Some(ApiKey::OffsetFetch)),
            ("commits nothing", Some(ApiKey::Fetch)),
            ("consumer", None),
        ] {
            let _bootstrap = asks(&visits, name, &[Ask::Topics, Ask::GroupCoordinator]);
            let coordinator = asks(&visits, name, &[]);
            coordinator.looks_for_topics(name, false, advertised);
            if let Some(next) = next {
                coordinator.request(next, Some(name));
            }
        }
        // librdkafka, while no topic exists.
        let bootstrap = asks(&visits, "no topic", &[Ask::Topics, Ask::GroupCoordinator]);
        bootstrap.looks_for_topics("no topic", true, advertised);
        let _coordinator = asks(&visits, "no topic", &[]);
        let _lost = asks(&visits, "lost", &[Ask::Topics, Ask::GroupCoordinator]);
        pass(5000).await;
        assert_eq!(found(&visits), [("lost".into(), Loss::NeverCame), ("consumer".into(), Loss::GroupProtocol)]);
        let later = asks(&visits, "consumer", &[]);
        later.request(ApiKey::JoinGroup, Some("consumer"));
        assert_eq!(found(&visits), never_came(&["lost"]));
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_need_no_lock_when_the_last_seeker_has_found_its_group() {
        let visits = Arc::<Visits>::default();
        let (one, other) = (asks(&visits, "one", &[Ask::GroupCoordinator]), asks(&visits, "other", &[Ask::GroupCoordinator]));
        one.request(ApiKey::Fetch, Some("one"));
        assert!(visits.has_seekers.load(Ordering::Relaxed), "the other still seeks");
        other.request(ApiKey::JoinGroup, Some("other"));
        assert!(!visits.has_seekers.load(Ordering::Relaxed));
        pass(5000).await;
        one.asks(Ask::GroupCoordinator, "one", advertised);
        assert!(visits.has_seekers.load(Ordering::Relaxed), "it asks again");
    }

    /// confluent-kafka with the client id of a producer: it fetches, asks for the coordinator, and ends before its next fetch.
    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_fetches_before_it_asks_for_the_coordinator_is_not_found() {
        let visits = Arc::<Visits>::default();
        let producer = asks(&visits, "rdkafka", &[Ask::Topics]);
        producer.looks_for_topics("rdkafka", false, advertised);
        producer.request(ApiKey::Produce, Some("rdkafka"));
        pass(20_000).await;
        let (bootstrap, leader) = (asks(&visits, "rdkafka", &[Ask::Topics]), asks(&visits, "rdkafka", &[]));
        bootstrap.looks_for_topics("rdkafka", false, advertised);
        leader.request(ApiKey::Fetch, Some("rdkafka"));
        bootstrap.asks(Ask::GroupCoordinator, "rdkafka", advertised);
        drop((bootstrap, leader));
        pass(6000).await;
        assert_eq!(found(&visits), []);
        // What asks later is another consumer, and has as much time as any.
        let other = [asks(&visits, "rdkafka", &[Ask::GroupCoordinator]), asks(&visits, "rdkafka", &[])];
        assert_eq!(found(&visits), []);
        pass(5000).await;
        assert_eq!(found(&visits), [("rdkafka".into(), Loss::GroupProtocol)]);
        drop(other);
    }

    /// kcat -G with a topic that does not exist: it reaches the coordinator, gets its response, and exits.
    #[tokio::test(start_paused = true)]
    async fn who_reached_the_broker_over_a_second_connection_may_ask_there_and_leave() {
        let visits = Arc::<Visits>::default();
        let first = asks(&visits, "kcat", &[Ask::Brokers, Ask::GroupCoordinator]);
        let second = asks(&visits, "kcat", &[Ask::Brokers]);
        first.asks(Ask::TopicsToRead, "kcat", advertised);
        first.looks_for_topics("kcat", true, advertised);
        drop((second, first));
        pass(6000).await;
        assert_eq!(found(&visits), []);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_clients_of_before_a_start_or_that_arrived_before_are_not_found_and_others_are() {
        let visits = Arc::<Visits>::default();
        visits.expect_old_clients(Instant::now());
        let idle = asks(&visits, "idle", &[Ask::Brokers, Ask::Topics]);
        let waits = asks(&visits, "waits", &[Ask::Topics]);
        for _ in 0..6 {
            pass(1000).await;
            waits.asks(Ask::Topics, "waits", advertised);
        }
        assert_eq!(found(&visits), never_came(&["waits"]));
        pass(300_000).await;
        idle.asks(Ask::Topics, "idle", advertised);
        assert_eq!(found(&visits), never_came(&["waits"]));
        pass(300_000).await;
        let works = asks(&visits, "worked", &[Ask::Topics]);
        works.request(ApiKey::Produce, Some("worked"));
        drop(works);
        let _back = asks(&visits, "worked", &[Ask::Topics]);
        let _new = asks(&visits, "new", &[Ask::Brokers]);
        pass(5000).await;
        assert_eq!(found(&visits), never_came(&["new", "waits"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_finding_is_said_once() {
        let visits = Arc::<Visits>::default();
        let _java = asks(&visits, "java", &[Ask::Topics]);
        assert_eq!(visits.not_yet_logged(Instant::now()), []);
        pass(5000).await;
        assert_eq!(visits.not_yet_logged(Instant::now()).len(), 1);
        pass(5000).await;
        assert_eq!(visits.not_yet_logged(Instant::now()), []);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_there_is_room_for() {
        let visits = Arc::<Visits>::default();
        for at in 0..CLIENTS_MAX + 10 {
            pass(1).await;
            drop(asks(&visits, &format!("{at}"), &[Ask::GroupCoordinator]));
            visits.note((IP, 1).into(), "PLAINTEXT", Sent::Length(at as i32), Instant::now());
        }
        let recent = visits.recent();
        assert_eq!((recent.clients.len(), recent.seekers.len()), (CLIENTS_MAX, CLIENTS_MAX));
        assert!(!recent.clients.contains_key(&(IP, "9".into())), "the oldest went");
        drop(recent);
        assert_eq!(visits.strangers(Instant::now()).len(), STRANGERS_MAX);
        let _open: Vec<Visit> = (0..OPEN_MAX + 10).map(|_| asks(&visits, "one", &[Ask::Topics])).collect();
        assert!(visits.recent().clients.values().all(|client| client.open.len() <= OPEN_MAX));
    }

    #[test]
    fn what_is_no_frame_is_known_by_its_first_bytes() {
        let of = |bytes: &[u8; 4]| Sent::of_length(i32::from_be_bytes(*bytes));
        assert_eq!(of(&[0x16, 3, 1, 2]), Sent::Tls);
        assert_eq!((of(b"GET "), of(b"POST")), (Sent::Http, Sent::Http));
        assert_eq!(of(&[0xff; 4]), Sent::Length(-1));
    }
}
