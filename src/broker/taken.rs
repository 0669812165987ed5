//! Other processes that use the ports and directories of a broker that starts: all of them at once, and a command line with free ones.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Config, Error, ListenerConfig, Mode};
use crate::env::{Disk, Env, Process, listening_process, process_with_file};
use crate::server::Advertised;
use crate::storage::LogDirectory;

/// The number of ports after one in use that are tried for the command line.
const PORTS_TRIED: u16 = 100;
/// The number of names after a directory in use that are tried.
const NAMES_TRIED: usize = 100;

/// Listeners and HTTP whose addresses are in use; filled when the addresses are bound.
#[derive(Debug, Default)]
pub(super) struct TakenPorts {
    /// Positions in `config.listeners`.
    pub(super) listeners: Vec<usize>,
    pub(super) http: bool,
}

impl TakenPorts {
    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty() && !self.http
    }
}

/// The error with everything that is in use.
pub(super) async fn error(config: &Config, env: &Env, ports: &TakenPorts) -> Error {
    let mut what = Vec::new();
    for listener in ports.listeners.iter().filter_map(|at| config.listeners.get(*at)) {
        let by = by(listening_process(listener.port), "another program");
        what.push(format!("{}:{} is in use by {by}", listener.host, listener.port));
    }
    if ports.http {
        let by = by(listening_process(config.http.1), "another program");
        what.push(format!("{}:{} (HTTP) is in use by {by}", config.http.0, config.http.1));
    }
    let locked: Vec<&PathBuf> = config.data.iter().filter(|path| LogDirectory::is_locked(&*env.disk, path)).collect();
    for path in &locked {
        let by = by(process_with_file(&LogDirectory::lock_path(path)), "");
        what.push(format!("{} is in use by another broker{}", path.display(), if by.is_empty() { by } else { format!(", {by}") }));
    }
    Error::Taken { what, command: command(config, env, ports, &locked).await }
}

fn by(process: Option<Process>, unknown: &str) -> String {
    process.map_or_else(|| unknown.to_string(), |process| format!("process {} ({})", process.id, process.name))
}

/// The command line of a broker like this one, with free ports and directories.
async fn command(config: &Config, env: &Env, ports: &TakenPorts, locked: &[&PathBuf]) -> String {
    let mut command = String::from(if config.mode == Mode::Dev { "dlog" } else { "dlog serve" });
    let mut listeners = config.listeners.clone();
    for at in &ports.listeners {
        if let Some(listener) = listeners.get_mut(*at) {
            let port = free_port(env, &listener.host, listener.port).await;
            if let Advertised::Address(_, told) = &mut listener.endpoint.advertised
                && *told == listener.port
            {
                *told = port;
            }
            listener.port = port;
        }
    }
    if !ports.listeners.is_empty() {
        add_listeners(&mut command, &listeners);
    }
    if ports.http {
        let port = free_port(env, &config.http.0, config.http.1).await;
        let _ = write!(command, " --http {}", address(&config.http.0, port));
    }
    if config.data.iter().any(|path| is_temporary(path)) {
        command.push_str(" --ephemeral");
        return command;
    }
    let data: Vec<String> = config
        .data
        .iter()
        .map(|path| if locked.contains(&path) { free_name(&*env.disk, path) } else { path.clone() })
        .map(|path| path.display().to_string())
        .collect();
    match data.as_slice() {
        [one] => {
            let _ = write!(command, " --data {}", quoted(one));
        }
        several => {
            let _ = write!(command, " --set {}", quoted(&format!("log.dirs={}", several.join(","))));
        }
    }
    command
}

fn add_listeners(command: &mut String, listeners: &[ListenerConfig]) {
    let told: Vec<String> = listeners
        .iter()
        .filter_map(|listener| match &listener.endpoint.advertised {
            Advertised::Address(host, port) => Some(format!("{}://{}", listener.endpoint.name, address(host, *port))),
            _ => None,
        })
        .collect();
    match listeners {
        [one] if one.endpoint.name == "PLAINTEXT" => {
            let _ = write!(command, " --listen {}", address(&one.host, one.port));
        }
        several => {
            let all: Vec<String> =
                several.iter().map(|listener| format!("{}://{}", listener.endpoint.name, address(&listener.host, listener.port))).collect();
            let _ = write!(command, " --set {}", quoted(&format!("listeners={}", all.join(","))));
        }
    }
    if !told.is_empty() {
        let _ = write!(command, " --set {}", quoted(&format!("advertised.listeners={}", told.join(","))));
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The next free port; 0, which means any free port, if none of the tried ones is free.
async fn free_port(env: &Env, host: &str, port: u16) -> u16 {
    for next in (1..=PORTS_TRIED).filter_map(|more| port.checked_add(more)) {
        if env.network.bind(host, next).await.is_ok() {
            return next;
        }
    }
    0
}

fn free_name(disk: &dyn Disk, path: &Path) -> PathBuf {
    let name = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    (2..NAMES_TRIED).map(name).find(|next| !disk.exists(next)).unwrap_or_else(|| name(NAMES_TRIED))
}

/// Whether `--ephemeral` created this name.
fn is_temporary(path: &Path) -> bool {
    let is_ours =
        path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("dlog-")).is_some_and(|id| id.len() == 36);
    is_ours && path.parent() == Some(&std::env::temp_dir())
}

/// A quoted word for a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,".contains(c);
    if word.chars().all(is_plain) { word.to_string() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("a/b-c"), "a/b-c");
        assert_eq!(quoted("it's a"), "'it'\\''s a'");
        assert_eq!(address("::1", 9), "[::1]:9");
        assert!(is_temporary(&std::env::temp_dir().join("dlog-00000000-0000-0000-0000-000000000000")));
        assert!(!is_temporary(Path::new("/data/dlog-00000000-0000-0000-0000-000000000000")));
    }
}
