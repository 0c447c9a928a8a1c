//! The known endpoints, and the order in which they are candidates for a request: in turn, or by
//! a ketama ring over the cache key, so that an endpoint more or less moves few keys. Whether a
//! candidate is fit for use is for the caller to say.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora_ketama::{Bucket, Continuum};

use crate::upstream::address::EndpointAddress;
use crate::upstream::health::Health;
use crate::upstream::settings::Balance;

/// Points of the ring that are looked at before endpoints are taken in the order of their list.
const RING_POINTS_MAX: usize = 64;

/// An endpoint with its health.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: EndpointAddress,
    pub(crate) health: Arc<Health>,
}

/// All endpoints that are known at a time.
pub(crate) struct EndpointSet {
    /// In the order of their addresses.
    all: Vec<Endpoint>,
    ring: Option<Ring>,
}

struct Ring {
    points: Continuum,
    /// Positions in the list, by the addresses that name them on the ring.
    positions: HashMap<SocketAddr, usize>,
}

impl EndpointSet {
    /// A set of these addresses. Endpoints that were known `before` keep their health.
    pub(crate) fn new(
        addresses: BTreeSet<EndpointAddress>,
        balance: Balance,
        before: &[Endpoint],
    ) -> Self {
        let all = Vec::from_iter(addresses.into_iter().map(|address| {
            let known = before.iter().find(|known| known.address == address);
            let health = known.map(|known| Arc::clone(&known.health)).unwrap_or_default();
            Endpoint { address, health }
        }));
        let ring = (balance == Balance::ConsistentHash).then(|| Ring::new(&all));
        EndpointSet { all, ring }
    }

    /// The endpoints in the order of their addresses.
    pub(crate) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// The first candidate for a key that `fits`. Without a ring, `turn` is the counter by which
    /// endpoints take turns.
    pub(crate) fn select(
        &self,
        key: u128,
        turn: &AtomicUsize,
        fits: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Endpoint> {
        let Some(ring) = &self.ring else { return self.in_turn(turn, fits) };
        let key = key.to_le_bytes();
        let candidates = ring.points.node_iter(&key).take(RING_POINTS_MAX);
        let candidates = candidates.filter_map(|name| self.all.get(*ring.positions.get(name)?));
        let mut candidates = candidates.chain(&self.all);
        candidates.find(|endpoint| fits(endpoint))
    }

    /// The next endpoint in turn that `fits`. Those that are passed over use up their turn, so
    /// that their share is spread over all others.
    pub(crate) fn in_turn(
        &self,
        turn: &AtomicUsize,
        fits: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Endpoint> {
        let start = turn.fetch_add(1, Ordering::Relaxed);
        let at = |step: usize| &self.all[start.wrapping_add(step) % self.all.len()];
        let step = (0..self.all.len()).find(|step| fits(at(*step)))?;
        if step > 0 {
            turn.fetch_add(step, Ordering::Relaxed);
        }
        Some(at(step))
    }
}

impl Ring {
    fn new(all: &[Endpoint]) -> Self {
        let names = all.iter().map(|endpoint| ring_name(&endpoint.address));
        let positions: HashMap<_, _> = names.zip(0..).collect();
        let mut names = Vec::from_iter(positions.keys().copied());
        names.sort_unstable();
        let buckets = Vec::from_iter(names.into_iter().map(|name| Bucket::new(name, 1)));
        Ring { points: Continuum::new(&buckets), positions }
    }
}

/// The ring places socket addresses only; a Unix socket gets one that its path determines.
fn ring_name(address: &EndpointAddress) -> SocketAddr {
    match address {
        EndpointAddress::Tcp(address) => *address,
        EndpointAddress::Unix(path) => {
            let hash = blake3::hash(path.as_os_str().as_bytes());
            let mut bits = [0; 16];
            bits.copy_from_slice(&hash.as_bytes()[..16]);
            SocketAddr::new(IpAddr::V6(Ipv6Addr::from(bits)), 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(balance: Balance, ports: &[u16]) -> EndpointSet {
        let tcp = |port: &u16| EndpointAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], *port)));
        EndpointSet::new(ports.iter().map(tcp).collect(), balance, &[])
    }

    fn port(endpoint: Option<&Endpoint>) -> Option<u16> {
        match &endpoint?.address {
            EndpointAddress::Tcp(address) => Some(address.port()),
            EndpointAddress::Unix(_) => None,
        }
    }

    /// 3,000 keys that look like hashes, which is what keys are.
    fn keys() -> impl Iterator<Item = u128> {
        (0..3000).map(|n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    /// How many of the keys go to each port, with some endpoints left out.
    fn shares(set: &EndpointSet, out: &[u16]) -> HashMap<u16, usize> {
        let turn = AtomicUsize::new(0);
        let mut shares = HashMap::new();
        for key in keys() {
            let fits = |endpoint: &Endpoint| !out.contains(&port(Some(endpoint)).unwrap());
            *shares.entry(port(set.select(key, &turn, fits)).unwrap()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn turns_are_even_whoever_is_left_out() {
        let set = set(Balance::RoundRobin, &[1, 2, 3, 4]);
        assert_eq!(shares(&set, &[]), HashMap::from([(1, 750), (2, 750), (3, 750), (4, 750)]));
        assert_eq!(shares(&set, &[2]), HashMap::from([(1, 1000), (3, 1000), (4, 1000)]));
    }

    #[test]
    fn a_ring_moves_only_the_keys_of_the_one_that_is_gone() {
        let (three, two) =
            (set(Balance::ConsistentHash, &[1, 2, 3]), set(Balance::ConsistentHash, &[1, 3]));
        let shares = shares(&three, &[]);
        assert!(shares.len() == 3 && shares.values().all(|share| *share > 600), "{shares:?}");
        let turn = AtomicUsize::new(0);
        for key in keys() {
            let before = port(three.select(key, &turn, |_| true));
            let after = port(two.select(key, &turn, |_| true));
            assert!(before == Some(2) || before == after, "{key}");
            let left_out = port(three.select(key, &turn, |it| port(Some(it)) != Some(2)));
            assert_eq!(left_out, after, "one that is unfit counts like one that is gone");
        }
    }

    #[test]
    fn unix_sockets_have_places_on_the_ring() {
        let unix = |name: &str| EndpointAddress::Unix(std::path::Path::new(name).into());
        let names = [unix("/run/a"), unix("/run/b")];
        let set = EndpointSet::new(names.into_iter().collect(), Balance::ConsistentHash, &[]);
        let turn = AtomicUsize::new(0);
        let found: BTreeSet<_> = keys()
            .filter_map(|key| set.select(key, &turn, |_| true).map(|it| it.address.clone()))
            .collect();
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn no_endpoint_is_no_candidate() {
        for balance in [Balance::RoundRobin, Balance::ConsistentHash] {
            let empty = set(balance, &[]);
            assert!(empty.select(1, &AtomicUsize::new(0), |_| true).is_none());
        }
    }

    #[test]
    fn who_stays_keeps_its_health() {
        let before = set(Balance::RoundRobin, &[1, 2]);
        let addresses = before.all()[..1].iter().map(|it| it.address.clone()).collect();
        let after = EndpointSet::new(addresses, Balance::RoundRobin, before.all());
        assert!(Arc::ptr_eq(&before.all()[0].health, &after.all()[0].health));
    }
}
