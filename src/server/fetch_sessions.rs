//! Incremental fetch sessions (KIP-227): a request contains only changed partitions, and so does the response.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Uuid;
use crate::protocol::ErrorCode;
use crate::protocol::generated::fetch::{FetchPartition, FetchRequest};

/// The first version that identifies topics by id.
const BY_ID_FROM: i16 = 13;
/// The epoch of a request without a session.
const SESSIONLESS: i32 = -1;
/// The epoch of a request that opens a session.
const INITIAL: i32 = 0;
/// A session that was unused for this long may be evicted for a new one.
const EVICT_AFTER: Duration = Duration::from_secs(120);

/// A partition as requests identify it: topic name or id, and partition number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) topic: String,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
}

/// The parameters of a partition in a fetch request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) fetch: FetchPartition,
}

/// The fields of a partition's last response on which the next response depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) error: bool,
    pub(super) has_records: bool,
    pub(super) high_watermark: i64,
    pub(super) log_start: i64,
}

/// A fetch request after the session was looked up.
#[derive(Debug, PartialEq)]
pub(super) struct Opened {
    /// The session id for the response; 0 is none.
    pub(super) session_id: i32,
    /// Whether the response contains only changed partitions.
    pub(super) incremental: bool,
    /// All partitions to fetch, in order.
    pub(super) wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Session {
    by_id: bool,
    next_epoch: i32,
    last_use: Instant,
    next_place: u64,
    places: BTreeMap<u64, Key>,
    partitions: HashMap<Key, Cached>,
}

#[derive(Debug)]
struct Cached {
    place: u64,
    fetch: FetchPartition,
    high_watermark: i64,
    log_start: i64,
}

impl Session {
    fn put(&mut self, wanted: &Wanted) {
        match self.partitions.get_mut(&wanted.key) {
            Some(cached) => cached.fetch = wanted.fetch.clone(),
            None => {
                let place = self.take_place(&wanted.key);
                // No response was sent yet, so the next one counts as a change in any case.
                let cached = Cached { place, fetch: wanted.fetch.clone(), high_watermark: -1, log_start: -1 };
                self.partitions.insert(wanted.key.clone(), cached);
            }
        }
    }

    fn take_place(&mut self, key: &Key) -> u64 {
        self.next_place += 1;
        self.places.insert(self.next_place, key.clone());
        self.next_place
    }

    fn remove(&mut self, key: &Key) {
        if let Some(cached) = self.partitions.remove(key) {
            self.places.remove(&cached.place);
        }
    }

    fn wanted(&self) -> Vec<Wanted> {
        self.places.values().filter_map(|key| Some(Wanted { key: key.clone(), fetch: self.partitions.get(key)?.fetch.clone() })).collect()
    }
}

/// The sessions of this broker.
#[derive(Debug)]
pub(super) struct FetchSessions {
    sessions: Mutex<HashMap<i32, Session>>,
    max: usize,
}

impl FetchSessions {
    /// Creates the cache for at most `max` sessions.
    pub(super) fn new(max: usize) -> Self {
        FetchSessions { sessions: Mutex::default(), max }
    }

    /// Determines the partitions to fetch. `fresh_id` creates the id of a session that is opened.
    pub(super) fn open(&self, request: &FetchRequest, version: i16, fresh_id: impl FnOnce() -> i32) -> Result<Opened, ErrorCode> {
        let wanted = named(request);
        let mut sessions = self.lock();
        match request.session_epoch {
            SESSIONLESS | INITIAL => {
                sessions.remove(&request.session_id);
                let opens = request.session_epoch == INITIAL && !wanted.is_empty() && self.make_room(&mut sessions);
                let session_id = if opens { fresh_id() } else { 0 };
                if opens {
                    sessions.insert(session_id, new_session(&wanted, version));
                }
                Ok(Opened { session_id, incremental: false, wanted })
            }
            epoch => {
                let session = sessions.get_mut(&request.session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
                if session.next_epoch != epoch {
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                if session.by_id != (version >= BY_ID_FROM) {
                    return Err(ErrorCode::FetchSessionTopicIdError);
                }
                session.next_epoch = session.next_epoch.checked_add(1).unwrap_or(1);
                session.last_use = Instant::now();
                wanted.iter().for_each(|wanted| session.put(wanted));
                for topic in &request.forgotten_topics_data {
                    let key = |partition: &i32| Key { topic: topic.topic.clone(), topic_id: topic.topic_id, partition: *partition };
                    topic.partitions.iter().for_each(|partition| session.remove(&key(partition)));
                }
                if session.partitions.is_empty() {
                    sessions.remove(&request.session_id);
                    return Ok(Opened { session_id: 0, incremental: false, wanted: Vec::new() });
                }
                Ok(Opened { session_id: request.session_id, incremental: true, wanted: session.wanted() })
            }
        }
    }

    /// Records the response in the session, once, when it is sent; returns for each partition whether an incremental response contains it.
    pub(super) fn answer(&self, opened: &Opened, answers: &[Answered]) -> Vec<bool> {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(&opened.session_id) else { return vec![true; answers.len()] };
        let mut one = |(wanted, answered): (&Wanted, &Answered)| {
            let Some(cached) = session.partitions.get_mut(&wanted.key) else { return true };
            let moved = cached.high_watermark != answered.high_watermark || cached.log_start != answered.log_start;
            // After an error the next response counts as a change in any case.
            (cached.high_watermark, cached.log_start) =
                if answered.error { (-1, -1) } else { (answered.high_watermark, answered.log_start) };
            if answered.has_records {
                // A partition that returned records moves to the end, so that all partitions get their turn.
                session.places.remove(&cached.place);
                session.next_place += 1;
                cached.place = session.next_place;
                session.places.insert(cached.place, wanted.key.clone());
            }
            !opened.incremental || answered.error || answered.has_records || moved
        };
        opened.wanted.iter().zip(answers).map(&mut one).collect()
    }

    fn make_room(&self, sessions: &mut HashMap<i32, Session>) -> bool {
        if sessions.len() >= self.max {
            let now = Instant::now();
            sessions.retain(|_, session| now.duration_since(session.last_use) < EVICT_AFTER);
        }
        sessions.len() < self.max
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(request: &FetchRequest) -> Vec<Wanted> {
    let of_topic = |topic: &crate::protocol::generated::fetch::FetchTopic| {
        let (name, id) = (topic.topic.clone(), topic.topic_id);
        topic
            .partitions
            .iter()
            .map(move |fetch| Wanted { key: Key { topic: name.clone(), topic_id: id, partition: fetch.partition }, fetch: fetch.clone() })
            .collect::<Vec<_>>()
    };
    request.topics.iter().flat_map(of_topic).collect()
}

fn new_session(wanted: &[Wanted], version: i16) -> Session {
    let mut session = Session {
        by_id: version >= BY_ID_FROM,
        next_epoch: 1,
        last_use: Instant::now(),
        next_place: 0,
        places: BTreeMap::new(),
        partitions: HashMap::new(),
    };
    wanted.iter().for_each(|wanted| session.put(wanted));
    session
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::generated::fetch::{FetchTopic, ForgottenTopic};

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32], forgotten: &[i32]) -> FetchRequest {
        let topics = vec![FetchTopic {
            topic: "t".into(),
            partitions: partitions.iter().map(|p| FetchPartition { partition: *p, ..Default::default() }).collect(),
            ..Default::default()
        }];
        let forgotten_topics_data = vec![ForgottenTopic { topic: "t".into(), partitions: forgotten.to_vec(), ..Default::default() }];
        FetchRequest { session_id, session_epoch, topics, forgotten_topics_data, ..Default::default() }
    }

    fn numbers(opened: &Opened) -> Vec<i32> {
        opened.wanted.iter().map(|w| w.key.partition).collect()
    }

    const QUIET: Answered = Answered { error: false, has_records: false, high_watermark: 5, log_start: 0 };

    #[test]
    fn a_session_remembers_and_answers_only_changes() {
        let sessions = FetchSessions::new(10);
        let full = sessions.open(&request(0, 0, &[0, 1, 2], &[]), 12, || 77).unwrap();
        assert_eq!((full.session_id, full.incremental, numbers(&full)), (77, false, vec![0, 1, 2]));
        assert_eq!(sessions.answer(&full, &[QUIET; 3]), [true; 3]);
        let next = sessions.open(&request(77, 1, &[], &[]), 12, || 78).unwrap();
        assert_eq!((next.incremental, numbers(&next)), (true, vec![0, 1, 2]));
        let moved = Answered { high_watermark: 6, ..QUIET };
        let records = Answered { has_records: true, ..QUIET };
        assert_eq!(sessions.answer(&next, &[records, QUIET, moved]), [true, false, true]);
        let last = sessions.open(&request(77, 2, &[7], &[1]), 12, || 78).unwrap();
        assert_eq!(numbers(&last), [2, 0, 7], "who got records went behind, the new one is last, the forgotten one is gone");
        let failed = Answered { error: true, ..QUIET };
        assert_eq!(sessions.answer(&last, &[moved, failed, QUIET]), [false, true, true]);
        let after = sessions.open(&request(77, 3, &[], &[]), 12, || 78).unwrap();
        assert_eq!(sessions.answer(&after, &[moved, QUIET, QUIET]), [false, true, false], "after an error the partition is returned again");
    }

    #[test]
    fn wrong_ids_and_epochs_are_refused() {
        let sessions = FetchSessions::new(1);
        sessions.open(&request(0, 0, &[0], &[]), 12, || 77).unwrap();
        assert_eq!(sessions.open(&request(5, 1, &[], &[]), 12, || 1), Err(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(sessions.open(&request(77, 2, &[], &[]), 12, || 1), Err(ErrorCode::InvalidFetchSessionEpoch));
        assert_eq!(sessions.open(&request(77, 1, &[], &[]), 13, || 1), Err(ErrorCode::FetchSessionTopicIdError));
        assert_eq!(sessions.open(&request(0, 0, &[0], &[]), 12, || 78).unwrap().session_id, 0, "the cache is full");
        assert_eq!(sessions.open(&request(77, -1, &[0], &[]), 12, || 78).unwrap().session_id, 0);
        assert_eq!(sessions.open(&request(77, 1, &[], &[]), 12, || 1), Err(ErrorCode::FetchSessionIdNotFound), "closed by the client");
    }

    #[test]
    fn a_session_that_forgets_everything_ends() {
        let sessions = FetchSessions::new(1);
        sessions.open(&request(0, 0, &[0], &[]), 12, || 77).unwrap();
        let opened = sessions.open(&request(77, 1, &[], &[0]), 12, || 78).unwrap();
        assert_eq!(opened, Opened { session_id: 0, incremental: false, wanted: vec![] });
    }
}
