#!/usr/bin/env python3
"""Breaks one rule of the log at a time and sees that the tests find it: `make bugs`.

Each bug is a change of one place in a copy of the sources. A check that cannot fail is worth nothing; exit code 1 says that a bug was not found.
"""
import shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORAGE = "src/storage/"
# What is broken, where, what stands there, what stands there then, and the tests that must fail.
BUGS = [
    ("do not cut the torn tail", STORAGE + "recovery.rs", "segment.cut()?;", "", "crash"),
    ("trust a segment after a crash", STORAGE + "recovery.rs", "next_base.is_some_and(|next| next <= offset)", "next_base.is_some() || offset >= base", "crash"),
    ("go on after a segment that is short", STORAGE + "recovery.rs", "Ok((segment, torn || short))", "let _ = short; Ok((segment, torn))", "crash"),
    ("the recovery point without a sync", STORAGE + "log.rs", "file.sync().map_err(Error::io(\"sync\", path))?;\n        }\n        for path in &self.written", "let _ = (file, path);\n        }\n        for path in &self.written", "crash"),
    ("forget the directory sync", STORAGE + "log.rs", "if self.names {", "if false && self.names {", "crash"),
    ("let a clean stop come back", STORAGE + "directory.rs", "            disk.sync_dir(path).map_err(Error::io(\"sync\", path))?;\n        }\n        let recovery_points", "        }\n        let recovery_points", "crash"),
    ("swap without marker", STORAGE + "log.rs", "disk.rename(&cleaned, &swap)", "disk.rename(&cleaned, &segment.path(\"log\")).and_then(|()| disk.write(&swap, b\"\"))", "crash"),
    ("compact what is not durable", "src/partition/partitions.rs", "let durable = self.sync_in(&replica.home, std::slice::from_ref(&replica));", "let durable = Ok::<(), Error>(());", "crash"),
    ("sync again after a failure", "src/partition/open_directory.rs", "!self.offline.swap(true, Ordering::AcqRel)", "false", "crash"),
    ("leave what a full disk took", STORAGE + "segment.rs", "            let _ = file.truncate(size);\n            return Err", "            self.change().size = file.size().unwrap_or(size);\n            return Err", "crash"),
    ("reuse an offset", STORAGE + "segment.rs", "self.next_offset = header.next_offset();\n    }\n\n    fn note_largest", "self.next_offset = header.last_offset();\n    }\n\n    fn note_largest", "storage_log"),
    ("wrong delete horizon", STORAGE + "cleaner.rs", "now_ms <= horizon_ms", "now_ms <= horizon_ms + 1", "compaction"),
    ("keep outdated records", STORAGE + "cleaner.rs", "offset >= *last)", "offset >= last.plus(-1))", "compaction"),
    ("forget a producer's last batch", STORAGE + "cleaner.rs", " || cleaning.last_batches.contains(&(header.producer_id, header.last_offset()))", "", "compaction"),
    ("show what is not durable", "src/partition/replica.rs", "Durability::Fsync => log.recovery_point(),", "Durability::Fsync => log.log_end(),", "crash"),
    ("acknowledge what is not durable", "src/server/handlers/produce.rs", "if acks != 0 && !uncommitted.is_empty() {", "if acks > 1 && !uncommitted.is_empty() {", "simulation"),
    ("store a retry again", STORAGE + "producers.rs", "return Ok(Verdict::Duplicate { base_offset, timestamp_ms: batch.timestamp_ms });", "let _ = base_offset;\n            return Ok(Verdict::Append);", "simulation"),
    ("keep the first of a group's offsets", "src/coordinator/shard.rs", "group.offsets.insert((key.topic.clone(), key.partition), committed);", "group.offsets.entry((key.topic.clone(), key.partition)).or_insert(committed);", "simulation"),
    ("give out what was not checked", "src/server/handlers/fetch.rs", "take_if(|slice| !slice.is_checked())", "take_if(|_| false)", "directories"),
    ("serve a bad CRC", STORAGE + "scan.rs", "header.check_crc(batch).map_err(Stop::Batch)?;", "", "inspect"),
    ("index off by one", STORAGE + "index.rs", "low.checked_sub(1).and_then(|at| self.get(at))\n    }\n}", "self.get(low)\n    }\n}", "storage_log"),
]


def main():
    wanted = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="dlog-bugs-"))
    copied = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for name in copied:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    missed = 0
    for what, name, there, then, test in BUGS:
        if wanted and not any(word in what for word in wanted):
            continue
        path, begin = folder / name, time.time()
        text = path.read_text()
        assert text.count(there) == 1, f"{what}: {name} holds {text.count(there)} times {there!r}"
        path.write_text(text.replace(there, then))
        run = lambda *words: subprocess.run(["cargo", *words, "--target-dir", str(ROOT / "target" / "bugs"), "--test", test], cwd=folder,
                                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
        built = run("test", "--no-run")
        assert built.returncode == 0, f"{what} does not compile:\n{built.stdout[-3000:]}"
        try:
            found = run("test").returncode != 0
        except subprocess.TimeoutExpired:
            found = True
        missed += not found
        print(f"{'found' if found else 'MISSED':<7} {what:<40} {test:<12} {time.time() - begin:5.0f} s", flush=True)
        path.write_text(text)
    shutil.rmtree(folder)
    print(f"{missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
