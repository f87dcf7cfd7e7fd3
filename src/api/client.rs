//! Where a request comes from.

use std::net::IpAddr;
use std::sync::Once;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

use crate::domain::network::Network;

/// Whose `X-Forwarded-For` is believed.
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    reported: Once,
}

/// A client, as far as one can know where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address; `None` for a connection that has none.
    pub address: Option<IpAddr>,
    /// Its network, for limits. `None` for this machine: behind a proxy that is not trusted, everybody would have it.
    pub network: Option<Network>,
}

impl TrustedProxies {
    /// Trusts these.
    pub fn new(proxies: &[IpNet]) -> Self {
        Self { networks: proxies.to_vec(), reported: Once::new() }
    }

    /// Where `request` comes from.
    pub fn client(&self, request: &HttpRequest) -> Client {
        let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
        let address = peer.map(|peer| self.forwarded(peer, request.headers()));
        let is_known = address.is_some_and(|address| !address.is_loopback());
        Client { address, network: address.filter(|_| is_known).map(Network::from) }
    }

    /// The rightmost address that is not a trusted proxy's: what is left of it, anybody could have written.
    fn forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer;
        let values: Vec<_> = headers.get_all(X_FORWARDED_FOR).collect();
        if !values.is_empty() && !self.trusts(peer) {
            self.reported.call_once(|| {
                log::warn!(
                    "{peer} sends X-Forwarded-For and is not one of TRUSTED_PROXIES: if it is a proxy, all of its clients \
                     are taken for one"
                );
            });
        }
        let hops = values.iter().rev().flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
        for hop in hops {
            if !self.trusts(address) {
                break;
            }
            let Some(hop) = parse_hop(hop.trim()) else { break };
            address = hop;
        }
        address
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address))
    }
}

/// An address, with or without brackets and a port: some proxies add them.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().or_else(|_| hop.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_trusted_proxys() {
        let trusted = TrustedProxies::new(&["127.0.0.1/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
        for (peer, forwarded, address) in [
            ("203.0.113.1:9", &[][..], "203.0.113.1"),
            ("203.0.113.1:9", &["198.51.100.1"], "203.0.113.1"),
            ("127.0.0.1:9", &[], "127.0.0.1"),
            ("127.0.0.1:9", &["198.51.100.1"], "198.51.100.1"),
            ("[::ffff:127.0.0.1]:9", &["198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1:9", &["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1:9", &["192.0.2.66, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
            ("127.0.0.1:9", &["192.0.2.66", "198.51.100.1", "10.1.2.3"], "198.51.100.1"),
            ("127.0.0.1:9", &["10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1:9", &["2001:db8::1"], "2001:db8::1"),
            ("127.0.0.1:9", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("127.0.0.1:9", &["[2001:db8::1]"], "2001:db8::1"),
            ("127.0.0.1:9", &["198.51.100.1:1234"], "198.51.100.1"),
            ("127.0.0.1:9", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1:9", &["198.51.100.1, unknown"], "127.0.0.1"),
            ("127.0.0.1:9", &["198.51.100.1, , 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1:9", &[""], "127.0.0.1"),
        ] {
            let mut request = TestRequest::get().peer_addr(peer.parse().unwrap());
            for value in forwarded {
                request = request.append_header((X_FORWARDED_FOR, *value));
            }
            let client = trusted.client(&request.to_http_request());
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(client.address, Some(address), "{peer} {forwarded:?}");
            assert_eq!(client.network, (!address.is_loopback()).then(|| address.into()));
        }
        let nobody = TrustedProxies::new(&[]);
        let request = TestRequest::get().peer_addr("127.0.0.1:9".parse().unwrap());
        let request = request.append_header((X_FORWARDED_FOR, "198.51.100.1")).to_http_request();
        assert_eq!(nobody.client(&request).network, None);
    }
}
