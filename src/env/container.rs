//! Whether we are in a container.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Files that Docker and Podman put into containers.
const MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// The gateway of the container that we are in: connections through published ports come from it, where the engine translates their addresses, as
/// Docker Desktop does for all and Docker on Linux for those from the host itself. None outside of containers.
pub fn container_gateway() -> Option<IpAddr> {
    if !MARKS.iter().any(|mark| Path::new(mark).exists()) {
        return None;
    }
    gateway(&std::fs::read_to_string("/proc/net/route").ok()?)
}

/// The gateway of the default route in `/proc/net/route`: `Iface Destination Gateway ...`, addresses in hex, the first byte last.
fn gateway(routes: &str) -> Option<IpAddr> {
    let fields = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let default = fields.filter(|fields| fields.get(1) == Some(&"00000000")).find_map(|fields| fields.get(2).copied())?;
    let address = u32::from_str_radix(default, 16).ok().filter(|address| *address != 0)?;
    Some(IpAddr::V4(Ipv4Addr::from(address.to_le_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_leads_to_the_gateway() {
        let routes = "Iface\tDestination\tGateway \tFlags\neth0\t000011AC\t00000000\t0001\neth0\t00000000\t010011AC\t0003\n";
        assert_eq!(gateway(routes), Some([172, 17, 0, 1].into()));
        assert_eq!(gateway("Iface\tDestination\tGateway\neth0\t00000000\t00000000\t0001\n"), None);
    }
}
