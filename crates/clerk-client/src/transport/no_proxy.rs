//! `NO_PROXY`: hosts to reach directly.

use std::ffi::OsStr;
use std::net::IpAddr;

/// The entries of `NO_PROXY`, separated by commas or white space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NoProxy(Vec<Exception>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    /// `*`
    All,
    /// `clerk.test`, `.clerk.test` or `*.clerk.test`: the name and all subdomains.
    Domain { name: String, port: Option<u16> },
    /// `10.1.2.3`, `fd00::1`, `[fd00::1]` or `[fd00::1]:443`
    Address { address: IpAddr, port: Option<u16> },
    /// `10.0.0.0/8` or `fd00::/8`
    Network { address: IpAddr, bits: u8 },
}

impl NoProxy {
    /// Parses a variable's value. Invalid entries are ignored and become warnings.
    pub(super) fn parse(variable: &str, value: &OsStr, warnings: &mut Vec<String>) -> Self {
        let Some(text) = value.to_str() else {
            warnings.push(format!("{variable} is not UTF-8 and is ignored; {REMEDY}"));
            return Self::default();
        };
        let entries = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
        let mut exceptions = Vec::new();
        for (index, entry) in entries.enumerate() {
            match Exception::parse(entry) {
                Some(exception) => exceptions.push(exception),
                None => warnings.push(format!("{variable}: entry {} is invalid and ignored; {REMEDY}", index + 1)),
            }
        }
        Self(exceptions)
    }

    /// Whether to reach a host directly at this port. The host is in lower case, without a trailing dot.
    pub(super) fn contains(&self, host: &str, port: u16) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let address = bare.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        self.0.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Domain { name, port: only } => {
                let is_below = || host.strip_suffix(name.as_str()).is_some_and(|front| front.ends_with('.'));
                address.is_none() && only.is_none_or(|only| only == port) && (host == name || is_below())
            }
            Exception::Address { address: known, port: only } => {
                address == Some(*known) && only.is_none_or(|only| only == port)
            }
            Exception::Network { address: network, bits } => {
                address.is_some_and(|address| is_within(address, *network, *bits))
            }
        })
    }
}

const REMEDY: &str = "write names, .domains, addresses, [IPv6]:PORT, networks such as 10.0.0.0/8, or *";

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            return (bits <= width(address)).then_some(Self::Network { address, bits });
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            return Some(Self::Address { address: address.to_canonical(), port: None });
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !entry.ends_with(']') => {
                (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0)?))
            }
            _ => (entry, None),
        };
        if let Some(address) = host.strip_prefix('[') {
            let address: IpAddr = address.strip_suffix(']')?.parse().ok()?;
            return address.is_ipv6().then_some(Self::Address { address: address.to_canonical(), port });
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return address.is_ipv4().then_some(Self::Address { address, port });
        }
        let name = host.strip_prefix("*.").or_else(|| host.strip_prefix('.')).unwrap_or(host);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        name.split('.').all(is_name).then_some(Self::Domain { name, port })
    }
}

const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let shift = u32::from(width(network) - bits);
    let front = |address| number(address).checked_shr(shift).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && front(address) == front(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(value: &str, host: &str, port: u16) -> bool {
        let mut warnings = Vec::new();
        let exceptions = NoProxy::parse("NO_PROXY", value.as_ref(), &mut warnings);
        assert!(warnings.is_empty(), "{value}: {warnings:?}");
        exceptions.contains(host, port)
    }

    #[test]
    fn every_common_form_is_supported() {
        let host = "api.clerk.test";
        for value in [
            "*",
            "api.clerk.test",
            "API.Clerk.Test",
            "clerk.test",
            ".clerk.test",
            "*.clerk.test",
            "test",
            "api.clerk.test.",
            "api.clerk.test:443",
            "*.clerk.test:443",
            "other.test, clerk.test",
            "other.test clerk.test",
            " ,, clerk.test ,\n",
            "10.0.0.0/8,[fd00::1],*",
        ] {
            assert!(contains(value, host, 443), "{value}");
        }
        for value in
            ["", " ", "other.test", "lerk.test", "clerk", "i.clerk.test", "api.clerk.test:80", "x.api.clerk.test"]
        {
            assert!(!contains(value, host, 443), "{value}");
        }
    }

    #[test]
    fn addresses_and_networks_match_only_addresses() {
        let cases = [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3:443", "10.1.2.3", true),
            ("10.1.2.3:80", "10.1.2.3", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("11.0.0.0/8", "10.1.2.3", false),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("0.0.0.0/0", "[fd00::1]", false),
            ("fd00::1", "[fd00::1]", true),
            ("[fd00::1]", "[fd00::1]", true),
            ("[FD00:0::1]:443", "[fd00::1]", true),
            ("[fd00::1]:80", "[fd00::1]", false),
            ("fd00::/8", "[fd12::3]", true),
            ("::/0", "[fd12::3]", true),
            ("fe80::/10", "[fd12::3]", false),
            ("::ffff:10.1.2.3", "10.1.2.3", true),
            ("2.3", "10.1.2.3", false),
            ("10.0.0.0/8", "10.example.test", false),
        ];
        for (value, host, expected) in cases {
            assert_eq!(contains(value, host, 443), expected, "{value} {host}");
        }
    }

    #[test]
    fn invalid_entry_is_reported_by_position_and_ignored() {
        let entries = [
            "https://api.clerk.test",
            "*clerk.test",
            "api.*.test",
            "10.0.0.0/33",
            "10.0.0/8",
            "fd00::/129",
            "api.clerk.test:0",
            "api.clerk.test:x",
            "[fd00::1",
            "clerk..test",
            "user:CANARY@clerk.test",
            "äpi.clerk.test",
        ];
        for entry in entries {
            let mut warnings = Vec::new();
            let exceptions = NoProxy::parse("no_proxy", format!("other.test,{entry}").as_ref(), &mut warnings);
            assert!(!exceptions.contains("api.clerk.test", 443), "{entry}");
            assert_eq!(warnings.len(), 1, "{entry}");
            assert!(warnings[0].starts_with("no_proxy: entry 2") && !warnings[0].contains("CANARY"), "{}", warnings[0]);
        }
    }
}
