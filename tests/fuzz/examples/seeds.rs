//! Writes the sound inputs of the corpus, from which fuzzing begins: `cargo run --example seeds` in this folder.

use std::fs;
use std::path::Path;

use dlog::records::{BatchBuilder, Codec, NewRecord, compress};
use bytes::Bytes;
use dlog::coordinator::GroupRecord;
use dlog::protocol::Message;
use dlog::protocol::generated::consumer_offsets::{GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue};
use dlog::protocol::generated::transaction_state::{PartitionsSchema, TransactionLogKey, TransactionLogValue};
use dlog::wire::Writer;
use dlog_fuzz::coordinators::input;
use dlog_fuzz::{Damaged, sound_checkpoint, sound_file, sound_journal};

fn main() -> std::io::Result<()> {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    for (codec, name) in [(Codec::None, "plain"), (Codec::Gzip, "gzip"), (Codec::Snappy, "snappy"), (Codec::Lz4, "lz4"), (Codec::Zstd, "zstd")] {
        let headers: Vec<(&str, Option<&[u8]>)> = vec![("h", Some(b"v"))];
        let keyed = NewRecord { headers, ..NewRecord::keyed(b"key", Some(b"a value a value a value")) };
        let builder = BatchBuilder::new().codec(codec).producer(9, 0, 0).record(keyed).record(NewRecord::keyed(b"key", None));
        let batch = builder.build(1_700_000_000_000);
        for choice in [0, 2, 16] {
            put("batch", &format!("{name}-{choice}"), &[&[choice], &batch[..]].concat())?;
        }
        if codec != Codec::None {
            let text = b"some text, some text, some more of it".repeat(20);
            put(name, "text", &compress(codec, &text).expect("it can be compressed"))?;
            put(name, "nothing", &compress(codec, b"").expect("it can be compressed"))?;
        }
    }
    put("index", "sound", sound_file(Damaged::Index))?;
    put("time_index", "sound", sound_file(Damaged::TimeIndex))?;
    put("snapshot", "sound", sound_file(Damaged::Snapshot))?;
    put("journal", "sound", &sound_journal())?;
    for choice in 0..4 {
        if let Some(text) = sound_checkpoint(choice) {
            put("checkpoint", &format!("sound-{choice}"), &[&[choice], text].concat())?;
        }
    }
    put("groups", "two", &groups())?;
    for status in 0..6 {
        put("transactions", &format!("state-{status}"), &transactions(status))?;
    }
    Ok(())
}

/// A group with two members, of which one is static, its offsets, and a group without members.
fn groups() -> Vec<u8> {
    let member = |id: &str, instance: Option<&str>| MemberMetadata {
        member_id: id.into(),
        group_instance_id: instance.map(Into::into),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout: 60_000,
        session_timeout: 10_000,
        subscription: Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 0]),
        assignment: Bytes::from_static(b"all"),
    };
    let value = |members: Vec<MemberMetadata>| GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("a".into()),
        current_state_timestamp: 1_700_000_000_000,
        members,
    };
    let group = |id: &str, members| GroupRecord::Group(GroupMetadataKey { group: id.into() }, Some(value(members)));
    let committed = OffsetCommitValue { offset: 7, leader_epoch: -1, commit_timestamp: 1_700_000_000_000, expire_timestamp: -1, ..Default::default() };
    let offset = GroupRecord::Offset(OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 0 }, Some(committed));
    let records = [group("g", vec![member("a", None), member("b", Some("i"))]), group("h", Vec::new()), offset.clone(), offset];
    input(&[0, 8, 16, 1].into_iter().zip(records).map(|(choice, record)| (choice, record.key(), record.value())).collect::<Vec<_>>())
}

/// A transactional id in a state.
fn transactions(status: i8) -> Vec<u8> {
    let encoded = |number: i16, encode: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        writer.int16(number);
        encode(&mut writer);
        writer.into_bytes()
    };
    let key = TransactionLogKey { transactional_id: "id".into() };
    let value = TransactionLogValue {
        producer_id: 7,
        previous_producer_id: -1,
        next_producer_id: -1,
        producer_epoch: 3,
        transaction_timeout_ms: 60_000,
        transaction_status: status,
        transaction_partitions: (status > 0).then(|| vec![PartitionsSchema { topic: "t".into(), partition_ids: vec![0] }]),
        transaction_last_update_timestamp_ms: 1_700_000_000_000,
        transaction_start_timestamp_ms: 1_700_000_000_000,
        ..Default::default()
    };
    input(&[(status as u8, encoded(0, &|writer| key.encode(writer, 0)), Some(encoded(1, &|writer| value.encode(writer, 1))))])
}
