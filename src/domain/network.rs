//! Where a client is, as far as limits care.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address, or an IPv6 /64: a provider gives each customer at least that many IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// One address.
    V4(Ipv4Addr),
    /// The addresses that share these first 64 bits.
    V6(u64),
}

impl Network {
    /// The number of bits that the addresses of an IPv6 network share.
    const PREFIX: u32 = 64;

    /// The inverse of [`fmt::Display`].
    pub fn parse(text: &str) -> Option<Self> {
        let network = match text.strip_suffix("/64") {
            Some(address) => Self::V6((address.parse::<Ipv6Addr>().ok()?.to_bits() >> Self::PREFIX) as u64),
            None => Self::V4(text.parse().ok()?),
        };
        (network.to_string() == text).then_some(network)
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        /// The first 96 bits of addresses that stand for IPv4 addresses (RFC 6052, section 2.1).
        const NAT64: u128 = 0x64_ff9b << 64;
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) if address.to_bits() >> 32 == NAT64 => Self::V4((address.to_bits() as u32).into()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> Self::PREFIX) as u64),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(prefix) => {
                write!(f, "{}/{}", Ipv6Addr::from_bits(u128::from(*prefix) << Self::PREFIX), Self::PREFIX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_count_by_their_network() {
        let network = |address: &str| Network::from(address.parse::<IpAddr>().unwrap()).to_string();
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::", "2001:db8:1:3::/64"),
            ("::1", "::/64"),
            ("64:ff9b::192.0.2.7", "192.0.2.7"),
            ("64:ff9b:0:0:0:1::", "64:ff9b::/64"),
        ] {
            assert_eq!(network(address), expected);
            assert_eq!(Network::parse(expected), Some(Network::from(address.parse::<IpAddr>().unwrap())));
        }
        for bad in ["", "192.0.2.7/64", "2001:db8::", "2001:db8::1/64", "2001:db8::/65", "x"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
