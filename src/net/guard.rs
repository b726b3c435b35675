//! Which addresses may be called: those of the public Internet, and those that the configuration allows.
//!
//! The tables follow the IANA special-purpose address registries (RFC 6890) and refuse a little more: what embeds an IPv4
//! address in IPv6 without being it, and what a cloud's host answers on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why an address is not called: what kind of address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(&'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(start: [u16; 4], prefix: u8) -> Ipv6Net {
    let [a, b, c, d] = start;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

/// IPv4 that is not public. The first range that holds an address names it.
const V4: [(Ipv4Net, &str); 17] = [
    (v4(0, 0, 0, 0, 8), "an unspecified address"),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(100, 64, 0, 0, 10), "a carrier's shared address"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(168, 63, 129, 16, 32), "an address of the cloud's host"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 0, 0, 0, 24), "a reserved address"),
    (v4(192, 0, 2, 0, 24), "a documentation address"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(198, 18, 0, 0, 15), "a benchmarking address"),
    (v4(198, 51, 100, 0, 24), "a documentation address"),
    (v4(203, 0, 113, 0, 24), "a documentation address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(255, 255, 255, 255, 32), "the broadcast address"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
];

/// Where public IPv6 lies: what is outside is refused, whether it has a name in [`V6`] or not.
const UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// IPv6 that is not public. The first range that holds an address names it.
const V6: [(Ipv6Net, &str); 14] = [
    (v6([0, 0, 0, 0], 128), "an unspecified address"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "a loopback address"),
    (v6([0x64, 0xff9b, 0, 0], 96), "a NAT64 address"),
    (v6([0x64, 0xff9b, 1, 0], 48), "a NAT64 address"),
    (v6([0x100, 0, 0, 0], 64), "a discard address"),
    (v6([0x2001, 0, 0, 0], 32), "a Teredo address"),
    (v6([0x2001, 0, 0, 0], 23), "a reserved address"),
    (v6([0x2001, 0xdb8, 0, 0], 32), "a documentation address"),
    (v6([0x2002, 0, 0, 0], 16), "a 6to4 address"),
    (v6([0x3fff, 0, 0, 0], 20), "a documentation address"),
    (v6([0xfc00, 0, 0, 0], 7), "a private address"),
    (v6([0xfe80, 0, 0, 0], 10), "a link-local address"),
    (v6([0xfec0, 0, 0, 0], 10), "a site-local address"),
    (v6([0xff00, 0, 0, 0], 8), "a multicast address"),
];

/// Judges addresses before they are called.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    /// A guard that lets `allowed` pass, whatever lies there.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// A guard that lets every address pass: for hosts that the operator names.
    pub fn open() -> Self {
        Self::new(vec![IpNet::V4(v4(0, 0, 0, 0, 0)), IpNet::V6(v6([0; 4], 0))])
    }

    /// Whether `address` may be called by a host that has the addresses `own`.
    ///
    /// # Errors
    /// What kind of address it is.
    pub fn judge(&self, address: IpAddr, own: &[IpAddr]) -> Result<(), Refused> {
        // `::ffff:10.0.0.1` reaches 10.0.0.1.
        let address = address.to_canonical();
        if self.allowed.iter().any(|range| range.contains(&address)) {
            return Ok(());
        }
        let kind = match address {
            IpAddr::V4(address) => V4.iter().find(|(range, _)| range.contains(&address)).map(|(_, kind)| *kind),
            IpAddr::V6(address) => {
                let named = V6.iter().find(|(range, _)| range.contains(&address)).map(|(_, kind)| *kind);
                named.or_else(|| (!UNICAST.contains(&address)).then_some("a reserved address"))
            }
        };
        let own = || own.iter().any(|own| own.to_canonical() == address).then_some("an address of this machine");
        kind.or_else(own).map_or(Ok(()), |kind| Err(Refused(kind)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn judge(address: &str) -> Result<(), Refused> {
        Guard::default().judge(address.parse().unwrap(), &[])
    }

    /// What the RunPod SDK 1.12.0 says of these; the one difference is 6to4, which it lets pass.
    #[test]
    fn agrees_with_the_sdk() {
        for (address, safe) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("192.0.2.1", false),
            ("198.18.0.1", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("2606:4700::1111", true),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("2001:db8::1", false),
            ("64:ff9b::a00:1", false),
            ("2002:a00:1::", false),
        ] {
            assert_eq!(judge(address).is_ok(), safe, "{address}");
        }
    }

    /// First and last address of each range, and its public neighbours.
    #[test]
    fn ranges_begin_and_end_where_they_should() {
        for (first, last, kind) in [
            ("0.0.0.0", "0.255.255.255", "an unspecified address"),
            ("10.0.0.0", "10.255.255.255", "a private address"),
            ("100.64.0.0", "100.127.255.255", "a carrier's shared address"),
            ("127.0.0.0", "127.255.255.255", "a loopback address"),
            ("168.63.129.16", "168.63.129.16", "an address of the cloud's host"),
            ("169.254.0.0", "169.254.255.255", "a link-local address"),
            ("172.16.0.0", "172.31.255.255", "a private address"),
            ("192.0.0.0", "192.0.0.255", "a reserved address"),
            ("192.0.2.0", "192.0.2.255", "a documentation address"),
            ("192.88.99.0", "192.88.99.255", "a 6to4 relay"),
            ("192.168.0.0", "192.168.255.255", "a private address"),
            ("198.18.0.0", "198.19.255.255", "a benchmarking address"),
            ("198.51.100.0", "198.51.100.255", "a documentation address"),
            ("203.0.113.0", "203.0.113.255", "a documentation address"),
            ("224.0.0.0", "239.255.255.255", "a multicast address"),
            ("240.0.0.0", "255.255.255.254", "a reserved address"),
            ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "a Teredo address"),
            ("2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "a reserved address"),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "a documentation address"),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "a 6to4 address"),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "a documentation address"),
            ("64:ff9b::", "64:ff9b::ffff:ffff", "a NAT64 address"),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "a NAT64 address"),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "a private address"),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "a link-local address"),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "a site-local address"),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "a multicast address"),
        ] {
            assert_eq!([judge(first), judge(last)], [Err(Refused(kind)); 2], "{first} to {last}");
        }
        for public in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::",
            "2001:200::",
            "2003::",
            "3ffe::",
            "2a00:1450:4001::200e",
        ] {
            assert_eq!(judge(public), Ok(()), "{public}");
        }
        assert_eq!(judge("255.255.255.255"), Err(Refused("the broadcast address")));
        for elsewhere in ["1::", "::2", "::127.0.0.1", "4000::", "5f00::1", "1fff::"] {
            assert_eq!(judge(elsewhere), Err(Refused("a reserved address")), "{elsewhere}");
        }
    }

    #[test]
    fn this_machine_is_not_called_by_any_of_its_names() {
        let own: [IpAddr; 2] = ["203.1.2.3".parse().unwrap(), "2a00::7".parse().unwrap()];
        let guard = Guard::default();
        for address in ["203.1.2.3", "::ffff:203.1.2.3", "2a00::7"] {
            let refused = Err(Refused("an address of this machine"));
            assert_eq!(guard.judge(address.parse().unwrap(), &own), refused, "{address}");
        }
        assert_eq!(guard.judge("203.1.2.4".parse().unwrap(), &own), Ok(()));
    }

    #[test]
    fn what_is_allowed_passes_and_nothing_beside_it() {
        let guard = Guard::new(vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()]);
        let own: [IpAddr; 1] = ["10.1.2.3".parse().unwrap()];
        for (address, passes) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("::1", true),
            ("10.2.0.0", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
        ] {
            assert_eq!(guard.judge(address.parse().unwrap(), &own).is_ok(), passes, "{address}");
        }
    }

    #[test]
    fn an_open_guard_lets_everything_pass() {
        for address in ["127.0.0.1", "8.8.8.8", "::1", "::ffff:10.0.0.1", "fe80::1"] {
            assert_eq!(Guard::open().judge(address.parse().unwrap(), &[]), Ok(()), "{address}");
        }
    }

    proptest! {
        /// An IPv4 address is judged the same however it is written.
        #[test]
        fn a_mapped_address_is_what_it_maps(bits in any::<u32>()) {
            let plain = Ipv4Addr::from(bits);
            let guard = Guard::default();
            prop_assert_eq!(guard.judge(plain.into(), &[]), guard.judge(plain.to_ipv6_mapped().into(), &[]));
        }

        /// Python's `ipaddress` calls no address outside of 2000::/3 global, but for mapped ones and multicast.
        #[test]
        fn nothing_outside_of_unicast_passes(bits in any::<u128>()) {
            let address = Ipv6Addr::from(bits);
            if !UNICAST.contains(&address) && address.to_ipv4_mapped().is_none() {
                prop_assert!(Guard::default().judge(address.into(), &[]).is_err());
            }
        }
    }
}
