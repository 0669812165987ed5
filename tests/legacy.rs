//! Messages of formats 0 and 1 in an old directory: checked, and fetched as they are stored.

mod common;

use common::logs::{log_config, open_log};
use dlog::env::RealDisk;
use dlog::model::Offset;
use dlog::records::{Codec, batches, compress};
use dlog::storage::{Depth, FirstBatch, Recovery, dump};

/// Offset, size and checksum in front of a message's format.
const PREFIX: usize = 16;

/// A message as an old broker stored it.
fn message(magic: u8, attributes: u8, offset: i64, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![magic, attributes];
    if magic == 1 {
        body.extend_from_slice(&timestamp.to_be_bytes());
    }
    for field in [key, value] {
        body.extend_from_slice(&field.map_or(-1, |field| field.len() as i32).to_be_bytes());
        body.extend_from_slice(field.unwrap_or_default());
    }
    let size = (body.len() + 4) as i32;
    [&offset.to_be_bytes()[..], &size.to_be_bytes(), &crc32fast::hash(&body).to_be_bytes(), &body].concat()
}

fn read(bytes: &[u8]) -> Vec<(i64, i64, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for batch in batches(bytes) {
        let (header, batch) = batch.unwrap();
        header.check_crc(batch).unwrap();
        for record in header.open(batch, 1 << 20).unwrap().records() {
            let record = record.unwrap();
            let offset = header.base_offset.0 + i64::from(record.offset_delta);
            all.push((offset, header.base_timestamp + record.timestamp_delta, record.value.map(<[u8]>::to_vec)));
        }
    }
    all
}

#[test]
fn plain_messages_are_batches_of_one() {
    let zero = message(0, 0, 5, 0, Some(b"k"), Some(b"zero"));
    let one = message(1, 0, 6, 1234, None, None);
    assert_eq!(read(&[zero, one].concat()), [(5, -1, Some(b"zero".to_vec())), (6, 1234, None)]);
}

#[test]
fn the_offsets_of_compressed_messages_are_found() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4] {
        for magic in [0, 1] {
            let first = if magic == 0 { 7 } else { 0 };
            // Compaction has taken the one in the middle.
            let inner = [(0, 100), (2, 300)].map(|(at, ms)| message(magic, 0, first + at, ms, Some(b"k"), Some(&[at as u8]))).concat();
            let wrapper = message(magic, codec as u8, 9, 300, None, Some(&compress(codec, &inner).unwrap()));
            let ms = |ms| if magic == 0 { -1 } else { ms };
            assert_eq!(read(&wrapper), [(7, ms(100), Some(vec![0])), (9, ms(300), Some(vec![2]))], "{codec:?} {magic}");
        }
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let sound = message(1, 0, 6, 1234, Some(b"key"), Some(b"value"));
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 0x41;
        for (header, bytes) in batches(&flipped).map_while(Result::ok) {
            // Offset and size lie outside the checksum.
            assert!(at < 12 || header.check_crc(bytes).is_err(), "byte {at}");
            let _ = header.open(bytes, 1 << 20).map(|opened| opened.records().count());
        }
        assert_eq!(batches(&sound[..at]).count(), 0);
    }
}

#[test]
fn an_old_directory_is_checked_and_fetched_as_stored() {
    let folder = tempfile::tempdir().unwrap();
    let inner = [(0, 300), (1, 400)].map(|(at, ms)| message(1, 0, at, ms, Some(b"k"), Some(&[at as u8]))).concat();
    let stored = [
        message(0, 0, 0, 0, Some(b"k"), Some(b"zero")),
        message(1, 0, 1, 200, Some(b"k"), None),
        message(1, Codec::Gzip as u8, 3, 400, None, Some(&compress(Codec::Gzip, &inner).unwrap())),
    ];
    let whole = stored.concat();
    let path = folder.path().join("00000000000000000000.log");
    std::fs::write(&path, [&whole[..], &message(1, 0, 4, 500, None, Some(b"torn"))[..20]].concat()).unwrap();
    let (log, report) = open_log(folder.path(), log_config(1 << 20, 100), Recovery::From(Offset(0)));
    assert_eq!((log.log_end(), report.cut_bytes), (Offset(4), 20));
    for (offset, from) in [(0, 0), (1, stored[0].len()), (2, whole.len() - stored[2].len()), (3, whole.len() - stored[2].len())] {
        let slice = log.reader().read(Offset(offset), log.log_end(), 1 << 20, FirstBatch::Whole).unwrap().expect("it is there");
        assert_eq!(slice.check().unwrap().read().unwrap(), whole[from..], "offset {offset}");
    }
    let found = |ms| log.reader().find_by_time(ms).unwrap().map(|found| (found.offset.0, found.timestamp_ms));
    assert_eq!([found(100), found(201), found(301), found(401)], [Some((1, 200)), Some((2, 300)), Some((3, 400)), None]);
    let mut text = Vec::new();
    assert!(dump(&RealDisk, &path, Depth::Records, &mut text).unwrap());
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("magic: 1").count(), 2);
    assert!(text.contains("offset: 2 CreateTime: 300 keySize: 1"), "{text}");
    drop(log);
    // One flipped bit of a checksum's bytes: what lies before it stays.
    let mut flipped = std::fs::read(&path).unwrap();
    flipped[stored[0].len() + PREFIX + 3] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    let (log, _) = open_log(folder.path(), log_config(1 << 20, 100), Recovery::From(Offset(0)));
    assert_eq!(log.log_end(), Offset(1));
}
