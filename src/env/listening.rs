//! Who listens on a port of this machine.

use std::path::Path;

/// `st` of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// The name of its program, cut off at 15 characters by Linux.
    pub name: String,
}

/// The process that listens on a TCP port, where Linux lets us see it: our own user's processes, or all of them as root.
pub fn listening_process(port: u16) -> Option<Process> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| std::fs::read_to_string(table).ok());
    let inodes: Vec<String> = tables.flat_map(|table| table.lines().filter_map(|line| inode(line, port)).collect::<Vec<_>>()).collect();
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).find_map(|(id, path)| {
        holds(&path, &sockets).then(|| {
            let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            Process { id, name: name.trim().to_string() }
        })
    })
}

/// The inode of a line of `/proc/net/tcp` if it is a socket that listens on `port`:
/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`.
fn inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    (local == port && *fields.get(3)? == LISTENING).then(|| fields.get(9).map(|inode| inode.to_string())).flatten()
}

/// Whether one of the process' files is one of these sockets.
fn holds(process: &Path, sockets: &[String]) -> bool {
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return false };
    files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok()).any(|to| sockets.iter().any(|socket| to == Path::new(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_find_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_process(port).map(|process| process.id), Some(std::process::id()));
        drop(listener);
        assert_eq!(listening_process(port), None);
    }
}
