//! What is believed of what Envoy says about a request.
//!
//! The fields are read on mesh listeners only, and each is checked: the inbound side forwards to
//! this pod and nowhere else, the outbound side to anywhere but this pod. So neither is an open
//! proxy, even for a process that reaches the listener without passing Envoy.

use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use http::header::HeaderMap;
use outrigger_policy::{Arrival, Peer, Side, Snapshot};

use crate::mesh::fields::{HOP, ORIGINAL_DESTINATION, PEER, UPSTREAM, address, only};
use crate::refusal::Refusal;

/// Ports of Envoy and pilot-agent in a pod (Istio 1.29).
const ISTIO_PORTS: [u16; 13] =
    [15000, 15001, 15002, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090, 15443, 15306];

/// What the data path knows about its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// The pod's own identity, `TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`, with which it calls
    /// others. `None` if it is not known.
    pub identity: Option<Box<str>>,
    /// Addresses of the pod, IPv4-mapped ones as IPv4.
    pub pod_addresses: Vec<IpAddr>,
    /// Ports that this process listens on; requests are never forwarded to them.
    pub own_ports: Vec<u16>,
}

/// What Envoy says about a request, checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived<'a> {
    /// Address that the request is forwarded to; `None` for the configured upstream.
    pub(crate) destination: Option<SocketAddr>,
    /// What policy and key take from it.
    pub(crate) arrival: Arrival<'a>,
}

/// Reads what Envoy says about a request. Nothing is read on a direct listener, which has no
/// `side`.
///
/// # Errors
/// It says nothing usable, or names a destination that is not allowed.
pub(crate) fn arrive<'a>(
    side: Option<Side>,
    headers: &'a HeaderMap,
    settings: &'a MeshSettings,
    has_upstream: bool,
    snapshot: &Snapshot,
) -> Result<Arrived<'a>, Refusal> {
    match side {
        None => Ok(Arrived::default()),
        Some(Side::Inbound) => inbound(headers, settings, has_upstream, snapshot),
        Some(Side::Outbound) => outbound(headers, settings, snapshot),
    }
}

fn inbound<'a>(
    headers: &'a HeaderMap,
    settings: &MeshSettings,
    has_upstream: bool,
    snapshot: &Snapshot,
) -> Result<Arrived<'a>, Refusal> {
    let peer = match only(headers, &PEER)? {
        None | Some("") => None,
        // Envoy passes on what the certificate says. Anything but a SPIFFE identity counts as none.
        Some(uri) => Peer::parse(uri),
    };
    let Some(address) = address(headers, &UPSTREAM)? else {
        if has_upstream {
            return Ok(Arrived {
                destination: None,
                arrival: Arrival { peer, ..Arrival::default() },
            });
        }
        return Err(Refusal::bad_request("no-upstream-named"));
    };
    let ip = address.ip().to_canonical();
    // An application may listen on loopback for its own pod only, so policy has to list the port.
    let listed = || snapshot.side(Side::Inbound).allows(address.port()) == Some(true);
    let own = settings.pod_addresses.contains(&ip) || (ip.is_loopback() && listed());
    if !own || !may_forward(Side::Inbound, address.port(), settings, snapshot) {
        return Err(Refusal::rejected(StatusCode::FORBIDDEN, "upstream-not-allowed"));
    }
    let entry = Some((Side::Inbound, address.port()));
    Ok(Arrived {
        destination: Some(address),
        arrival: Arrival { entry, peer, ..Arrival::default() },
    })
}

fn outbound<'a>(
    headers: &'a HeaderMap,
    settings: &'a MeshSettings,
    snapshot: &Snapshot,
) -> Result<Arrived<'a>, Refusal> {
    if headers.contains_key(&HOP) {
        return Err(Refusal::looping("hop"));
    }
    let Some(address) = address(headers, &ORIGINAL_DESTINATION)? else {
        return Err(Refusal::bad_request("no-destination-named"));
    };
    let ip = address.ip().to_canonical();
    let elsewhere = !(ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || is_link_local(ip)
        || settings.pod_addresses.contains(&ip));
    if !elsewhere || !may_forward(Side::Outbound, address.port(), settings, snapshot) {
        return Err(Refusal::rejected(StatusCode::FORBIDDEN, "destination-not-allowed"));
    }
    let entry = Some((Side::Outbound, address.port()));
    Ok(Arrived {
        destination: Some(address),
        arrival: Arrival { entry, own: settings.identity.as_deref(), peer: None },
    })
}

/// Whether requests may be forwarded to a port: one that policy lists or, where it lists none, any
/// but those of Envoy and Istio. On the inbound side never to a port of this process.
fn may_forward(side: Side, port: u16, settings: &MeshSettings, snapshot: &Snapshot) -> bool {
    if side == Side::Inbound && settings.own_ports.contains(&port) {
        return false;
    }
    let istio = side == Side::Inbound && ISTIO_PORTS.contains(&port);
    snapshot.side(side).allows(port).unwrap_or(port != 0 && !istio)
}

/// Link-local addresses, where clouds serve the credentials of a machine (169.254.169.254).
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const POD: &str = "10.77.0.3";

    fn settings() -> MeshSettings {
        MeshSettings {
            identity: None,
            pod_addresses: vec![POD.parse().unwrap()],
            own_ports: vec![15480, 15490],
        }
    }

    fn arrived(
        side: Option<Side>,
        policy: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let snapshot = Snapshot::from_yaml("p", policy).unwrap();
        let settings = settings();
        let found = arrive(side, &headers, &settings, false, &snapshot);
        found
            .map(|arrived| {
                let peer = arrived.arrival.peer.map_or("nobody", Peer::principal);
                let to = arrived.destination.map_or_else(|| "-".to_owned(), |to| to.to_string());
                format!("{to} {peer}")
            })
            .map_err(|refusal| format!("{} {}", refusal.status.as_u16(), refusal.detail))
    }

    #[test]
    fn the_inbound_side_forwards_to_its_own_pod_only() {
        let to = |policy, address| {
            arrived(Some(Side::Inbound), policy, &[("x-outrigger-upstream", address)])
        };
        let any = "{}";
        assert_eq!(to(any, "10.77.0.3:8080").as_deref(), Ok("10.77.0.3:8080 nobody"));
        assert!(to(any, "[::ffff:10.77.0.3]:8080").is_ok());
        let loopback = to("inbound: {ports: [8080]}", "127.0.0.1:8080");
        assert_eq!(loopback.as_deref(), Ok("127.0.0.1:8080 nobody"));
        for (policy, address) in [
            (any, "10.77.0.4:8080"),
            (any, "169.254.169.254:80"),
            (any, "10.77.0.3:15000"),
            (any, "10.77.0.3:15480"),
            (any, "127.0.0.1:8080"),
            ("inbound: {ports: [15490]}", "127.0.0.1:15490"),
            (any, "10.77.0.3:0"),
            ("inbound: {ports: [8080]}", "10.77.0.3:9090"),
            ("inbound: {ports: [15480]}", "10.77.0.3:15480"),
        ] {
            let refused = Err("403 upstream-not-allowed".to_owned());
            assert_eq!(to(policy, address), refused, "{policy} {address}");
        }
        assert_eq!(to(any, "reviews:8080"), Err("400 unreadable-address".to_owned()));
        let none = arrived(Some(Side::Inbound), any, &[]);
        assert_eq!(none, Err("400 no-upstream-named".to_owned()));
    }

    #[test]
    fn the_outbound_side_forwards_to_others_only() {
        let to =
            |address| arrived(Some(Side::Outbound), "{}", &[("x-outrigger-orig-dst", address)]);
        assert_eq!(to("10.78.0.10:9080").as_deref(), Ok("10.78.0.10:9080 nobody"));
        for address in
            ["127.0.0.1:9080", "0.0.0.0:80", "[::1]:80", "169.254.169.254:80", "10.77.0.3:8080"]
        {
            assert_eq!(to(address), Err("403 destination-not-allowed".to_owned()), "{address}");
        }
        let ports = "outbound: {ports: [9080]}";
        let other =
            arrived(Some(Side::Outbound), ports, &[("x-outrigger-orig-dst", "10.78.0.10:22")]);
        assert_eq!(other, Err("403 destination-not-allowed".to_owned()));
        let again = [("x-outrigger-orig-dst", "10.78.0.10:9080"), ("x-outrigger-hop", "1")];
        assert_eq!(arrived(Some(Side::Outbound), "{}", &again), Err("508 hop".to_owned()));
    }

    #[test]
    fn a_caller_is_who_envoy_says_and_nobody_else() {
        let peer = "spiffe://cluster.local/ns/shop/sa/frontend";
        let upstream = ("x-outrigger-upstream", "10.77.0.3:8080");
        let with = |side, peers: &[&str]| {
            let peers = peers.iter().map(|peer| ("x-outrigger-peer", *peer));
            let fields: Vec<_> = std::iter::once(upstream).chain(peers).collect();
            arrived(side, "{}", &fields)
        };
        let known = "10.77.0.3:8080 cluster.local/ns/shop/sa/frontend";
        assert_eq!(with(Some(Side::Inbound), &[peer]).as_deref(), Ok(known));
        for nobody in ["", "frontend", "spiffe://a/b,spiffe://c/d"] {
            let found = with(Some(Side::Inbound), &[nobody]);
            assert_eq!(found.as_deref(), Ok("10.77.0.3:8080 nobody"), "{nobody}");
        }
        assert_eq!(with(Some(Side::Inbound), &[peer, peer]), Err("400 field-set-twice".to_owned()));
        assert_eq!(with(None, &[peer]).as_deref(), Ok("- nobody"));
    }
}
