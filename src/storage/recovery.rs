//! Opens a log's directory: a cleanly closed part is trusted, the rest is read and checked, and a torn tail is truncated.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::epochs::LeaderEpochs;
use super::files::OpenFiles;
use super::index::Durable;
use super::log_config::LogConfig;
use super::producers::ProducerState;
use super::scan::{Headers, Stop, walk_batches};
use super::segment::{Segment, file_name};
use super::transactions::note_ended;
use crate::env::{Disk, OpenMode};
use crate::model::Offset;
use crate::records::Marker;

/// How a log was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It was just created: its directory is empty.
    New,
    /// Cleanly closed: everything is valid.
    Clean,
    /// Not cleanly closed: batches from this offset on may be torn or missing.
    From(Offset),
}

/// The result of opening a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes that were read and checked.
    pub scanned_bytes: u64,
    /// Bytes that were truncated because they are not whole, valid batches.
    pub cut_bytes: u64,
    /// Bytes restored from the commit journal.
    pub restored_bytes: u64,
    /// Records that are missing between the log and the batches restored from the commit journal.
    pub missing_records: i64,
}

/// The parts of an opened log.
pub(super) struct Recovered {
    pub(super) segments: Vec<Segment>,
    pub(super) epochs: LeaderEpochs,
    /// The content of the checkpoint file.
    pub(super) saved_epochs: LeaderEpochs,
    pub(super) producers: ProducerState,
    pub(super) report: Report,
}

/// Opens all segments of `directory`, or creates the first one.
pub(super) fn recover(
    files: &Arc<OpenFiles>,
    directory: &Path,
    config: &LogConfig,
    how: Recovery,
    now_ms: i64,
) -> Result<Recovered, Error> {
    let disk = &**files.disk();
    if how == Recovery::New {
        let segments = vec![Segment::create(files, directory, Offset(0), now_ms)?];
        let [epochs, saved_epochs] = [LeaderEpochs::default(), LeaderEpochs::default()];
        return Ok(Recovered { segments, epochs, saved_epochs, producers: ProducerState::default(), report: Report::default() });
    }
    let mut names = disk.list(directory).map_err(Error::io("list", directory))?;
    if finish_swaps(disk, directory, &names)? {
        names = disk.list(directory).map_err(Error::io("list", directory))?;
    }
    remove_leftovers(disk, directory, &names)?;
    let mut bases: Vec<Offset> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).map(Offset).collect();
    bases.sort();
    let epochs = LeaderEpochs::load(disk, directory);
    let mut work = Work { files, directory, config, now_ms, saved_epochs: epochs.clone(), epochs, report: Report::default() };
    let mut segments: Vec<Segment> = Vec::new();
    let mut walked = BTreeSet::new();
    for (at, base) in bases.iter().enumerate() {
        let sealed_below = bases.get(at + 1).copied();
        let Opened { segment, is_walked, is_torn } = work.open(*base, sealed_below, how)?;
        segments.push(segment);
        if is_walked {
            walked.insert(*base);
        }
        if is_torn {
            for later in &bases[at + 1..] {
                let segment = Segment::open_blank(files, directory, *later, now_ms)?;
                work.report.cut_bytes += segment.file()?.size().map_err(Error::io("read", directory))?;
                segment.delete(disk)?;
            }
            break;
        }
    }
    if segments.is_empty() {
        segments.push(Segment::create(files, directory, Offset(0), now_ms)?);
    }
    if let Some(active) = segments.last() {
        active.unseal();
    }
    let log_end = segments.last().map_or(Offset(0), Segment::next_offset);
    let log_start = segments.first().map_or(Offset(0), |s| s.base);
    let saved_epochs = work.saved_epochs;
    work.epochs.truncate_start(log_start);
    work.epochs.truncate_end(log_end);
    let all: Vec<&Segment> = segments.iter().collect();
    let needed_from = walked.first().map_or(log_end, |base| *base);
    let producers = producers(disk, directory, &names, &all, &walked, needed_from)?;
    let (_, sealed) = segments.split_last().expect("there is a segment now");
    sealed.iter().filter(|s| walked.contains(&s.base)).try_for_each(|s| s.seal_aborted(disk, Durable::Now))?;
    Ok(Recovered { segments, epochs: work.epochs, saved_epochs, producers, report: work.report })
}

/// Completes the swaps of compacted segments that a crash interrupted; returns whether there were any.
fn finish_swaps(disk: &dyn Disk, directory: &Path, names: &[String]) -> Result<bool, Error> {
    let mut any = false;
    for name in names.iter().filter(|n| n.ends_with(".swap")) {
        any = true;
        let path = directory.join(name);
        let base = name.strip_suffix(".log.swap").and_then(|base| base.parse().ok()).map(Offset);
        let mut end = None;
        if base.is_some() {
            let file = disk.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
            let size = file.size().map_err(Error::io("read", &path))?;
            end = Headers::new(&*file, 0, size).map_while(Result::ok).last().map(|(_, header)| header.next_offset());
        }
        match base.zip(end) {
            Some((base, end)) => finish_swap(disk, directory, base, end)?,
            // An index, which is rebuilt, or a file without a valid batch, which cannot replace anything.
            None => disk.remove_file(&path).map_err(Error::io("remove", &path))?,
        }
    }
    Ok(any)
}

/// The last step of compacting the segments from `base` up to `end`: removes the old ones, and renames the new file to the name of the first.
pub(super) fn finish_swap(disk: &dyn Disk, directory: &Path, base: Offset, end: Offset) -> Result<(), Error> {
    let names = disk.list(directory).map_err(Error::io("list", directory))?;
    for name in &names {
        let Some((segment, suffix)) = name.split_once('.').and_then(|(base, suffix)| Some((Offset(base.parse().ok()?), suffix))) else {
            continue;
        };
        let is_index = ["index", "timeindex", "txnindex"].contains(&suffix);
        if base <= segment && segment < end && (is_index || (suffix == "log" && segment != base)) {
            let path = directory.join(name);
            disk.remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    // An old index must not reappear with the new file.
    disk.sync_dir(directory).map_err(Error::io("sync", directory))?;
    let swap = directory.join(file_name(base, "log.swap"));
    disk.rename(&swap, &directory.join(file_name(base, "log"))).map_err(Error::io("rename", &swap))?;
    disk.sync_dir(directory).map_err(Error::io("sync", directory))
}

/// Removes files that a crash may have left incomplete.
fn remove_leftovers(disk: &dyn Disk, directory: &Path, names: &[String]) -> Result<(), Error> {
    for name in names.iter().filter(|n| [".tmp", ".index_tmp", ".deleted", ".cleaned"].iter().any(|suffix| n.ends_with(suffix))) {
        let path = directory.join(name);
        disk.remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

struct Work<'a> {
    files: &'a Arc<OpenFiles>,
    directory: &'a Path,
    config: &'a LogConfig,
    now_ms: i64,
    saved_epochs: LeaderEpochs,
    epochs: LeaderEpochs,
    report: Report,
}

/// A segment as recovery opened it.
struct Opened {
    segment: Segment,
    /// Whether it was read and its indexes were rebuilt.
    is_walked: bool,
    /// Whether it is incomplete, so that no segment may follow it.
    is_torn: bool,
}

impl Work<'_> {
    fn open(&mut self, base: Offset, next_base: Option<Offset>, how: Recovery) -> Result<Opened, Error> {
        let trusted = match how {
            Recovery::New | Recovery::Clean => true,
            // The indexes of a segment that ends exactly at `offset` may have been written later.
            Recovery::From(offset) => next_base.is_some_and(|next| next < offset),
        };
        if trusted && let Some(segment) = Segment::open_trusted(self.files, self.directory, base, self.now_ms)? {
            return Ok(Opened { segment, is_walked: false, is_torn: false });
        }
        if !trusted {
            // The checkpoint may be older than a truncation, or describe a tail lost in a crash: from here on the batches define where epochs begin.
            self.epochs.truncate_end(base);
        }
        let segment = Segment::open_blank(self.files, self.directory, base, self.now_ms)?;
        let torn = self.walk(&segment)?;
        if next_base.is_some() {
            segment.seal(&**self.files.disk(), Durable::Now)?;
        }
        // After a power loss a file can be short or empty while a later one is whole.
        let short = next_base.is_some_and(|next| segment.next_offset() < next);
        Ok(Opened { segment, is_walked: true, is_torn: torn || short })
    }

    /// Checks every batch and rebuilds the indexes; truncates the segment at the first invalid batch. Returns whether it was truncated.
    fn walk(&mut self, segment: &Segment) -> Result<bool, Error> {
        let file = segment.file()?;
        let end = file.size().map_err(Error::io("read", self.directory))?;
        let (interval, epochs) = (self.config.index_interval_bytes, &mut self.epochs);
        let walked = walk_batches(&*file, 0, end, |_, header, _| {
            if header.base_offset < segment.next_offset() || header.last_offset_delta < 0 {
                return ControlFlow::Break(());
            }
            segment.note(header, interval);
            if !header.is_legacy() {
                epochs.note(header.leader_epoch, header.base_offset);
            }
            ControlFlow::Continue(())
        });
        // An invalid batch ends the log.
        if let Err(Stop::Io(error)) = walked {
            return Err(segment.stopped(Stop::Io(error)));
        }
        self.report.scanned_bytes += end;
        self.report.cut_bytes += end - segment.size();
        if segment.size() < end {
            segment.cut()?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// The state of the newest snapshot that is not above `needed_from`, plus all batches after it. On the way the lists of aborted transactions are
/// rebuilt for segments that were walked, so `needed_from` must not be above the first of them. Snapshots above the log end are removed.
pub(super) fn producers(
    disk: &dyn Disk,
    directory: &Path,
    names: &[String],
    segments: &[&Segment],
    walked: &BTreeSet<Offset>,
    needed_from: Offset,
) -> Result<ProducerState, Error> {
    let log_end = segments.last().map_or(Offset(0), |last| last.next_offset());
    let mut snapshots: Vec<Offset> = names.iter().filter_map(|n| n.strip_suffix(".snapshot")?.parse().ok()).map(Offset).collect();
    snapshots.sort();
    let mut from = segments.first().map_or(Offset(0), |s| s.base);
    let mut state = ProducerState::default();
    for offset in snapshots.into_iter().rev() {
        let path = directory.join(file_name(offset, "snapshot"));
        if offset > log_end {
            disk.remove_file(&path).map_err(Error::io("remove", &path))?;
        } else if offset > needed_from {
            continue;
        } else if let Some(read) = disk.read(&path).ok().and_then(|bytes| ProducerState::from_snapshot(&bytes)) {
            (state, from) = (read, offset);
            break;
        }
    }
    for segment in segments.iter().filter(|s| s.next_offset() > from) {
        let Some((position, _)) = segment.find(from)? else { continue };
        for step in Headers::new(&*segment.file()?, position, segment.size()) {
            let (position, header) = step.map_err(|stop| segment.stopped(stop))?;
            if header.base_offset < from {
                continue;
            }
            if !header.is_control() {
                state.note(&header);
                continue;
            }
            let batch = segment.read_sound(position, &header)?;
            let marker = Marker::read(&header, &batch).map_err(segment.corrupt())?;
            let ended = marker.and_then(|marker| state.note_marker(&marker, &header));
            if let Some(ended) = ended.filter(|_| walked.contains(&segment.base)) {
                note_ended(segment, &state, &ended);
            }
        }
    }
    Ok(state)
}
