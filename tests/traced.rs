//! The real binary under strace: what it reads when it serves, and what it says when the disk fails. Run by `make traced`.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::process::{Process, command};
use common::{Client, fetched, load};
use dlog::protocol::ErrorCode;
use dlog::records::{BatchBuilder, Codec, NewRecord, batches};

/// Bytes of a batch's header, which has to be read.
const HEADER_BYTES: u64 = 61;

/// strace on a running process.
struct Trace {
    strace: Child,
    output: std::path::PathBuf,
}

impl Trace {
    fn attach(process: &Process, folder: &Path, words: &[&str]) -> Trace {
        let output = folder.join("trace");
        let pid = process.child.id().to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-p", &pid, "-o"]).arg(&output).args(words).stderr(Stdio::piped());
        let mut strace = strace.spawn().expect("strace is there; make traced installs it");
        // It says when it has attached.
        let mut lines = BufReader::new(strace.stderr.take().expect("piped")).lines();
        let attached = lines.find(|line| line.as_ref().is_ok_and(|l| l.contains("attached")));
        assert!(attached.is_some(), "strace may not attach");
        std::thread::spawn(move || lines.for_each(drop));
        Trace { strace, output }
    }

    fn detach(mut self) -> String {
        Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status().expect("kill runs");
        self.strace.wait().expect("it ends");
        std::fs::read_to_string(&self.output).expect("a trace")
    }
}

/// Name and result of each call that gave something.
fn calls(trace: &str) -> Vec<(String, u64)> {
    let call = |line: &str| {
        let (_, rest) = line.split_once(|c: char| c.is_whitespace())?;
        let rest = rest.trim_start().trim_start_matches("<... ");
        let name = rest.split(['(', ' ']).next()?.to_string();
        let result = line.rsplit_once(" = ")?.1.split(' ').next()?.parse().ok()?;
        Some((name, result))
    };
    trace.lines().filter_map(call).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace; run by make traced"]
async fn records_go_from_file_to_socket_without_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let process = Process::start(command(&data));
    let mut client = Client::connect_to(process.address).await;
    client.create_topic("t", 1, &[("segment.bytes", "16777216")]).await;
    let sent = load::produce(&mut client, "t", 0, &load::batch(900, Codec::None), 64 << 20).await;
    assert!(process.terminate());
    let process = Process::start(command(&data));
    let mut client = Client::connect_to(process.address).await;
    // Bytes that came, and how many of them were batches that came whole: an answer may end in half a batch.
    let all = async |client: &mut Client| {
        let (mut offset, mut came, mut whole) = (0, 0, 0);
        loop {
            let bytes = fetched(&client.fetch("t", 0, offset).await);
            came += bytes.len();
            let Some(last) = batches(&bytes).map_while(Result::ok).inspect(|(_, bytes)| whole += bytes.len()).last() else {
                return (came, whole);
            };
            offset = last.0.next_offset().0;
        }
    };
    // The first reader's bytes are checked, which reads them.
    let (came, whole) = all(&mut client).await;
    assert_eq!(whole, sent);
    let trace = Trace::attach(&process, folder.path(), &["-e", "trace=sendfile,read,pread64,readv,preadv"]);
    assert_eq!(all(&mut client).await, (came, whole));
    let calls = calls(&trace.detach());
    let sum = |name: &str| calls.iter().filter(|(n, _)| n == name).map(|(_, bytes)| bytes).sum::<u64>();
    let headers = calls.iter().filter(|(name, _)| name == "pread64").count();
    println!(
        "{came} bytes of batches came; sendfile {}, pread64 {} in {headers} calls, read {}",
        sum("sendfile"),
        sum("pread64"),
        sum("read")
    );
    assert_eq!(sum("sendfile"), came as u64, "all records leave by sendfile");
    assert!(calls.iter().all(|(name, bytes)| name == "sendfile" || *bytes <= HEADER_BYTES), "nothing but headers is read: {calls:?}");
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace; run by make traced"]
async fn a_sync_that_fails_is_never_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let batch = |value: &[u8]| BatchBuilder::new().record(NewRecord::value(value)).build(1_700_000_000_000);
    let mut fsync = command(&data);
    fsync.args(["--set", "durability.profile=fsync"]);
    let process = Process::start(fsync);
    let mut client = Client::connect_to(process.address).await;
    client.create_topic("t", 1, &[]).await;
    for at in 0..10 {
        let produced = client.produce("t", 0, &batch(b"before")).await;
        assert_eq!((produced.error_code, produced.base_offset), (0, at));
    }
    let trace =
        Trace::attach(&process, folder.path(), &["-e", "trace=fsync,fdatasync,syncfs", "-e", "inject=fsync,fdatasync,syncfs:error=EIO"]);
    assert_eq!(client.produce("t", 0, &batch(b"lost")).await.error_code, ErrorCode::KafkaStorageError.code());
    trace.detach();
    // The disk works again, but what the kernel forgot does not come back: not before the next start.
    assert_eq!(client.produce("t", 0, &batch(b"later")).await.error_code, ErrorCode::KafkaStorageError.code());
    assert_eq!(client.fetch("t", 0, 0).await.responses[0].partitions[0].error_code, ErrorCode::KafkaStorageError.code());
    process.kill();
    let process = Process::start(command(&data));
    let mut client = Client::connect_to(process.address).await;
    assert!(client.produce("t", 0, &batch(b"after")).await.base_offset >= 10);
    process.kill();
}
