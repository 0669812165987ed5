//! `listeners` and `advertised.listeners`.

use std::collections::BTreeMap;

use tracing::warn;

use super::Error;
use crate::server::{Advertised, Endpoint};

/// The address of a listener, and the address that it advertises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The address to bind; all addresses where the configuration names none.
    pub host: String,
    /// The port; 0 means any free port.
    pub port: u16,
    /// Name and advertised address.
    pub endpoint: Endpoint,
}

/// `NAME://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    name: String,
    host: String,
    port: u16,
}

/// How a listener with the protocol SASL or SSL is handled; neither is supported yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protected {
    /// The broker does not start.
    Rejected,
    /// It is served as PLAINTEXT, which the operator has accepted.
    ServedOpen,
}

/// The two settings, by name.
const LISTENERS: &str = "listeners";
const ADVERTISED: &str = "advertised.listeners";
/// Protocols that need no entry in `listener.security.protocol.map`.
const PROTECTED: [&str; 3] = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];
/// Addresses that mean all addresses of the machine.
const ANY: [&str; 2] = ["0.0.0.0", "::"];

/// Parses both lists. `controllers` contains the names of listeners that only controllers use: they are ignored. Without `listeners`, the broker
/// listens on all addresses, at the ports of the advertised listeners.
pub(super) fn listeners(
    listeners: Option<&str>,
    advertised: Option<&str>,
    protocols: &str,
    controllers: &str,
    protected: Protected,
) -> Result<Vec<ListenerConfig>, Error> {
    let advertised = advertised.map(|a| parse(ADVERTISED, a)).transpose()?.unwrap_or_default();
    let bound = match listeners {
        Some(text) => parse(LISTENERS, text)?,
        None => advertised.iter().map(|a| Address { host: String::new(), ..a.clone() }).collect(),
    };
    check_advertised(&advertised, &bound)?;
    let controllers: Vec<String> = controllers.split(',').map(normalised).collect();
    let protocols: BTreeMap<String, String> =
        protocols.split(',').filter_map(|p| p.split_once(':')).map(|(name, protocol)| (normalised(name), normalised(protocol))).collect();
    let mut result: Vec<ListenerConfig> = Vec::new();
    for address in bound.iter().filter(|a| !controllers.contains(&a.name)) {
        let mapped = protocols.get(&address.name);
        let protocol = mapped.unwrap_or(&address.name).as_str();
        let is_protected = protocol != "PLAINTEXT" && (mapped.is_some() || PROTECTED.contains(&protocol));
        if is_protected && protected == Protected::Rejected {
            let what = format!(
                "{protocol} is not supported yet, only PLAINTEXT is; change listener.security.protocol.map, or accept an open listener with --ignore-security-settings (DLOG_IGNORE_SECURITY_SETTINGS=true)"
            );
            return Err(refuse(LISTENERS, &address.name, &what));
        }
        if is_protected {
            warn!(listener = %address.name, %protocol, "this listener is served without its security protocol: any client can connect");
        }
        let advertised = match advertised.iter().find(|own| own.name == address.name) {
            // Kafka advertises the machine's host name. The address that the client has connected to works more often.
            Some(own) if own.host.is_empty() => Advertised::AsReached,
            Some(own) => Advertised::Address(own.host.clone(), own.port),
            None => Advertised::AsReached,
        };
        let host = if address.host.is_empty() { "0.0.0.0".to_string() } else { address.host.clone() };
        let is_taken = |l: &ListenerConfig| l.endpoint.name == address.name || l.port == address.port && l.port != 0 && l.host == host;
        if result.iter().any(is_taken) {
            return Err(refuse(LISTENERS, &address.name, "each listener must have its own name and address"));
        }
        result.push(ListenerConfig { host, port: address.port, endpoint: Endpoint { name: address.name.clone(), advertised } });
    }
    if result.is_empty() {
        return Err(refuse(
            LISTENERS,
            listeners.unwrap_or_default(),
            "at least one listener that is not a controller listener is required",
        ));
    }
    Ok(result)
}

/// Checks that each advertised address belongs to a listener, and that clients can connect to it.
fn check_advertised(advertised: &[Address], bound: &[Address]) -> Result<(), Error> {
    for (at, address) in advertised.iter().enumerate() {
        if !bound.iter().any(|a| a.name == address.name) {
            let names = bound.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(refuse(ADVERTISED, &address.name, &format!("there is no listener of this name; listeners has {names}")));
        }
        if advertised.iter().take(at).any(|other| other.name == address.name) {
            return Err(refuse(ADVERTISED, &address.name, "this name appears more than once"));
        }
        if ANY.contains(&address.host.as_str()) {
            let what = "clients cannot connect to this address; advertise a host name or an address that clients can reach";
            return Err(refuse(ADVERTISED, &address.host, what));
        }
        if address.port == 0 && !address.host.is_empty() {
            let what = "clients cannot connect to port 0; advertise the port that clients can reach";
            return Err(refuse(ADVERTISED, &format!("{}://{}:0", address.name, address.host), what));
        }
    }
    Ok(())
}

/// The name of a listener or of a security protocol, which can be written in any case, as in Kafka.
fn normalised(name: &str) -> String {
    name.trim().to_uppercase()
}

fn refuse(key: &str, value: &str, what: &str) -> Error {
    Error::Setting { key: key.into(), value: value.into(), what: what.into() }
}

/// The addresses of a list. A single address may omit the name, which is then PLAINTEXT.
fn parse(key: &str, text: &str) -> Result<Vec<Address>, Error> {
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    words.iter().map(|word| address(key, word, words.len())).collect()
}

fn address(key: &str, word: &str, of: usize) -> Result<Address, Error> {
    let (name, rest) = match word.split_once("://") {
        Some(parts) => parts,
        None if of == 1 => ("PLAINTEXT", word),
        None => return Err(refuse(key, word, "each of several addresses needs the name of its listener: NAME://host:port")),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(refuse(
            key,
            word,
            "the name of a listener consists of letters, digits, '-', '_' and '.', as in PLAINTEXT://localhost:9092",
        ));
    }
    // An IPv6 address contains colons and is in brackets.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, port),
        _ => return Err(refuse(key, word, &format!("the port is missing, as in {name}://{rest}:9092"))),
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(|| refuse(key, word, "the closing bracket is missing, as in [::1]:9092"))?,
        None if host.contains(':') => return Err(refuse(key, word, "an IPv6 address needs brackets, as in [::1]:9092")),
        None => host,
    };
    if host.contains(|c: char| c == '/' || c.is_whitespace()) {
        return Err(refuse(key, word, "must be NAME://host:port, as in PLAINTEXT://localhost:9092"));
    }
    let port =
        port.parse().map_err(|_| refuse(key, word, "the port must be a number from 0 to 65535, as in PLAINTEXT://localhost:9092"))?;
    Ok(Address { name: normalised(name), host: host.to_string(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOLS: &str = "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,SSL:SSL,TC-0:PLAINTEXT";

    fn read(bound: Option<&str>, advertised: Option<&str>) -> Result<Vec<ListenerConfig>, Error> {
        listeners(bound, advertised, PROTOCOLS, "CONTROLLER", Protected::Rejected)
    }

    #[test]
    fn kafkas_forms_are_read() {
        let bound = "PLAINTEXT://:9092,INTERNAL://127.0.0.1:19092,CONTROLLER://:9093,TC-0://[::1]:0";
        let all = read(Some(bound), Some("PLAINTEXT://example.org:9092")).unwrap();
        let places: Vec<_> = all.iter().map(|l| (l.endpoint.name.as_str(), l.host.as_str(), l.port)).collect();
        assert_eq!(places, [("PLAINTEXT", "0.0.0.0", 9092), ("INTERNAL", "127.0.0.1", 19092), ("TC-0", "::1", 0)]);
        assert_eq!(all[0].endpoint.advertised, Advertised::Address("example.org".into(), 9092));
        assert_eq!(all[1].endpoint.advertised, Advertised::AsReached);
        assert_eq!(read(Some("PLAINTEXT://:9092"), Some("PLAINTEXT://:9092")).unwrap()[0].endpoint.advertised, Advertised::AsReached);
        let advertised = read(None, Some("PLAINTEXT://example.org:9092")).unwrap();
        assert_eq!((advertised[0].host.as_str(), advertised[0].port), ("0.0.0.0", 9092));
        assert_eq!(read(Some("localhost:9092"), None).unwrap()[0].host, "localhost");
    }

    #[test]
    fn what_cannot_be_is_rejected_with_what_would_be_right() {
        for (bound, advertised, what) in [
            ("PLAINTEXT://localhost", None, "the port is missing, as in PLAINTEXT://localhost:9092"),
            ("localhost", None, "the port is missing, as in PLAINTEXT://localhost:9092"),
            ("PLAINTEXT://[::1]", None, "the port is missing"),
            ("PLAINTEXT://localhost:x", None, "the port must be a number"),
            ("PLAINTEXT://localhost:65536", None, "the port must be a number"),
            ("PLAINTEXT://::1:9092", None, "needs brackets"),
            ("://localhost:1", None, "the name of a listener"),
            ("PLAINTEXT:///localhost:1", None, "must be NAME://host:port"),
            ("SSL://localhost:9092", None, "SSL is not supported yet"),
            ("ssl://localhost:9092", None, "SSL is not supported yet"),
            ("sasl_Ssl://localhost:9092", None, "SASL_SSL is not supported yet"),
            ("PLAINTEXT://:9092,OTHER", None, "each of several addresses needs the name"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://0.0.0.0:9092"), "clients cannot connect to this address"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://[::]:9092"), "clients cannot connect to this address"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://host:0"), "clients cannot connect to port 0"),
            ("PLAINTEXT://:9092", Some("localhost"), "advertised.listeners=localhost: the port is missing"),
            ("PLAINTEXT://:9092", Some("EXTERNAL://localhost:9092"), "no listener of this name; listeners has PLAINTEXT"),
            ("A://:1,B://:2", Some("localhost:9092"), "no listener of this name; listeners has A, B"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://a:1,b:2"), "advertised.listeners=b:2: each of several addresses"),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://a:1,PLAINTEXT://b:2"), "more than once"),
            ("PLAINTEXT://:9092,PLAINTEXT://:9093", None, "its own name"),
            ("PLAINTEXT://:9092,INTERNAL://:9092", None, "its own name and address"),
            ("CONTROLLER://:9093", None, "at least one listener"),
        ] {
            let error = read(Some(bound), advertised).unwrap_err().to_string();
            assert!(error.contains(what), "{bound} {advertised:?}: {error}");
        }
        // A controller's listener may be advertised since Kafka 3.9 (KIP-853).
        assert!(read(Some("PLAINTEXT://:9092,CONTROLLER://:9093"), Some("PLAINTEXT://a:9092,CONTROLLER://a:9093")).is_ok());
        assert!(read(Some("PLAINTEXT://:9092"), Some(" ")).is_ok(), "empty is as good as not set");
        assert!(read(Some("plaintext://:9092,controller://:1"), Some("Plaintext://a:9092")).is_ok(), "in any case");
    }

    #[test]
    fn a_protected_listener_is_open_only_where_that_is_accepted() {
        let of = |protected| listeners(Some("OUTSIDE://:9092"), None, "OUTSIDE:SASL_SSL", "", protected);
        assert!(of(Protected::Rejected).unwrap_err().to_string().contains("--ignore-security-settings"));
        assert_eq!(of(Protected::ServedOpen).unwrap()[0].endpoint.name, "OUTSIDE");
        let mapped = |map| listeners(Some("OUTSIDE://:9092"), None, map, "", Protected::Rejected);
        assert!(mapped("outside:sasl_ssl").is_err() && mapped("Outside:plaintext").is_ok(), "in any case");
        // A protocol for an unknown listener name is ignored.
        assert!(listeners(Some("PLAINTEXT://:9092"), None, "PLAINTEXT:PLAINTEXT,X:SASL_SSL", "", Protected::Rejected).is_ok());
    }
}
