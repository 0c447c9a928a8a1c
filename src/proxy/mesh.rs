//! Listeners to which the pod's own Envoy sends requests: what its route says in header fields, and
//! what of that is believed.
//!
//! Fields are read on these listeners only, and each is checked: the inbound side forwards to this
//! pod and nowhere else, the outbound side to anywhere but this pod. Both are no open proxy even to
//! a process that has found its way round Envoy. The fields never go on to an upstream.

use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};
use outrigger_policy::{Arrival, Peer, Side, Snapshot};
use outrigger_telemetry::Outcome;

use crate::pipeline::Refusal;

/// Address and port that the caller's request was for: the pod's own.
static UPSTREAM: HeaderName = HeaderName::from_static("x-outrigger-upstream");
/// The caller's SPIFFE URI, from its client certificate.
static PEER: HeaderName = HeaderName::from_static("x-outrigger-peer");
/// Address and port that the application's request was for.
static ORIGINAL_DESTINATION: HeaderName = HeaderName::from_static("x-outrigger-orig-dst");
/// Set on requests of the outbound side, which Envoy sees again and must not send back.
static HOP: HeaderName = HeaderName::from_static("x-outrigger-hop");
/// All fields of ours begin so.
const PREFIX: &str = "x-outrigger-";

/// Ports of Envoy and pilot-agent in a pod (Istio 1.29).
const ISTIO_PORTS: [u16; 13] =
    [15000, 15001, 15002, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090, 15443, 15306];

/// Who sends requests to a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Clients. What they ask for goes to the configured upstream.
    #[default]
    Direct,
    /// Envoy, requests for the application in this pod.
    Inbound,
    /// Envoy, requests of the application in this pod.
    Outbound,
}

impl Mode {
    /// The side of the pod; `None` outside a mesh.
    pub fn side(self) -> Option<Side> {
        match self {
            Self::Direct => None,
            Self::Inbound => Some(Side::Inbound),
            Self::Outbound => Some(Side::Outbound),
        }
    }
}

/// What the data path knows about its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// The pod's own identity, `TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`: as whom it calls
    /// others. `None` where it is not known.
    pub identity: Option<Box<str>>,
    /// Addresses of the pod.
    pub pod_addresses: Vec<IpAddr>,
    /// Ports that this process listens on: never forwarded to.
    pub own_ports: Vec<u16>,
}

/// A request as it has come in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrived<'a> {
    /// Where it goes; `None` for the configured upstream.
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) arrival: Arrival<'a>,
}

const fn refusal(status: StatusCode, detail: &'static str) -> Refusal {
    Refusal { status, outcome: Outcome::Rejected, detail }
}

/// Reads what Envoy says about a request.
///
/// # Errors
/// It says nothing usable, or names a destination that is not allowed.
pub(crate) fn arrive<'a>(
    mode: Mode,
    headers: &'a HeaderMap,
    settings: &'a MeshSettings,
    has_upstream: bool,
    snapshot: &Snapshot,
) -> Result<Arrived<'a>, Refusal> {
    match mode {
        Mode::Direct => Ok(Arrived::default()),
        Mode::Inbound => inbound(headers, settings, has_upstream, snapshot),
        Mode::Outbound => outbound(headers, settings, snapshot),
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
        // Envoy passes on what the certificate says; what is no SPIFFE identity is nobody's.
        Some(uri) => Peer::parse(uri),
    };
    let Some(address) = address(headers, &UPSTREAM)? else {
        if has_upstream {
            return Ok(Arrived {
                destination: None,
                arrival: Arrival { peer, ..Arrival::default() },
            });
        }
        return Err(refusal(StatusCode::BAD_REQUEST, "no-upstream-named"));
    };
    let ip = address.ip().to_canonical();
    // On loopback an application may listen for nobody but its own pod.
    let listed = || snapshot.side(Side::Inbound).allows(address.port()) == Some(true);
    let own = settings.pod_addresses.contains(&ip) || (ip.is_loopback() && listed());
    if !own || !may_forward(Side::Inbound, address.port(), settings, snapshot) {
        return Err(refusal(StatusCode::FORBIDDEN, "upstream-not-allowed"));
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
        return Err(Refusal {
            status: StatusCode::LOOP_DETECTED,
            outcome: Outcome::Loop,
            detail: "hop",
        });
    }
    let Some(address) = address(headers, &ORIGINAL_DESTINATION)? else {
        return Err(refusal(StatusCode::BAD_REQUEST, "no-destination-named"));
    };
    let ip = address.ip().to_canonical();
    let elsewhere = !(ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || is_link_local(ip)
        || settings.pod_addresses.contains(&ip));
    if !elsewhere || !may_forward(Side::Outbound, address.port(), settings, snapshot) {
        return Err(refusal(StatusCode::FORBIDDEN, "destination-not-allowed"));
    }
    let entry = Some((Side::Outbound, address.port()));
    Ok(Arrived {
        destination: Some(address),
        arrival: Arrival { entry, own: settings.identity.as_deref(), peer: None },
    })
}

/// Whether a port may be forwarded to: one that policy names, or where it names none, any that is
/// not Envoy's or Istio's. Ports of this process on this pod never.
fn may_forward(side: Side, port: u16, settings: &MeshSettings, snapshot: &Snapshot) -> bool {
    if side == Side::Inbound && settings.own_ports.contains(&port) {
        return false;
    }
    let istio = side == Side::Inbound && ISTIO_PORTS.contains(&port);
    snapshot.side(side).allows(port).unwrap_or(port != 0 && !istio)
}

/// Where clouds keep the credentials of a machine.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn address(headers: &HeaderMap, name: &HeaderName) -> Result<Option<SocketAddr>, Refusal> {
    let Some(text) = only(headers, name)? else { return Ok(None) };
    let unreadable = || refusal(StatusCode::BAD_REQUEST, "unreadable-address");
    text.parse().map(Some).map_err(|_| unreadable())
}

/// The one value of a field. Two of them mean that somebody besides Envoy has set it.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(refusal(StatusCode::BAD_REQUEST, "field-set-twice"));
    }
    let text = first.map(HeaderValue::to_str).transpose();
    text.map_err(|_| refusal(StatusCode::BAD_REQUEST, "unreadable-field"))
}

/// The host of Envoy's health checks of a listener. No client can send them there: its requests
/// have passed Envoy's routes, which go by other hosts.
const HEALTH_HOST: &[u8] = b"outrigger.internal";
/// The path of Envoy's health checks.
const HEALTH_PATH: &str = "/readyz";

/// Whether a request is a health check of Envoy, for this listener itself.
pub(crate) fn is_health_check<B>(mode: Mode, request: &http::Request<B>) -> bool {
    if mode == Mode::Direct || request.uri().path() != HEALTH_PATH {
        return false;
    }
    let headers = request.headers();
    // What Envoy forwards says where it goes.
    if headers.contains_key(&UPSTREAM) || headers.contains_key(&ORIGINAL_DESTINATION) {
        return false;
    }
    match request.uri().authority() {
        Some(authority) => authority.as_str().as_bytes() == HEALTH_HOST,
        None => headers.get(http::header::HOST).is_some_and(|host| host.as_bytes() == HEALTH_HOST),
    }
}

/// Takes our fields out of a request that goes to an upstream; on the outbound side, marks it for
/// the Envoy that will see it again.
pub(crate) fn strip(headers: &mut HeaderMap, mode: Mode) {
    let ours = |name: &&HeaderName| name.as_str().starts_with(PREFIX);
    while let Some(name) = headers.keys().find(ours).cloned() {
        headers.remove(&name);
    }
    if mode == Mode::Outbound {
        headers.insert(&HOP, HeaderValue::from_static("1"));
    }
}

#[cfg(test)]
mod tests {
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
        mode: Mode,
        policy: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let snapshot = Snapshot::from_yaml("p", policy).unwrap();
        let settings = settings();
        let found = arrive(mode, &headers, &settings, false, &snapshot);
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
        let to =
            |policy, address| arrived(Mode::Inbound, policy, &[("x-outrigger-upstream", address)]);
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
        let none = arrived(Mode::Inbound, any, &[]);
        assert_eq!(none, Err("400 no-upstream-named".to_owned()));
    }

    #[test]
    fn the_outbound_side_forwards_to_others_only() {
        let to = |address| arrived(Mode::Outbound, "{}", &[("x-outrigger-orig-dst", address)]);
        assert_eq!(to("10.78.0.10:9080").as_deref(), Ok("10.78.0.10:9080 nobody"));
        for address in
            ["127.0.0.1:9080", "0.0.0.0:80", "[::1]:80", "169.254.169.254:80", "10.77.0.3:8080"]
        {
            assert_eq!(to(address), Err("403 destination-not-allowed".to_owned()), "{address}");
        }
        let ports = "outbound: {ports: [9080]}";
        let other = arrived(Mode::Outbound, ports, &[("x-outrigger-orig-dst", "10.78.0.10:22")]);
        assert_eq!(other, Err("403 destination-not-allowed".to_owned()));
        let again = [("x-outrigger-orig-dst", "10.78.0.10:9080"), ("x-outrigger-hop", "1")];
        assert_eq!(arrived(Mode::Outbound, "{}", &again), Err("508 hop".to_owned()));
    }

    #[test]
    fn a_caller_is_who_envoy_says_and_nobody_else() {
        let peer = "spiffe://cluster.local/ns/shop/sa/frontend";
        let upstream = ("x-outrigger-upstream", "10.77.0.3:8080");
        let with = |mode, peers: &[&str]| {
            let peers = peers.iter().map(|peer| ("x-outrigger-peer", *peer));
            let fields: Vec<_> = std::iter::once(upstream).chain(peers).collect();
            arrived(mode, "{}", &fields)
        };
        let known = "10.77.0.3:8080 cluster.local/ns/shop/sa/frontend";
        assert_eq!(with(Mode::Inbound, &[peer]).as_deref(), Ok(known));
        for nobody in ["", "frontend", "spiffe://a/b,spiffe://c/d"] {
            let found = with(Mode::Inbound, &[nobody]);
            assert_eq!(found.as_deref(), Ok("10.77.0.3:8080 nobody"), "{nobody}");
        }
        assert_eq!(with(Mode::Inbound, &[peer, peer]), Err("400 field-set-twice".to_owned()));
        assert_eq!(with(Mode::Direct, &[peer]).as_deref(), Ok("- nobody"));
    }

    #[test]
    fn our_fields_do_not_leave() {
        let mut headers = HeaderMap::new();
        for name in ["x-outrigger-peer", "x-outrigger-upstream", "x-outrigger-new", "x-other"] {
            headers.append(name, HeaderValue::from_static("v"));
        }
        strip(&mut headers, Mode::Inbound);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
        headers.append(&HOP, HeaderValue::from_static("7"));
        strip(&mut headers, Mode::Outbound);
        assert_eq!(headers.get(&HOP).map(HeaderValue::as_bytes), Some(&b"1"[..]));
    }
}
