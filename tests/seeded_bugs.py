#!/usr/bin/env python3
"""Breaks one rule of the log at a time and sees that the tests find it: `make bugs`.

Each bug is a change of one place in a copy of the sources. A check that cannot fail is worth nothing; exit code 1 says that a bug was not found.
"""
import shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORAGE = "src/storage/"
TRANSACTIONS = "src/coordinator/transactions/"
CLUSTER = "src/cluster/"
# What is broken, where, what stands there, what stands there then, and the tests that must fail.
BUGS = [
    ("do not cut the torn tail", STORAGE + "recovery.rs", "segment.cut()?;", "", "storage_log"),
    ("trust a segment after a crash", STORAGE + "recovery.rs", "next_base.is_some_and(|next| next < offset)", "next_base.is_some() || offset >= base", "crash"),
    ("trust indexes that came later", STORAGE + "recovery.rs", "next_base.is_some_and(|next| next < offset)", "next_base.is_some_and(|next| next <= offset)", "crash"),
    ("forget the indexes of a full segment", STORAGE + "log.rs", "self.note_written(indexes);", "self.note_written(indexes.into_iter().take(0));", "crash"),
    ("go on after a segment that is short", STORAGE + "recovery.rs", "is_torn: torn || short }", "is_torn: torn && (short || torn) }", "crash"),
    ("the recovery point without a sync", STORAGE + "unflushed.rs", "self.file.sync().map_err(failed)\n", "self.file.size().map(drop).map_err(failed)\n", "crash"),
    ("forget the directory sync", STORAGE + "unflushed.rs", "if self.names {", "if false && self.names {", "crash"),
    ("let a clean stop come back", STORAGE + "directory.rs", "            disk.sync_dir(path).map_err(Error::io(\"sync\", path))?;\n        }\n        let recovery_points", "        }\n        let recovery_points", "crash"),
    ("swap without marker", STORAGE + "log.rs", "disk.rename(&cleaned, &swap)", "disk.rename(&cleaned, &segment.path(\"log\")).and_then(|()| disk.write(&swap, b\"\"))", "crash"),
    ("compact what is not durable", "src/partition/partitions.rs", "let durable = self.sync_in(&replica.home, std::slice::from_ref(&replica));", "let durable = Ok::<(), Error>(());", "crash"),
    ("sync again after a failure", "src/partition/open_directory.rs", "!self.offline.swap(true, Ordering::AcqRel)", "false", "crash"),
    ("leave what a full disk took", STORAGE + "segment.rs", "            let _ = file.truncate(size);\n            return Err", "            self.change().size = file.size().unwrap_or(size);\n            return Err", "crash"),
    ("reuse an offset", STORAGE + "segment.rs", "self.next_offset = header.next_offset();\n    }\n\n    fn note_largest", "self.next_offset = header.last_offset();\n    }\n\n    fn note_largest", "storage_log"),
    ("wrong delete horizon", STORAGE + "cleaner.rs", "now_ms > horizon_ms)", "now_ms > horizon_ms + 1)", "compaction"),
    ("keep outdated records", STORAGE + "cleaner.rs", "offset >= *last)", "offset >= last.plus(-1))", "compaction"),
    ("forget a producer's last batch", STORAGE + "cleaner.rs", " || cleaning.last_batches.hold(header)", "", "compaction"),
    ("show what is not durable", "src/partition/replica.rs", "Durability::Fsync => log.committed(),", "Durability::Fsync => log_end,", "crash"),
    ("a truncation that the commit journal does not know", STORAGE + "directory.rs", "self.journal_starts.change(|| vec![(partition.clone(), Some(Offset(number as i64)))])", "Ok(drop(number))", "crash"),
    ("use the numbers of a commit journal again", STORAGE + "directory.rs", "CommitJournal::open(&disk, path, journal_starts.largest())", "CommitJournal::open(&disk, path, journal_starts.largest().min(0))", "truncation"),
    ("leave the recovery point above a truncation", STORAGE + "directory.rs", "for file in [&self.recovery_points, &self.cleaned] {", "for file in [&self.cleaned] {", "crash"),
    ("append to the file that was cut", STORAGE + "log.rs", "                self.roll(now_ms)?;\n            }\n        }\n        self.skip", "            }\n        }\n        self.skip", "truncation"),
    ("a truncation that is not durable", STORAGE + "log.rs", "self.skip_to_start(&mut deleted, now_ms)?;\n        self.disk().sync_dir(&self.directory).map_err(Error::io(\"sync\", &self.directory))?;", "self.skip_to_start(&mut deleted, now_ms)?;", "crash"),
    ("remove segments from the front", STORAGE + "log.rs", "        let Some(last) = self.segments.pop() else { return Ok(()) };", "        let at = self.segments.len().saturating_sub(2).max(1).min(self.segments.len() - 1);\n        let last = self.segments.remove(at);", "truncation"),
    ("keep the epochs of what was cut", STORAGE + "log.rs", "        self.epochs.truncate_end(self.log_end());\n", "", "truncation"),
    ("believe a checkpoint of epochs after a crash", STORAGE + "recovery.rs", "            self.epochs.truncate_end(base);\n", "", "truncation"),
    ("keep the producers of what was cut", STORAGE + "log.rs", "        self.producers = producers(self.disk(),", "        let _ = producers(self.disk(),", "truncation"),
    ("forget markers that readers do not see", STORAGE + "log.rs", "let needed_from = self.log_end().min(high_watermark);", "let needed_from = self.log_end().max(high_watermark);", "truncation"),
    ("keep aborted transactions of what was cut", STORAGE + "segment.rs", "known.aborted.iter().filter(|entry| entry.last_offset < next_offset.0).collect()", "known.aborted.iter().collect()", "truncation"),
    ("a flush from before a truncation counts", STORAGE + "log_durability.rs", "        Extent { cuts: self.cuts, end, segment: self.active().base, size }\n", "        Extent { cuts: 0, end, segment: self.active().base, size }\n", "truncation"),
    ("cut while a commit reads", "src/partition/commits.rs", "wait_while(running, |running| running.count > 0).unwrap_or_else(PoisonError::into_inner);\n        running.waiting -= 1;", "wait_while(running, |running| running.count > 9).unwrap_or_else(PoisonError::into_inner);\n        running.waiting -= 1;", "truncation"),
    ("a commit of another epoch counts", "src/partition/replica.rs", ">> ROLE_BITS == i64::from(at.epoch.0) {", ">> ROLE_BITS >= i64::from(at.epoch.0) {", "truncation"),
    ("the high watermark is the log's end", "src/partition/role.rs", "others.values().fold(own_end, |least, end| least.min(*end)).max(now)", "others.values().fold(own_end, |least, end| least.max(*end)).max(now)", "lib"),
    ("a new leader does not note its epoch", "src/partition/replica.rs", "            state.log.begin_epoch(epoch);\n", "", "truncation"),
    ("an unknown epoch is agreement", "src/server/handlers/fetch.rs", "        None => Err(out_of_range.into()),\n", "        None => Ok(None),\n", "administration"),
    ("an epoch below -1 is none", "src/partition/replica.rs", "Less if got.0 != -1 =>", "Less if got.0 >= 0 =>", "administration"),
    ("judge the history before the log start", "src/server/handlers/fetch.rs", "        Some(_) if offset < log_start => Err(out_of_range.into()),\n", "", "administration"),
    ("search by time skips the rest of a batch", STORAGE + "reader.rs", "if record_ms >= timestamp_ms && offset >= self.log_start {", "if record_ms >= timestamp_ms && header.base_offset >= self.log_start {", "storage_log"),
    ("a commit without a sync", STORAGE + "journal.rs", "Ok(()) => file.sync().map_err(Error::io(\"sync\", path))?,", "Ok(()) => {}", "crash"),
    ("trust a commit behind one that failed", STORAGE + "journal.rs", "self.turn >= state.broken_below", "self.turn >= state.broken_below.min(0)", "lib"),
    ("end a commit before its turn", STORAGE + "journal.rs", "state.ending_turn != self.turn", "state.ending_turn > self.turn + 1", "lib"),
    ("use a file again that is written to", STORAGE + "journal.rs", " && Arc::strong_count(&file.file) == 1", "", "lib"),
    ("forget what comes while a committer leaves", "src/partition/commits.rs", "if self.0.waiting_bytes.load(Ordering::SeqCst) > 0 {", "if self.0.waiting_bytes.load(Ordering::SeqCst) > u64::MAX >> 1 {", "lib"),
    ("forget the name of a commit journal", STORAGE + "journal.rs", "self.disk.sync_dir(&self.directory).map_err(Error::io(\"sync\", &self.directory))?;", "", "crash"),
    ("use a commit journal again before the flush", "src/partition/partitions.rs", "        let sealed = home.log.journal().seal();\n", "        let sealed = home.log.journal().seal();\n        home.log.journal().free(sealed)?;\n", "crash"),
    ("read an earlier use of a commit journal", STORAGE + "journal_format.rs", ".filter(|(number, _)| number == last_use.get_or_insert(*number))", ".filter(|(number, _)| last_use.insert(*number) == number)", "crash"),
    ("give back a torn commit", STORAGE + "journal_format.rs", "(crc32c::crc32c(rest) == u32::from_be_bytes(*crc) && number < u64::MAX)", "(u32::from_be_bytes(*crc) > 0 && number < u64::MAX)", "lib"),
    ("give nothing back", "src/partition/opening.rs", "let stored = if how == Recovery::New {", "let stored = if how != Recovery::Clean {", "crash"),
    ("drop what a broken partition needs", "src/partition/partitions.rs", "self.directories.iter().for_each(|home| home.log.journal().keep_found());", "", "crash"),
    ("acknowledge what is not durable", "src/server/handlers/produce.rs", "if acks != 0 && !uncommitted.is_empty() {", "if acks > 1 && !uncommitted.is_empty() {", "simulation"),
    ("store a retry again", STORAGE + "producers.rs", "return Ok(Verdict::Duplicate { base_offset, timestamp_ms: batch.timestamp_ms });", "let _ = base_offset;\n            return Ok(Verdict::Append);", "simulation"),
    ("advertise the port that was reached", "src/server/services.rs", "(host.clone(), i32::from(*port)),", "(host.clone(), i32::from(self.local.port())),", "simulation"),
    ("share the metrics of all brokers", "src/broker/assemble.rs", "let recorder = metrics_recorder();", "static SHARED: std::sync::LazyLock<metrics_exporter_prometheus::PrometheusRecorder> = std::sync::LazyLock::new(metrics_recorder);\n        let recorder = &*SHARED;", "several_brokers"),
    ("go on after a broken invariant", "src/env/fail_stop.rs", "        self.failed.cancel();\n        self.stop.cancel();\n", "", "several_brokers"),
    ("answer after a broken invariant", "src/env/tasks.rs", "() = dropped.cancelled() => None,", "() = dropped.cancelled(), if part != \"a connection\" => None,", "stopping"),
    ("serve who never stops sending", "src/server/connection.rs", "            biased;\n            () = stop.cancelled() => return Err(End::Stopping),\n            frame = self.frame() => frame?,", "            biased;\n            frame = self.frame() => frame?,\n            () = stop.cancelled() => return Err(End::Stopping),", "stopping"),
    ("read a frame to its end at a stop", "src/server/connection.rs", "            () = stop.cancelled() => return Err(End::Stopping),\n            frame = self.frame() => frame?,", "            () = stop.cancelled(), if self.buffer.is_empty() => return Err(End::Stopping),\n            frame = self.frame() => frame?,", "stopping"),
    ("wait for room in the queue at a stop", "src/server/connection.rs", "            () = stop.cancelled() => {}\n        }\n        self.answers()", "        }\n        let _ = stop;\n        self.answers()", "stopping"),
    ("keep an error of a topic that is deleted", "src/broker/tails.rs", "if replica.is_closed() { Vec::new() } else { vec![json!({ \"error\": error.to_string() })] }", "vec![json!({ \"error\": error.to_string() })]", "stopping"),
    ("mark as clean what is not quiet", "src/partition/partitions.rs", "self.close_with(|_| Ok(()))", "self.close_with(|home| Ok(home.log.mark_clean()?))", "truncation"),
    ("forget work on blocking threads", "src/env/workers.rs", "let _in_progress = in_progress;", "drop(in_progress);", "lib"),
    ("close the logs after a broken invariant", "src/broker/assemble.rs", "if let Some(reason) = self.fail_stop.reason() {", "if let Some(reason) = self.fail_stop.reason().filter(|reason| reason.is_empty()) {", "several_brokers"),
    ("move the position of a file that others read", "src/env/system/portable.rs", "    let _alone = cursor.0.lock().unwrap_or_else(PoisonError::into_inner);\n    file.seek(SeekFrom::Start(position))?;\n    let mut done", "    drop(cursor.0.lock().unwrap_or_else(PoisonError::into_inner));\n    file.seek(SeekFrom::Start(position))?;\n    let mut done", "lib"),
    ("forget what was written before a sync", "src/env/memory_disk.rs", "self.change(start.min(before)..end);", "self.change(start.max(before)..end);", "lib"),
    ("wait for an answer for ever", "src/client/connection.rs", "timeout(deadline, self.next_frame())", "timeout(deadline * 9, self.next_frame())", "lib"),
    ("keep the first of a group's offsets", "src/coordinator/shard.rs", "group.offsets.insert(id, committed);", "group.offsets.entry(id).or_insert(committed);", "simulation"),
    ("start an open broker although security is asked for", "src/broker/config.rs", "Some(first) if !sources.ignore_security =>", "Some(first) if sources.strict =>", "command_line"),
    ("drop options before the command", "src/cli/commands.rs", "[program, commands, options, rest].concat()", "[program, commands, rest].concat()", "command_line"),
    ("ask for no name of a listener", "src/broker/listeners.rs", "None if of == 1 =>", "None if of > 0 =>", "command_line"),
    ("end a broker whose log nobody reads", "src/cli/output.rs", "GOES_ON.load(Ordering::Relaxed) ||", "", "command_line"),
    ("continue a comment", "src/broker/properties.rs", "if open.is_none() && (natural.is_empty() || natural.starts_with(['#', '!'])) {", "if open.is_none() && natural.is_empty() {", "lib"),
    ("give out what was not checked", "src/server/handlers/fetch.rs", "take_if(|slice| !slice.is_checked())", "take_if(|_| false)", "directories"),
    ("serve a bad CRC", STORAGE + "scan.rs", "header.check_crc(batch).map_err(Stop::Batch)?;", "", "inspect"),
    ("index off by one", STORAGE + "index.rs", "self.count_where(holds).checked_sub(1).and_then(|at| self.get(at))", "self.get(self.count_where(holds))", "storage_log"),
    ("skip the sequence check", STORAGE + "producers.rs", "if first != expected {", "if first != expected && known.batches.is_empty() {", "broker"),
    ("forget the last stable offset", "src/partition/replica.rs", "self.last_stable.store(last_stable.0", "self.last_stable.store(high_watermark.0", "transactions"),
    ("aborted list off by one", STORAGE + "transactions.rs", "first_offset: ended.first_offset.0,", "first_offset: ended.first_offset.0 + 1,", "transactions"),
    ("lose the aborted list of sealed segments", STORAGE + "recovery.rs", "if let Some(ended) = ended.filter(|_| walked.contains(&segment.base)) {", "if let Some(ended) = ended.filter(|_| walked.len() > 999) {", "transactions"),
    ("answer EndTxn before the log", TRANSACTIONS + "service.rs", "                if let End::Prepared(next, _) = &decided {\n                    self.store(&mut access, id, next)?;", "                if let End::Prepared(next, _) = &decided {\n                    access.state.put(id, (**next).clone());", "transaction_crash"),
    ("no fencing", TRANSACTIONS + "transaction.rs", "Identity { epoch, .. } if epoch != self.producer.epoch => Err(ErrorCode::ProducerFenced),", "Identity { epoch, .. } if epoch > self.producer.epoch => Err(ErrorCode::ProducerFenced),", "transactions"),
    ("do not bump a fenced epoch", TRANSACTIONS + "transaction.rs", "(self.producer.epoch.0.saturating_add(1), NONE)", "(self.producer.epoch.0, NONE)", "transactions"),
    ("the marker to the wrong partition", TRANSACTIONS + "service.rs", "match self.write_marker(partition, &work.marker, work.rule) {", "match self.write_marker(&work.partitions[0], &work.marker, work.rule) {", "transactions"),
    ("a time-out that never fires", TRANSACTIONS + "shard.rs", "deadline_ms <= now.mono_ms", "deadline_ms <= now.mono_ms.min(0)", "transactions"),
    ("tell before the decision is durable", TRANSACTIONS + "service.rs", "                    stored.settled().await?;\n                    self.begin_completing(id).await;", "                    self.begin_completing(id).await;", "transaction_crash"),
    ("leave a decision that was cut short", TRANSACTIONS + "shard.rs", "let waits = |t: &Transaction| t.marker(0).is_some() && !t.is_completing;", "let waits = |t: &Transaction| t.marker(0).is_some() && t.is_completing;", "transaction_crash"),
    ("begin a transaction unasked", "src/partition/replica.rs", "if begins && !verification", "if begins && is_transactional != begins && !verification", "transactions"),
    ("leave what no coordinator knows", TRANSACTIONS + "service.rs", "self.write_marker(replica.id(), &marker, EpochRule::Stays)", "Ok::<_, ErrorCode>(())", "transactions"),
    ("count offsets before the commit", "src/coordinator/shard.rs", "                match place.producer {", "                match place.producer.filter(|_| value.offset < 0) {", "transactions"),
    ("compact by aborted values", STORAGE + "cleaner.rs", "if header.is_control() || transactions.is_aborted(header) || ", "if header.is_control() || ", "transactions"),
    ("load again in the same term", "src/coordinator/instances.rs", "if before == Some(term) && is_current {", "if before == Some(term) && is_current && number > 0 {", "lib"),
    ("a late load takes a new topic's place", "src/coordinator/instances.rs", "if !matches!(&*status, Status::Loading(loading) if *loading == term) {", "if matches!(&*status, Status::Resigned) {", "lib"),
    ("acknowledge a commit that is pending", "src/coordinator/instances.rs", "Stored { replica: self.replica.clone(), position: self.position }", "Stored { replica: self.replica.clone(), position: Position { end: self.replica.view().high_watermark, ..self.position } }", "lib"),
    ("load only what is absent", "src/coordinator/instances.rs", "Status::Absent | Status::Outdated => true,\n            Status::Loading(loading) => *loading != term,\n            Status::Active(active) => active.term != term,", "Status::Absent => true,\n            Status::Outdated | Status::Loading(_) | Status::Active(_) => false,", "lib"),
    ("load an outdated instance only when asked", "src/coordinator/instances.rs", "                *status = Status::Outdated;\n                self.outdated.notify_one();\n", "                *status = Status::Outdated;\n", "coordinators"),
    ("wait in the epoch of now", "src/coordinator/instances.rs", "Stored { replica: self.replica.clone(), position: self.position }", "Stored { replica: self.replica.clone(), position: self.replica.position().unwrap_or(self.position) }", "lib"),
    ("store what was decided in another epoch", "src/coordinator/instances.rs", "replica.append_in(self.term.leader_epoch, ", "replica.append_in(replica.leader_epoch(), ", "lib"),
    ("keep who waits for groups that have panicked", "src/coordinator/service.rs", "let _resigns = self.instances.resign_at_end();", "let _resigns = std::mem::ManuallyDrop::new(self.instances.resign_at_end());", "coordinators"),
    ("keep who waits for a deleted topic", "src/coordinator/instances.rs", "Status::Active(active) if active.replica.is_closed() => *status = Status::Absent,", "Status::Active(active) if active.replica.is_closed() => {}", "coordinators"),
    ("an unknown partition is done", TRANSACTIONS + "service.rs", "Ok(None) => outcome = Err(ErrorCode::UnknownTopicOrPartition),", "Ok(None) => {}", "coordinators"),
    ("give out the epoch that only fences", TRANSACTIONS + "transaction.rs", "if self.producer.epoch.0 <= EPOCH_LAST {", "if self.producer.epoch <= ProducerEpoch(i16::MAX) {", "lib"),
    ("fence who took too long", TRANSACTIONS + "transaction.rs", "Transaction { last_epoch: self.producer.epoch.0, ..self.fenced(now) }", "Transaction { last_epoch: NONE, ..self.fenced(now) }", "transactions"),
    ("wait for an id that is never used", "src/coordinator/group.rs", "GroupState::Empty if initial_delay_ms == 0 => {", "GroupState::Empty if initial_delay_ms < 0 => {", "groups"),
    ("take any body for its codec's", "src/records/check.rs", "check_frame(self.codec, &body)?;", "", "lib"),
    ("name only the first bad record", "src/records/check.rs", "rejected.len() < BAD_RECORDS_MAX", "rejected.is_empty()", "administration"),
    ("keep a producer's claim of append time", "src/records/check.rs", "        self.header.set_timestamp_type(self.rules.timestamp_type);\n", "", "lib"),
    ("empty messages on success", "src/server/handlers/describe_configs.rs", "Ok(configs) => (ErrorCode::None, None, configs),", "Ok(configs) => (ErrorCode::None, Some(String::new()), configs),", "served"),
    ("tell passwords", "src/server/handlers/describe_configs.rs", "let is_sensitive = s.kind == Kind::Password;", "let is_sensitive = s.kind == Kind::Class;", "administration"),
    ("check no more than frames", "src/partition/settings.rs", 'is_some_and(|check| check == "full")', 'is_some_and(|check| check == "Full")', "administration"),
    ("take null where a version has none", "src/wire/parse.rs", "if value.is_some() { Ok(()) } else { Err(Error::Length(-1).fatal()) }", "if true { Ok(()) } else { value.as_ref().map(drop).ok_or(Error::Length(-1).fatal()) }", "served"),
    ("take a deleted topic for a failed disk", STORAGE + "unflushed.rs", "if error.kind() == ErrorKind::NotFound && self.presence.is_over() => {}", "if error.kind() == ErrorKind::NotFound && self.directory.as_os_str().is_empty() => {}", "deletion"),
    ("read the file of another topic", STORAGE + "files.rs", "let opened = self.slot.presence.during(path, open)?;", "let opened = open()?;", "deletion"),
    ("compact into another topic's directory", STORAGE + "cleaner.rs", "presence.during(directory, || Segment::create_cleaned(&files.of_log(presence), directory, base))?;", "Segment::create_cleaned(&files.of_log(presence), directory, base)?;", "deletion"),
    ("report that a deleted topic was not compacted", "src/partition/partitions.rs", "if replica.is_closed() && !is_disk_failure(&error) {", "if is_disk_failure(&error) {", "deletion"),
    ("keep a deleted topic's recovery point", "src/partition/partitions.rs", "let points = || replicas.iter().filter(|r| !r.is_closed())", "let points = || replicas.iter().filter(|r| r.id().partition >= 0)", "deletion"),
    ("keep a deleted topic's log start", "src/partition/partitions.rs", " && !replica.is_closed());", ");", "deletion"),
    ("keep where a deleted topic was compacted", "src/partition/partitions.rs", "let clean_to = || if replica.is_closed() { Vec::new() }", "let clean_to = || if replica.id().partition < 0 { Vec::new() }", "deletion"),
    ("forget nothing when a topic is created again", "src/partition/placement.rs", "let Err(error) = home.log.forget(new) else { continue };", "let Err(error) = home.log.forget(|| new().into_iter().take(0).collect()) else { continue };", "deletion"),
    ("one remover ends the other", STORAGE + "directory.rs", "Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),\n            // A file", "Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),\n            // A file", "deletion"),
    ("give a directory a name that is too long", STORAGE + "directory.rs", ".take(NAME_BYTES_MAX - end.len())", ".take(NAME_BYTES_MAX)", "deletion"),
    ("let one partition stop the start", "src/partition/partitions.rs", "Err(error) => failed.push((id, topic_id, error)),\n            }\n        }\n        let (opened", "Err(error) => panic!(\"{id} {topic_id}: {error}\"),\n            }\n        }\n        let (opened", "deletion"),
    ("forget a deletion before it is durable", "src/partition/deletion.rs", ".filter(|home| home.take_renamed())", ".filter(|home| !home.take_renamed())", "deletion"),
    ("forget a deletion whose directory keeps its name", "src/partition/deletion.rs", "        self.unfinished().not_renamed.push((home.clone(), id.clone(), topic_id));\n", "        let _ = topic_id;\n", "strays"),
    ("forget a deletion that a lost directory does not know", "src/partition/deletion.rs", "self.unfinished().not_reached.extend(offline.chain(self.lost.iter().cloned()));", "drop(offline);", "strays"),
    ("forget a rename that could not be synced", "src/partition/deletion.rs", "                home.renamed();\n                home.judge(error);", "                home.judge(error);", "strays"),
    ("take the directory of another topic", "src/partition/placement.rs", "let found = own.or(unnamed);", "let found = own.or(unnamed).or(others.first().and_then(|(home, _)| self.directories.iter().position(|at| Arc::ptr_eq(at, home))));", "strays"),
    ("remove a stray", STORAGE + "directory.rs", "self.rename_partition(partition, STRAY, entropy)", "self.rename_partition(partition, DELETED, entropy)", "strays"),
    ("set aside what may be the partition itself", "src/partition/placement.rs", "} else if new.is_known && found.is_none() {", "} else if new.is_known && found.is_some() {", "strays"),
    ("believe a sync after one has failed", STORAGE + "files.rs", "                *has_failed = true;\n", "                *has_failed = false;\n", "lib"),
    ("count a file as durable whose sync failed", STORAGE + "files.rs", "            file.sync().map_err(Error::io(\"sync\", &self.path))?;\n        }\n        self.dirty.store(false, Ordering::Release);", "            self.dirty.store(false, Ordering::Release);\n            file.sync().map_err(Error::io(\"sync\", &self.path))?;\n        }", "lib"),
    ("judge no error of a read", "src/partition/replica.rs", "Ok(result.inspect_err(|error| self.home.judge(error))?)", "Ok(result?)", "open_files"),
    ("let one log delay the commit of others", "src/partition/partitions.rs", "                Ok(None) => {}\n                Err(error) => outcome = Err(error),\n            }\n        }\n        if entries", "                Ok(None) => {}\n                Err(error) => return Err(error),\n            }\n        }\n        if entries", "open_files"),
    ("forget a commit that failed", "src/partition/partitions.rs", "            home.commits.put_back();\n", "", "open_files"),
    ("let one log keep others from being flushed", "src/partition/partitions.rs", "                Ok(None) => {}\n                Err(error) => outcome = Err(error),\n            }\n        }\n        let synced", "                Ok(None) => {}\n                Err(error) => return Err(error),\n            }\n        }\n        let synced", "open_files"),
    ("let the panic of a load out", "src/coordinator/instances.rs", "catch_unwind(AssertUnwindSafe(|| load(&replica)))", "Ok(load(&replica))", "lib"),
    ("believe a stored generation", "src/coordinator/group.rs", "if value.generation < 0 {", "if value.generation < i32::MIN {", "restored"),
    ("believe a stored start of a transaction", TRANSACTIONS + "transaction.rs", "if state == Ongoing && start_ms < 0 {", "if state == Ongoing && start_ms > i64::MAX - 1 {", "lib"),
    ("believe a stored producer", TRANSACTIONS + "transaction.rs", "if id < 0 || epoch < NONE || (epoch == NONE && state != Empty) {", "if id < 0 && epoch < NONE && state != Empty {", "lib"),
    ("stop behind a decision that is not committed", TRANSACTIONS + "service.rs", "match stop.run_until_cancelled(stored.settled()).await {", "match Some(stored.settled().await) {", "coordinators"),
    ("log what repeats each time", "src/broker/repeats.rs", "        let _ = self.0.counted.try_send(());\n        false", "        let _ = self.0.counted.try_send(());\n        true", "lib"),
    ("a late marker ends a newer transaction", STORAGE + "producers.rs", "(grows && is_open && got == current)", "(grows && is_open && got > current)", "lib"),
    ("tell that a change failed of which nothing is known", CLUSTER + "driver.rs", "Err(NotCommitted::Unknown(what)) => Error::Unknown(what),", "Err(NotCommitted::Unknown(_)) => Error::NotController,", "lib"),
    ("decide while another controller leads", CLUSTER + "driver.rs", "role == Role::Leader && self.committed.epoch <= epoch;", "role == Role::Leader;", "lib"),
    ("answer before the change is in force", CLUSTER + "driver.rs", "*waits_for <= offset)", "*waits_for <= offset + 1)", "lib"),
    ("decide upon what is not applied yet", CLUSTER + "driver.rs", "(self.proposed.is_none() && self.waiting.is_empty());", "self.proposed.is_none();", "lib"),
    ("allocate a block of producer ids twice", CLUSTER + "controller.rs", "broker_epoch, next_producer_id: end }", "broker_epoch, next_producer_id: first }", "lib"),
    ("begin no leader epoch at a broker's start", CLUSTER + "controller.rs", "p.leader == *id || ", "", "lib"),
    ("lead again in the same epoch", CLUSTER + "partition_image.rs", "change.leader != SAME_LEADER;", "change.leader != SAME_LEADER && change.leader != self.leader;", "lib"),
    ("lose the leader epoch in a snapshot", CLUSTER + "partition_image.rs", "leader_epoch: self.leader_epoch,\n            partition_epoch", "leader_epoch: 0,\n            partition_epoch", "lib"),
    ("lose what is only held in a snapshot", CLUSTER + "image.rs", "records.extend(self.held.to_records());", "", "lib"),
    ("trust a snapshot without its end", CLUSTER + "batches.rs", "read == bytes.len() && is_whole", "read == bytes.len() && (is_whole || read > 0)", "lib"),
    ("start in an epoch that was used", CLUSTER + "quorum/file.rs", "self.vote.or_else(implied)", "self.vote", "lib"),
    ("continue an election that was won before a restart", CLUSTER + "quorum/file.rs", "Vote { committed: false, ..*vote }", "*vote", "lib"),
    ("append a proposal that is repeated", CLUSTER + "quorum/file.rs", "placed.offset != self.end()", "placed.offset > self.end()", "lib"),
    ("acknowledge an entry of the quorum before its fsync", CLUSTER + "quorum/file.rs", "Ok(self.log.flush()?)\n    }\n\n    fn append_one", "Ok(())\n    }\n\n    fn append_one", "lib"),
    ("keep a proposal in the log whose place another leader takes", CLUSTER + "quorum/file.rs", "            self.drop_staged()?;\n            if entry.payload", "            self.staged = None;\n            if entry.payload", "lib"),
    ("write a snapshot without the voters", CLUSTER + "quorum/file.rs", "Note::Snapshot { index: last.index, voters }", "Note::Snapshot { index: last.index, voters: voters.filter(|_| false) }", "lib"),
    ("convert without the epochs that were implied", CLUSTER + "quorum/replay.rs", "self.image.apply_implied(broker.broker_id);", "", "lib"),
    ("imply epochs after the conversion", CLUSTER + "quorum/replay.rs", "                self.convert();\n                self.deliver(Committed::LeaderChange", "                self.deliver(Committed::LeaderChange", "lib"),
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
        run = lambda *words: subprocess.run(["cargo", *words, "--target-dir", str(ROOT / "target" / "bugs"), *(["--lib"] if test == "lib" else ["--test", test])], cwd=folder,
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
