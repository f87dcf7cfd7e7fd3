//! Where a request comes from.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::domain::network::Network;

/// Peers that are reported, at most.
const MAX_REPORTED: usize = 16;

/// Whose `X-Forwarded-For` is believed.
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Peers whose headers don't fit that, and about which there was a line in the log.
    reported: Mutex<HashSet<IpAddr>>,
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
        Self { networks: proxies.to_vec(), reported: Mutex::default() }
    }

    /// Where `request` comes from.
    pub fn client(&self, request: &HttpRequest) -> Client {
        let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
        let address = peer.map(|peer| self.forwarded(peer, request.headers()));
        let is_known = address.is_some_and(|address| !address.is_loopback());
        Client { address, network: address.filter(|_| is_known).map(Network::from) }
    }

    /// Reports, once, a peer that looks like a proxy and is not declared, or is declared and does not say for whom it
    /// asks.
    pub fn report(&self, request: &HttpRequest) {
        let Some(peer) = request.peer_addr().map(|peer| peer.ip().to_canonical()) else { return };
        let (sends, is_trusted) = (request.headers().contains_key(X_FORWARDED_FOR), self.trusts(peer));
        // Strangers are no proxies of ours, whatever they send.
        if sends == is_trusted || !(is_trusted || is_nearby(peer)) {
            return;
        }
        let mut reported = self.reported.lock();
        if reported.len() == MAX_REPORTED || !reported.insert(peer) {
            return;
        }
        drop(reported);
        if is_trusted {
            log::warn!(
                "{peer} is one of TRUSTED_PROXIES and sends no X-Forwarded-For: all of its clients are taken for it"
            );
        } else if peer.is_loopback() {
            log::warn!(
                "a proxy on this machine sends X-Forwarded-For: without TRUSTED_PROXIES={peer}, nothing is limited by \
                 address, and whoever guesses a password can keep its owner from logging in"
            );
        } else {
            log::warn!(
                "{peer} sends X-Forwarded-For: if it is a proxy of yours, add it to TRUSTED_PROXIES, or all of its clients \
                 are taken for one"
            );
        }
    }

    /// The rightmost address that is not a trusted proxy's: what is left of it, anybody could have written.
    fn forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer;
        let values: Vec<_> = headers.get_all(X_FORWARDED_FOR).collect();
        // As bytes: what a client has sent before its proxy's part need not be text.
        let hops = values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops {
            if !self.trusts(address) {
                break;
            }
            let Some(hop) = parse_hop(hop) else { break };
            address = hop;
        }
        address
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address))
    }
}

/// Whether an address is this machine's, or of a private network (RFC 1918, RFC 4193), where proxies are.
fn is_nearby(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

/// An address, with or without brackets and a port: some proxies add them.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let address = hop.parse().or_else(|_| hop.parse().map(|socket: SocketAddr| socket.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;

    use super::*;

    fn request(peer: &str, forwarded: &[&[u8]]) -> HttpRequest {
        let mut request = TestRequest::get().peer_addr(peer.parse().unwrap());
        for value in forwarded {
            request = request.append_header((X_FORWARDED_FOR, HeaderValue::from_bytes(value).unwrap()));
        }
        request.to_http_request()
    }

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
            ("127.0.0.1:9", &["\u{e9}, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1:9", &["198.51.100.1, unknown"], "127.0.0.1"),
            ("127.0.0.1:9", &["198.51.100.1, , 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1:9", &[""], "127.0.0.1"),
        ] {
            let values: Vec<&[u8]> = forwarded.iter().map(|value| value.as_bytes()).collect();
            let client = trusted.client(&request(peer, &values));
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(client.address, Some(address), "{peer} {forwarded:?}");
            assert_eq!(client.network, (!address.is_loopback()).then(|| address.into()));
        }
        let forged = trusted.client(&request("127.0.0.1:9", &[b"\xe9, 198.51.100.1"]));
        assert_eq!(forged.address, Some("198.51.100.1".parse().unwrap()));
        let nobody = TrustedProxies::new(&[]);
        assert_eq!(nobody.client(&request("127.0.0.1:9", &[b"198.51.100.1"])).network, None);
    }

    #[test]
    fn a_proxy_that_is_not_declared_or_does_not_say_for_whom_it_asks_is_reported() {
        let trusted = TrustedProxies::new(&["10.0.0.1/32".parse().unwrap()]);
        let reported = |peer: &str, forwarded: &[&[u8]]| {
            let before = trusted.reported.lock().len();
            trusted.report(&request(peer, forwarded));
            trusted.reported.lock().len() > before
        };
        assert!(!reported("10.0.0.1:9", &[b"198.51.100.1"]) && reported("10.0.0.1:9", &[]));
        assert!(!reported("10.0.0.1:9", &[]), "once");
        assert!(!reported("10.0.0.2:9", &[]) && reported("10.0.0.2:9", &[b"198.51.100.1"]));
        assert!(!reported("203.0.113.1:9", &[b"198.51.100.1"]), "anybody can send that");
        assert!(reported("127.0.0.1:9", &[b"198.51.100.1"]) && reported("[fd00::1]:9", &[b"198.51.100.1"]));
        for n in 0..100 {
            reported(&format!("10.1.0.{n}:9"), &[b"x"]);
        }
        assert_eq!(trusted.reported.lock().len(), MAX_REPORTED);
    }
}
