//! Writes the sound inputs of the corpus, from which fuzzing begins: `cargo run --example seeds` in this folder.

use std::fs;
use std::path::Path;

use dlog::records::{BatchBuilder, Codec, NewRecord, compress};
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
    Ok(())
}
