//! `listeners` and `advertised.listeners`.

use std::collections::BTreeMap;

use super::Error;
use crate::server::{Advertised, Endpoint};

/// Where to listen, and what to tell clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The address to bind; all addresses where the configuration names none.
    pub host: String,
    /// The port; 0 takes a free one.
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

/// Reads both lists. `controllers` names listeners that only controllers use: they are passed over. Without `listeners` the advertised ones
/// are listened on at all addresses.
pub(super) fn listeners(
    listeners: Option<&str>,
    advertised: Option<&str>,
    protocols: &str,
    controllers: &str,
) -> Result<Vec<ListenerConfig>, Error> {
    let advertised = advertised.filter(|a| !a.trim().is_empty()).map(|a| parse("advertised.listeners", a)).transpose()?.unwrap_or_default();
    let bound = match listeners {
        Some(text) => parse("listeners", text)?,
        None => advertised.iter().map(|a| Address { host: String::new(), ..a.clone() }).collect(),
    };
    let controllers: Vec<&str> = controllers.split(',').map(str::trim).collect();
    let protocols: BTreeMap<&str, &str> =
        protocols.split(',').filter_map(|p| p.split_once(':')).map(|(n, p)| (n.trim(), p.trim())).collect();
    let told: BTreeMap<&str, &Address> = advertised.iter().map(|a| (a.name.as_str(), a)).collect();
    let mut result = Vec::new();
    for address in bound.iter().filter(|a| !controllers.contains(&a.name.as_str())) {
        let refuse = |key: &str, value: &str, what: &str| Error::Setting { key: key.into(), value: value.into(), what: what.into() };
        let protocol = protocols.get(address.name.as_str()).copied().unwrap_or(address.name.as_str());
        if protocol != "PLAINTEXT"
            && (protocols.contains_key(address.name.as_str()) || ["SSL", "SASL_PLAINTEXT", "SASL_SSL"].contains(&protocol))
        {
            return Err(refuse("listeners", &address.name, &format!("{protocol} is not supported yet; only PLAINTEXT is")));
        }
        let advertised = match told.get(address.name.as_str()) {
            Some(told) if matches!(told.host.as_str(), "0.0.0.0" | "::") => {
                return Err(refuse(
                    "advertised.listeners",
                    &told.host,
                    "clients cannot connect to this address; name the host as they see it",
                ));
            }
            // Kafka takes the machine's name here; what a client has reached is right more often.
            Some(told) if told.host.is_empty() => Advertised::AsReached,
            Some(told) => Advertised::Address(told.host.clone(), told.port),
            None => Advertised::AsReached,
        };
        let host = if address.host.is_empty() { "0.0.0.0".to_string() } else { address.host.clone() };
        result.push(ListenerConfig { host, port: address.port, endpoint: Endpoint { name: address.name.clone(), advertised } });
    }
    for (at, listener) in result.iter().enumerate() {
        if result[..at]
            .iter()
            .any(|l| l.endpoint.name == listener.endpoint.name || l.port == listener.port && l.port != 0 && l.host == listener.host)
        {
            let what = "each listener needs a name and an address of its own";
            return Err(Error::Setting { key: "listeners".into(), value: listener.endpoint.name.clone(), what: what.into() });
        }
    }
    if result.is_empty() {
        return Err(Error::Setting {
            key: "listeners".into(),
            value: listeners.unwrap_or_default().into(),
            what: "at least one listener is needed".into(),
        });
    }
    Ok(result)
}

fn parse(key: &str, text: &str) -> Result<Vec<Address>, Error> {
    let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
    words
        .map(|word| {
            let refuse = || Error::Setting {
                key: key.into(),
                value: word.into(),
                what: "must be NAME://host:port, as in PLAINTEXT://localhost:9092".into(),
            };
            let (name, rest) = word.split_once("://").unwrap_or(("PLAINTEXT", word));
            let (host, port) = rest.rsplit_once(':').ok_or_else(refuse)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse().map_err(|_| refuse())?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                return Err(refuse());
            }
            Ok(Address { name: name.to_string(), host: host.to_string(), port })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOLS: &str = "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,SSL:SSL,TC-0:PLAINTEXT";

    fn read(bound: Option<&str>, told: Option<&str>) -> Result<Vec<ListenerConfig>, Error> {
        listeners(bound, told, PROTOCOLS, "CONTROLLER")
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
        let told = read(None, Some("PLAINTEXT://example.org:9092")).unwrap();
        assert_eq!((told[0].host.as_str(), told[0].port), ("0.0.0.0", 9092));
        assert_eq!(read(Some("localhost:9092"), None).unwrap()[0].host, "localhost");
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_sentence() {
        for (bound, told) in [
            ("PLAINTEXT://localhost", None),
            ("PLAINTEXT://localhost:x", None),
            ("://localhost:1", None),
            ("SSL://localhost:9092", None),
            ("PLAINTEXT://:9092", Some("PLAINTEXT://0.0.0.0:9092")),
            ("PLAINTEXT://:9092,PLAINTEXT://:9093", None),
            ("PLAINTEXT://:9092,INTERNAL://:9092", None),
            ("CONTROLLER://:9093", None),
        ] {
            assert!(read(Some(bound), told).is_err(), "{bound} {told:?}");
        }
    }
}
