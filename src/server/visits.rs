//! What recent connections did, for `dlog doctor`: who asked where the broker is and never came there, and what came that is not Kafka's
//! protocol, or not a version of it that is served.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::dispatch::{Refusal, served};
use crate::protocol::ApiKey;

/// Clients that are remembered; the one that was seen longest ago is forgotten for a new one.
const CLIENTS_MAX: usize = 1000;
/// Strangers that are remembered, the latest.
const STRANGERS_MAX: usize = 100;
/// How long a client may take from asking to coming. librdkafka and the Java client take milliseconds.
const COMING: Duration = Duration::from_secs(5);
/// Who asks so often and closes each time at once has come back in vain, unless it is a tool that only lists.
const VISITS_IN_VAIN: u32 = 3;
/// `dlog health` and `dlog doctor` call themselves so; they only look.
const OWN_TOOLS: &str = "dlog-";
/// What a client may ask of any broker before it connects to the one that it was told of.
const ASKING: [ApiKey; 5] =
    [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::DescribeCluster, ApiKey::FindCoordinator, ApiKey::InitProducerId];

/// Recent clients and strangers.
#[derive(Debug, Default)]
pub struct Visits(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    clients: BTreeMap<(IpAddr, String), Client>,
    strangers: VecDeque<Stranger>,
}

#[derive(Debug)]
struct Client {
    told: Told,
    /// Since when it asks without coming.
    asks_since: Instant,
    seen: Instant,
    /// Connections in which it asked and that are open, and since when there is one.
    open: u32,
    open_since: Instant,
    /// Times that it asked, of which none led to a second connection beside the first.
    visits: u32,
    came: bool,
}

/// What a client was told to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The listener at which it asked.
    pub listener: String,
    /// `host:port`.
    pub address: String,
}

/// A client that asked where the broker is and did not come there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Where it asks from.
    pub ip: IpAddr,
    /// What it calls itself.
    pub client_id: String,
    /// What it was told.
    pub told: Told,
    /// Connections in which it asked.
    pub visits: u32,
    /// How long ago it asked first.
    pub asking: Duration,
}

/// A connection that was closed because it could not be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Where it came from.
    pub peer: SocketAddr,
    /// The listener to which it came.
    pub listener: String,
    /// What it sent.
    pub sent: Sent,
}

/// What cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A TLS handshake on a listener without TLS.
    Tls,
    /// HTTP.
    Http,
    /// A frame of a length that is not allowed.
    Length(i32),
    /// An API that is not offered.
    Api(i16),
    /// A version that is not offered.
    Version(ApiKey, i16),
}

impl Sent {
    /// What the first four bytes of a frame are, where they are no length that is allowed.
    pub(super) fn of_length(length: i32) -> Sent {
        match &length.to_be_bytes() {
            // A handshake record of SSL 3.0 to TLS 1.3.
            [0x16, 3, 0..=4, _] => Sent::Tls,
            b"GET " | b"HEAD" | b"POST" | b"PUT " | b"PATC" | b"DELE" | b"OPTI" | b"CONN" | b"PRI " => Sent::Http,
            _ => Sent::Length(length),
        }
    }

    /// None where what was refused says nothing about who sent it.
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
            Sent::Tls => write!(f, "a TLS handshake, and the listener is without TLS"),
            Sent::Http => write!(f, "HTTP, and this is a Kafka listener"),
            Sent::Length(length) => write!(f, "a frame of {length} bytes, which is not allowed"),
            Sent::Api(key) => write!(f, "a request of API {key}, which is not offered"),
            Sent::Version(key, version) => {
                let range = served(*key).map_or_else(String::new, |s| format!("; {} to {} are", s.min, s.max));
                write!(f, "{} version {version}, which is not offered{range}", key.name())
            }
        }
    }
}

impl Visits {
    /// Clients that asked where the broker is and, after a while in which others would have come, did not.
    pub fn lost(&self, now: Instant) -> Vec<Lost> {
        let recent = self.recent();
        let lost = recent.clients.iter().filter(|(_, client)| {
            let stays = client.open > 0 && now.duration_since(client.open_since) >= COMING;
            !client.came && (stays || client.visits >= VISITS_IN_VAIN)
        });
        lost.map(|((ip, client_id), client)| Lost {
            ip: *ip,
            client_id: client_id.clone(),
            told: client.told.clone(),
            visits: client.visits,
            asking: now.duration_since(client.asks_since),
        })
        .collect()
    }

    /// The latest strangers, oldest first.
    pub fn strangers(&self) -> Vec<Stranger> {
        self.recent().strangers.iter().cloned().collect()
    }

    pub(super) fn note(&self, stranger: Stranger) {
        let mut recent = self.recent();
        if recent.strangers.len() == STRANGERS_MAX {
            recent.strangers.pop_front();
        }
        recent.strangers.push_back(stranger);
    }

    fn asked(&self, ip: IpAddr, client_id: &str, told: Told, now: Instant) {
        let mut recent = self.recent();
        let client = recent.client(ip, client_id, told, now);
        if client.open == 0 {
            (client.visits, client.open_since) = (client.visits + 1, now);
        } else {
            // As kafka-topics.sh does, which lists over a connection to the address that it was told.
            client.visits = client.visits.saturating_sub(1);
        }
        (client.open, client.seen) = (client.open + 1, now);
    }

    fn came(&self, ip: IpAddr, client_id: &str, told: Told, now: Instant) {
        let mut recent = self.recent();
        let client = recent.client(ip, client_id, told, now);
        (client.came, client.seen) = (true, now);
    }

    fn left(&self, ip: IpAddr, client_id: &str) {
        if let Some(client) = self.recent().clients.get_mut(&(ip, client_id.to_string())) {
            client.open = client.open.saturating_sub(1);
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn client(&mut self, ip: IpAddr, client_id: &str, told: Told, now: Instant) -> &mut Client {
        let key = (ip, client_id.to_string());
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&key) {
            let oldest = self.clients.iter().min_by_key(|(_, client)| client.seen).map(|(key, _)| key.clone());
            oldest.map(|key| self.clients.remove(&key));
        }
        self.clients.entry(key).or_insert(Client { told, asks_since: now, seen: now, open: 0, open_since: now, visits: 0, came: false })
    }
}

const NEW: u8 = 0;
const ASKS: u8 = 1;
const CAME: u8 = 2;

/// One connection, until it ends.
#[derive(Debug)]
pub(super) struct Visit {
    visits: Arc<Visits>,
    ip: IpAddr,
    stage: AtomicU8,
    /// As which it asked.
    client_id: Mutex<Option<String>>,
}

impl Visit {
    pub(super) fn new(visits: Arc<Visits>, ip: IpAddr) -> Visit {
        Visit { visits, ip, stage: AtomicU8::new(NEW), client_id: Mutex::default() }
    }

    /// Notes a request; `told` is what its client is told to connect to. After the first that is more than asking this is one load.
    pub(super) fn request(&self, key: ApiKey, client_id: Option<&str>, told: impl FnOnce() -> Told) {
        let stage = self.stage.load(Ordering::Relaxed);
        let client_id = client_id.unwrap_or_default();
        let next = match key {
            _ if stage == CAME || client_id.starts_with(OWN_TOOLS) => return,
            // Every connection begins with it.
            ApiKey::ApiVersions => return,
            key if ASKING.contains(&key) => ASKS,
            _ => CAME,
        };
        if next == stage {
            return;
        }
        // Requests of a connection are read one after the other.
        self.stage.store(next, Ordering::Relaxed);
        if next == CAME {
            return self.visits.came(self.ip, client_id, told(), Instant::now());
        }
        self.visits.asked(self.ip, client_id, told(), Instant::now());
        *self.client_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(client_id.to_string());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(client_id) = self.client_id.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            self.visits.left(self.ip, &client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn told() -> Told {
        Told { listener: "PLAINTEXT".into(), address: "nowhere:9092".into() }
    }

    fn visit(visits: &Arc<Visits>, client_id: &str, keys: &[ApiKey]) -> Visit {
        let visit = Visit::new(visits.clone(), IP);
        keys.iter().for_each(|key| visit.request(*key, Some(client_id), told));
        visit
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_never_comes_is_lost() {
        let visits = Arc::<Visits>::default();
        let names = |visits: &Visits| visits.lost(Instant::now()).into_iter().map(|l| l.client_id).collect::<Vec<_>>();
        let bootstrap = [ApiKey::ApiVersions, ApiKey::Metadata];
        let _stays = visit(&visits, "stays", &bootstrap);
        let _asks_more = visit(&visits, "asks more", &[ApiKey::Metadata, ApiKey::FindCoordinator, ApiKey::Metadata]);
        let _comes = visit(&visits, "comes", &bootstrap);
        let _there = visit(&visits, "comes", &[ApiKey::ApiVersions, ApiKey::Produce]);
        let _same = visit(&visits, "over the same", &[ApiKey::Metadata, ApiKey::Fetch, ApiKey::Metadata]);
        let _versions = visit(&visits, "only versions", &[ApiKey::ApiVersions]);
        drop(visit(&visits, "lists", &bootstrap));
        (0..3).for_each(|_| drop(visit(&visits, "tries again", &bootstrap)));
        (0..3).for_each(|_| drop((visit(&visits, "lists elsewhere", &bootstrap), visit(&visits, "lists elsewhere", &bootstrap))));
        (0..3).for_each(|_| drop(visit(&visits, "dlog-health", &bootstrap)));
        assert_eq!(names(&visits), ["tries again"], "the others may still come");
        tokio::time::advance(COMING).await;
        assert_eq!(names(&visits), ["asks more", "stays", "tries again"]);
        let _at_last = visit(&visits, "stays", &[ApiKey::ListOffsets]);
        assert_eq!(names(&visits), ["asks more", "tries again"]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_there_is_room_for() {
        let visits = Arc::<Visits>::default();
        for at in 0..CLIENTS_MAX + 10 {
            tokio::time::advance(Duration::from_millis(1)).await;
            drop(visit(&visits, &format!("{at}"), &[ApiKey::Metadata]));
            visits.note(Stranger { peer: (IP, 1).into(), listener: "PLAINTEXT".into(), sent: Sent::Length(at as i32) });
        }
        assert_eq!(visits.recent().clients.len(), CLIENTS_MAX);
        assert!(!visits.recent().clients.contains_key(&(IP, "9".into())), "the oldest went");
        assert_eq!(visits.strangers().len(), STRANGERS_MAX);
    }

    #[test]
    fn what_is_no_frame_is_known_by_its_first_bytes() {
        let of = |bytes: &[u8; 4]| Sent::of_length(i32::from_be_bytes(*bytes));
        assert_eq!(of(&[0x16, 3, 1, 2]), Sent::Tls);
        assert_eq!((of(b"GET "), of(b"POST")), (Sent::Http, Sent::Http));
        assert_eq!(of(&[0xff; 4]), Sent::Length(-1));
    }
}
