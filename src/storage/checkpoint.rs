//! Kafka's small text files: a version, a count, and one line per entry.

use std::path::Path;

use super::Error;
use crate::env::Disk;

/// Reads the lines of the entries. A missing or malformed file has none: the content of all such files can be rebuilt.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> Vec<String> {
    disk.read(path).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
}

/// Whether the content of a file is valid.
pub(super) fn is_sound(bytes: &[u8]) -> bool {
    parse(bytes).is_some()
}

fn parse(bytes: &[u8]) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let version = lines.next().and_then(|l| l.trim().parse::<u32>().ok());
    let count = lines.next().and_then(|l| l.trim().parse::<usize>().ok());
    let entries: Vec<String> = lines.map(str::to_string).collect();
    (version == Some(0) && count == Some(entries.len())).then_some(entries)
}

/// The content of a file with these entries.
pub(super) fn text(entries: &[String]) -> String {
    let mut text = format!("0\n{}\n", entries.len());
    for entry in entries {
        text.push_str(entry);
        text.push('\n');
    }
    text
}

/// Replaces the file without an fsync; a power loss may lose it.
pub(super) fn write(disk: &dyn Disk, path: &Path, entries: &[String]) -> Result<(), Error> {
    let next = path.with_extension("tmp");
    disk.write(&next, text(entries).as_bytes()).map_err(Error::io("write", &next))?;
    disk.rename(&next, path).map_err(Error::io("write", path))
}
