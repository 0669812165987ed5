//! The lines that a broker prints when it serves clients: its listeners, the addresses that it advertises, and a command to try.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::commands::Format;
use crate::broker::{Broker, Mode};
use crate::env::{Clock, SystemClock, container_gateway};
use crate::http::utc;

/// What is said.
struct Banner {
    mode: &'static str,
    listeners: Vec<Said>,
    http: String,
    data: Vec<PathBuf>,
    try_it: Option<String>,
}

/// A listener.
struct Said {
    name: String,
    address: String,
    /// The address that is advertised to its clients; none if each client gets the address that it connected to.
    advertised: Option<String>,
}

/// Prints it: lines for people, or one JSON object where the log is JSON.
pub(super) fn announce(broker: &Broker, mode: Mode, data: &[PathBuf], format: Format) {
    let listener = |(name, address): &(String, std::net::SocketAddr)| Said {
        name: name.clone(),
        address: address.to_string(),
        advertised: broker.advertised().iter().find(|(of, _)| of == name).map(|(_, address)| address.clone()),
    };
    let listeners: Vec<Said> = broker.listeners().iter().map(listener).collect();
    let mode = match mode {
        Mode::Dev => "dev mode",
        Mode::Serve => "standard defaults",
    };
    let try_it = try_at(&listeners).map(|at| format!("echo hello | kcat -b {at} -P -t test && kcat -b {at} -C -t test -e"));
    let banner = Banner { mode, listeners, http: broker.http().to_string(), data: data.to_vec(), try_it };
    let text = if matches!(format, Format::Json) { banner.json() } else { banner.text(container_gateway().is_some()) };
    println!("{}", text.trim_end());
}

impl Banner {
    fn text(&self, is_in_container: bool) -> String {
        let mut text = format!("dlog {} ({})\n", env!("CARGO_PKG_VERSION"), self.mode);
        for Said { name, address, advertised } in &self.listeners {
            let clients = match advertised {
                Some(address) => format!("advertised to clients as {address} (advertised.listeners)"),
                None if is_in_container => {
                    "advertised to clients on the host as localhost with this port, and to others as the address that they connected to; if the port is \
                     published under another number, set KAFKA_ADVERTISED_LISTENERS"
                        .to_string()
                }
                None => "advertised to each client as the address that it connected to".to_string(),
            };
            let _ = writeln!(text, "  {:<9} {address}\n            {clients}", name.to_lowercase());
        }
        let _ = writeln!(text, "  http      http://{}", self.http);
        self.data.iter().for_each(|path| {
            let _ = writeln!(text, "  data      {}", path.display());
        });
        if let Some(try_it) = &self.try_it {
            let _ = writeln!(text, "  try       {try_it}");
        }
        text
    }

    fn json(&self) -> String {
        let listener = |said: &Said| json!({ "name": said.name, "address": said.address, "advertised": said.advertised });
        let data: Vec<String> = self.data.iter().map(|path: &PathBuf| Path::display(path).to_string()).collect();
        json!({
            "timestamp": utc(SystemClock.wall_ms()),
            "level": "INFO",
            "message": "serving clients",
            "version": env!("CARGO_PKG_VERSION"),
            "mode": self.mode,
            "listeners": self.listeners.iter().map(listener).collect::<Vec<_>>(),
            "http": format!("http://{}", self.http),
            "data": data,
            "try": self.try_it,
        })
        .to_string()
    }
}

/// The address at which a command on this machine, or on the host of this container, reaches the broker.
fn try_at(listeners: &[Said]) -> Option<String> {
    let is_here = |address: &str| address.starts_with("localhost:") || address.starts_with("127.") || address.starts_with("[::1]");
    let advertised_here = listeners.iter().filter_map(|said| said.advertised.clone()).find(|address| is_here(address));
    let first = listeners.first()?;
    Some(advertised_here.or_else(|| first.advertised.clone()).unwrap_or_else(|| match first.address.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]", port)) => format!("localhost:{port}"),
        _ => first.address.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, address: &str, advertised: Option<&str>) -> Said {
        Said { name: name.into(), address: address.into(), advertised: advertised.map(str::to_string) }
    }

    #[test]
    fn the_command_to_try_works_from_this_machine_and_from_outside_of_a_container() {
        let inside = said("INSIDE", "0.0.0.0:19092", Some("dlog:19092"));
        let outside = said("OUTSIDE", "0.0.0.0:9092", Some("localhost:29092"));
        for (listeners, at) in [
            (vec![said("PLAINTEXT", "127.0.0.1:9092", None)], "127.0.0.1:9092"),
            (vec![said("PLAINTEXT", "0.0.0.0:9092", None)], "localhost:9092"),
            (vec![said("PLAINTEXT", "[::]:9092", None)], "localhost:9092"),
            (vec![said("PLAINTEXT", "0.0.0.0:9092", Some("kafka.example:9092"))], "kafka.example:9092"),
            (vec![inside, outside], "localhost:29092"),
        ] {
            assert_eq!(try_at(&listeners).as_deref(), Some(at));
        }
    }

    #[test]
    fn it_names_the_advertised_addresses() {
        let listeners = vec![said("PLAINTEXT", "0.0.0.0:9092", None), said("OUTSIDE", "0.0.0.0:9093", Some("host:9093"))];
        let banner = Banner { mode: "dev mode", listeners, http: "127.0.0.1:9644".into(), data: vec!["/d".into()], try_it: None };
        let text = banner.text(false);
        assert!(
            text.contains("  plaintext 0.0.0.0:9092\n            advertised to each client as the address that it connected to\n"),
            "{text}"
        );
        assert!(text.contains("advertised to clients as host:9093 (advertised.listeners)"), "{text}");
        assert!(banner.text(true).contains("KAFKA_ADVERTISED_LISTENERS"));
        let json: serde_json::Value = serde_json::from_str(&banner.json()).unwrap();
        assert_eq!((json["listeners"][1]["advertised"].as_str(), json["data"][0].as_str()), (Some("host:9093"), Some("/d")));
    }
}
