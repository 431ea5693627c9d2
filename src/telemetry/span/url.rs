//! The parts of a URL that a span names, without copies and without a check of the rest.

/// The scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Scheme {
    Http,
    Https,
    #[default]
    Unknown,
}

impl Scheme {
    pub(super) fn of(name: &str) -> Self {
        if name.eq_ignore_ascii_case("https") {
            Self::Https
        } else if name.eq_ignore_ascii_case("http") {
            Self::Http
        } else {
            Self::Unknown
        }
    }

    pub(super) const fn or(self, other: Self) -> Self {
        match self {
            Self::Unknown => other,
            known => known,
        }
    }
}

/// The parts of an absolute URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Url<'a> {
    pub scheme: Scheme,
    pub host: Option<&'a str>,
    pub port: Option<u16>,
    /// With the query.
    pub path: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// Splits an absolute URL, or a path.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Self { path: Some(text), ..Self::default() });
        }
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
        let (host, port) = split_port(address);
        Some(Self { scheme: Scheme::of(scheme), host: Some(host), port, path: Some(path) })
    }
}

/// Splits `host:port`. A host without a valid port is returned whole. Brackets around an IPv6 address are dropped.
pub(super) fn split_port(text: &str) -> (&str, Option<u16>) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((host, rest)) = rest.split_once(']')
    {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) if port.is_empty() => (host, None),
            Err(_) => (text, None),
        },
        // Without a port, or an IPv6 address without brackets.
        _ => (text, None),
    }
}
