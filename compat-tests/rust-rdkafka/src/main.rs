//! librdkafka through rust-rdkafka; see ../README.md for the operations.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

type Done<T> = Result<T, Box<dyn std::error::Error>>;

const PATIENCE: Duration = Duration::from_secs(60);

struct Options(BTreeMap<String, String>);

impl Options {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str, default: i64) -> i64 {
        self.0.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.text("bootstrap"));
        config
    }

    fn consumer(&self, group: &str) -> ClientConfig {
        let isolation = self.0.get("isolation").map_or("read_uncommitted", String::as_str);
        let mut config = self.client();
        config.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false").set("session.timeout.ms", "10000");
        config.set("heartbeat.interval.ms", "500").set("isolation.level", isolation);
        config.set("fetch.message.max.bytes", self.number("max_bytes", 1 << 20).to_string());
        config
    }
}

fn enc(value: Option<&[u8]>) -> String {
    value.map_or("-".into(), |bytes| format!("={}", STANDARD.encode(bytes)))
}

fn dec(text: &str) -> Done<Option<Vec<u8>>> {
    Ok(text.strip_prefix('=').map(|rest| STANDARD.decode(rest)).transpose()?)
}

fn say(words: &[&str]) {
    println!("{}", words.join("\t"));
}

fn show(message: &BorrowedMessage<'_>) {
    let headers: Vec<String> =
        message.headers().into_iter().flat_map(|all| all.iter().map(|h| format!("{}:{}", h.key, enc(h.value))).collect::<Vec<_>>()).collect();
    let timestamp = message.timestamp().to_millis().unwrap_or(-1).to_string();
    let place = [message.partition().to_string(), message.offset().to_string()];
    say(&["rec", &place[0], &place[1], &timestamp, &enc(message.key()), &enc(message.payload()), &headers.join(",")]);
}

/// True once the runner has closed our input: finish.
fn input_closed() -> Arc<AtomicBool> {
    let closed = Arc::new(AtomicBool::new(false));
    let told = closed.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    closed
}

/// Prints what was acknowledged; the words are the record's opaque.
struct Acks {
    failed: Mutex<Option<String>>,
    with_offset: bool,
    on_error: OnError,
}

/// What happens with a record that was not acknowledged.
#[derive(Clone, Copy, PartialEq)]
enum OnError {
    Fail,
    /// Its number is printed with librdkafka's code.
    Print,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<String>;

    fn delivery(&self, result: &DeliveryResult<'_>, word: Box<String>) {
        match result {
            Ok(message) if self.with_offset => say(&["ack", &word, &message.offset().to_string()]),
            Ok(_) => say(&["ack", &word]),
            Err((error, _)) if self.on_error == OnError::Print => {
                let code = error.rdkafka_error_code().map_or(0, |code| code as i32);
                say(&["error", &word, &code.to_string()]);
            }
            Err((error, _)) => *self.failed.lock().expect("no panic") = Some(error.to_string()),
        }
    }
}

/// Prints the partitions after each change.
struct Held(Mutex<BTreeSet<i32>>);

impl ClientContext for Held {}

impl ConsumerContext for Held {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.change(list, |held, partition| held.remove(&partition));
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            self.change(list, |held, partition| held.insert(partition));
        }
    }
}

impl Held {
    fn change(&self, list: &TopicPartitionList, mut each: impl FnMut(&mut BTreeSet<i32>, i32) -> bool) {
        let mut held = self.0.lock().expect("no panic");
        list.elements().iter().for_each(|element| {
            each(&mut held, element.partition());
        });
        say(&["assigned", &held.iter().map(i32::to_string).collect::<Vec<_>>().join(",")]);
    }
}

fn main() -> Done<()> {
    let mut words = std::env::args().skip(1);
    let operation = words.next().unwrap_or_default();
    let pairs = words.filter_map(|word| word.split_once('=').map(|(key, value)| (key.to_string(), value.to_string())));
    let o = Options(pairs.collect());
    match operation.as_str() {
        "metadata" => metadata(&o),
        "create" => create(&o),
        "produce" => produce(&o, OnError::Fail),
        "reports" => produce(&o, OnError::Print),
        "consume" => consume(&o),
        "group" => group(&o),
        "stream" => stream(&o),
        _ => {
            eprintln!("librdkafka's {operation} is tried by confluent-kafka");
            std::process::exit(77)
        }
    }
}

fn metadata(o: &Options) -> Done<()> {
    let consumer: BaseConsumer = o.client().create()?;
    let found = consumer.fetch_metadata(None, PATIENCE)?;
    found.brokers().iter().for_each(|broker| say(&["broker", &format!("{}:{}", broker.host(), broker.port())]));
    found.topics().iter().for_each(|topic| say(&["topic", topic.name(), &topic.partitions().len().to_string()]));
    Ok(())
}

fn create(o: &Options) -> Done<()> {
    let admin: AdminClient<_> = o.client().create()?;
    let topic = NewTopic::new(o.text("topic"), o.number("partitions", 1) as i32, TopicReplication::Fixed(1));
    for created in futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
        created.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    Ok(())
}

fn produce(o: &Options, on_error: OnError) -> Done<()> {
    let mut config = o.client();
    match on_error {
        OnError::Fail => config.set("compression.type", o.text("codec")).set("enable.idempotence", "true").set("linger.ms", "50"),
        OnError::Print => config.set("linger.ms", "500"),
    };
    config.set("message.max.bytes", o.number("max_bytes", 1_000_000).to_string());
    let acks = Acks { failed: Mutex::new(None), with_offset: true, on_error };
    let producer: ThreadedProducer<Acks> = config.create_with_context(acks)?;
    for (number, line) in BufReader::new(std::fs::File::open(o.text("file"))?).lines().enumerate() {
        let line = line?;
        let words: Vec<&str> = line.split('\t').collect();
        let (key, value) = (dec(words[0])?, dec(words[1])?);
        let mut headers = OwnedHeaders::new();
        for (name, value) in words[2].split(',').filter_map(|pair| pair.split_once(':')) {
            headers = headers.insert(Header { key: name, value: dec(value)?.as_ref() });
        }
        let mut record = BaseRecord::with_opaque_to(o.text("topic"), Box::new(number.to_string())).partition(words[3].parse()?).headers(headers);
        record.key = key.as_deref();
        record.payload = value.as_deref();
        record.timestamp = words[4].parse().ok().filter(|timestamp| *timestamp != 0);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    producer.context().failed.lock().expect("no panic").take().map_or(Ok(()), |error| Err(error.into()))
}

fn consume(o: &Options) -> Done<()> {
    let (topic, partition) = (o.text("topic"), o.number("partition", 0) as i32);
    let consumer: BaseConsumer = o.consumer("reader").create()?;
    let (low, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
    let start = match o.text("start").split_once(':') {
        Some(("offset", place)) => place.parse()?,
        Some((_, time)) => {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_offset(topic, partition, Offset::Offset(time.parse()?))?;
            consumer.offsets_for_times(asked, PATIENCE)?.elements()[0].offset().to_raw().unwrap_or(end)
        }
        None => low,
    };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(start))?;
    consumer.assign(&list)?;
    // The last offsets may be markers: then the position gets there, and no record.
    let position = || consumer.position().ok().and_then(|p| p.find_partition(topic, partition)?.offset().to_raw()).unwrap_or(start);
    while position() < end {
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            show(&message?);
        }
    }
    Ok(())
}

fn group(o: &Options) -> Done<()> {
    let closed = input_closed();
    let consumer: BaseConsumer<Held> = o.consumer(o.text("group")).create_with_context(Held(Mutex::default()))?;
    consumer.subscribe(&[o.text("topic")])?;
    while !closed.load(Ordering::Relaxed) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            show(&message);
            consumer.commit_message(&message, CommitMode::Sync)?;
        }
    }
    Ok(())
}

fn stream(o: &Options) -> Done<()> {
    let closed = input_closed();
    let mut config = o.client();
    config.set("enable.idempotence", "true").set("message.timeout.ms", "120000").set("linger.ms", "5");
    config.set("retry.backoff.ms", "50").set("reconnect.backoff.max.ms", "200");
    let producer: ThreadedProducer<Acks> = config.create_with_context(Acks { failed: Mutex::new(None), with_offset: false, on_error: OnError::Fail })?;
    let (rate, partitions, begin) = (o.number("rate", i64::from(u32::MAX)) as f64, o.number("partitions", 1), Instant::now());
    let mut number = 0_i64;
    while !closed.load(Ordering::Relaxed) {
        if producer.in_flight_count() >= 2000 || number as f64 >= begin.elapsed().as_secs_f64() * rate {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let value = format!("s{number}");
        let record = BaseRecord::<(), String, _>::with_opaque_to(o.text("topic"), Box::new(value.clone()));
        producer.send(record.payload(&value).partition((number % partitions) as i32)).map_err(|(error, _)| error)?;
        number += 1;
    }
    Ok(producer.flush(PATIENCE)?)
}
