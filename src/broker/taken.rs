//! Other processes that use the ports and directories of a broker that starts: all of them at once, with free ones to use instead.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, Error, ListenerConfig};
use crate::env::{Disk, Env, Listener, Process, listening_process, process_with_file};
use crate::server::Advertised;
use crate::storage::LogDirectory;

/// The number of ports after one in use that are tried.
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
    Error::Taken { what, free: Box::new(Free::find(config, env, ports, &locked).await) }
}

fn by(process: Option<Process>, unknown: &str) -> String {
    process.map_or_else(|| unknown.to_string(), |process| format!("process {} ({})", process.id, process.name))
}

/// What the broker can use instead of the ports and directories that are in use, as values of the settings. A setting without anything in use
/// is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Free {
    /// All listeners (`listeners`), with free ports.
    pub listeners: Option<String>,
    /// Host and port of the listener, if it is the only one and its name is PLAINTEXT.
    pub listen: Option<String>,
    /// All advertised addresses (`advertised.listeners`).
    pub advertised: Option<String>,
    /// Host and port of the HTTP listener.
    pub http: Option<String>,
    /// All data directories (`log.dirs`), separated by commas.
    pub data: Option<String>,
}

impl Free {
    async fn find(config: &Config, env: &Env, ports: &TakenPorts, locked: &[&PathBuf]) -> Free {
        let mut free = Free::default();
        // Listeners stay bound until all ports are chosen, so that no port is chosen twice.
        let mut chosen = Vec::new();
        let mut listeners = config.listeners.clone();
        for at in &ports.listeners {
            if let Some(listener) = listeners.get_mut(*at) {
                let port = free_port(env, &listener.host, listener.port, &mut chosen).await;
                if let Advertised::Address(_, advertised) = &mut listener.endpoint.advertised
                    && *advertised == listener.port
                {
                    *advertised = port;
                }
                listener.port = port;
            }
        }
        if !ports.listeners.is_empty() {
            free.name_listeners(&listeners);
        }
        if ports.http {
            let port = free_port(env, &config.http.0, config.http.1, &mut chosen).await;
            free.http = Some(address(&config.http.0, port));
        }
        let free_of = |path: &PathBuf| if locked.contains(&path) { free_name(&*env.disk, path, &config.data) } else { path.clone() };
        let data = config.data.iter().map(|path| free_of(path).display().to_string()).collect::<Vec<_>>();
        free.data = (!locked.is_empty()).then(|| data.join(","));
        free
    }

    fn name_listeners(&mut self, listeners: &[ListenerConfig]) {
        let bound = listeners.iter().map(|l| format!("{}://{}", l.endpoint.name, address(&l.host, l.port))).collect::<Vec<_>>();
        self.listeners = Some(bound.join(","));
        if let [one] = listeners
            && one.endpoint.name == "PLAINTEXT"
        {
            self.listen = Some(address(&one.host, one.port));
        }
        let advertised: Vec<String> = listeners
            .iter()
            .filter_map(|listener| match &listener.endpoint.advertised {
                Advertised::Address(host, port) => Some(format!("{}://{}", listener.endpoint.name, address(host, *port))),
                _ => None,
            })
            .collect();
        self.advertised = (!advertised.is_empty()).then(|| advertised.join(","));
    }
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            ("listeners", &self.listeners),
            ("advertised.listeners", &self.advertised),
            ("the HTTP address", &self.http),
            ("log.dirs", &self.data),
        ];
        let settings = settings.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        f.write_str(&settings.collect::<Vec<_>>().join(" "))
    }
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The next free port; 0, which means any free port, if none of the tried ones is free. Its listener is added to those that are bound.
async fn free_port(env: &Env, host: &str, port: u16, bound: &mut Vec<Listener>) -> u16 {
    for next in (1..=PORTS_TRIED).filter_map(|more| port.checked_add(more)) {
        if let Ok(listener) = env.network.bind(host, next).await {
            bound.push(listener);
            return next;
        }
    }
    0
}

/// A name that neither exists nor is configured.
fn free_name(disk: &dyn Disk, path: &Path, configured: &[PathBuf]) -> PathBuf {
    let name = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    (2..NAMES_TRIED).map(name).find(|next| !disk.exists(next) && !configured.contains(next)).unwrap_or_else(|| name(NAMES_TRIED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::RealDisk;
    use crate::server::Endpoint;

    #[test]
    fn free_places_are_values_of_the_settings() {
        let listener = |name: &str, host: &str, port| ListenerConfig {
            host: host.into(),
            port,
            endpoint: Endpoint { name: name.into(), advertised: Advertised::AsReached },
        };
        let mut free = Free::default();
        free.name_listeners(&[listener("PLAINTEXT", "::1", 9)]);
        assert_eq!((free.listen.as_deref(), free.listeners.as_deref()), (Some("[::1]:9"), Some("PLAINTEXT://[::1]:9")));
        let mut free = Free::default();
        free.name_listeners(&[listener("A", "h", 1), listener("B", "h", 2)]);
        assert_eq!((free.to_string().as_str(), free.listen), ("listeners=A://h:1,B://h:2", None));
    }

    #[test]
    fn a_free_name_is_not_that_of_another_directory() {
        let path = Path::new("/nowhere/data");
        assert_eq!(free_name(&RealDisk, path, &["/nowhere/data-2".into()]), PathBuf::from("/nowhere/data-3"));
    }
}
