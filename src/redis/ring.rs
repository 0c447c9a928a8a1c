//! Which server holds a key, where keys are spread over several: ketama hashing with virtual nodes,
//! so that a server more or less moves few keys. All pods compute the same place.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum};

use crate::location::Server;

/// The hash ring of several servers.
pub struct Ring {
    continuum: Continuum,
    /// The addresses by which the ring names servers, in their order.
    names: Vec<SocketAddr>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("servers", &self.names.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring of servers. Their order does not change where keys are placed.
    pub fn new(servers: &[Server]) -> Self {
        let names: Vec<SocketAddr> = servers.iter().map(ring_address).collect();
        let buckets: Vec<Bucket> = names.iter().map(|name| Bucket::new(*name, 1)).collect();
        Ring { continuum: Continuum::new(&buckets), names }
    }

    /// Position of the server that holds a key, in the order given to [`Ring::new`].
    pub fn place(&self, key: &[u8]) -> usize {
        let name = self.continuum.node(key);
        self.names.iter().position(|have| Some(*have) == name).unwrap_or(0)
    }
}

/// An address made from a server's name. The ring wants addresses, and the one that a name resolves
/// to may change.
fn ring_address(server: &Server) -> SocketAddr {
    let hash = blake3::hash(server.to_string().as_bytes());
    let mut address = [0; 16];
    address.copy_from_slice(&hash.as_bytes()[..16]);
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(ports: &[u16]) -> Vec<Server> {
        ports.iter().map(|port| Server::Tcp { host: "r".to_owned(), port: *port }).collect()
    }

    #[test]
    fn keys_are_spread_and_stay_where_they_are() {
        let three = servers(&[1, 2, 3]);
        let ring = Ring::new(&three);
        let mut counts = [0; 3];
        for n in 0..3000 {
            counts[ring.place(format!("k{n}").as_bytes())] += 1;
        }
        assert!(counts.iter().all(|count| *count > 600), "{counts:?}");
        // The order in the configuration is nothing that pods must agree on.
        let reordered = servers(&[3, 1, 2]);
        let other = Ring::new(&reordered);
        let moved = (0..3000).filter(|n| {
            let key = format!("k{n}");
            three[ring.place(key.as_bytes())] != reordered[other.place(key.as_bytes())]
        });
        assert_eq!(moved.count(), 0);
        let fewer = servers(&[1, 2]);
        let shrunk = Ring::new(&fewer);
        let moved = (0..3000).filter(|n| {
            let key = format!("k{n}");
            let before = &three[ring.place(key.as_bytes())];
            *before != three[2] && *before != fewer[shrunk.place(key.as_bytes())]
        });
        assert_eq!(moved.count(), 0);
    }
}
