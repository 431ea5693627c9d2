//! The configured hosts of Clerk's API, compared with their ports.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::url::{Scheme, Url, split_port};
use clerk_client::secret::mask_secrets;

/// A configured host. The same host and port have the same id after a change of the configuration, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// Hosts to which calls count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    hosts: Vec<Host>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    /// In lower case.
    name: Box<str>,
    port: u16,
    id: HostId,
}

/// A text that is no host. What looks like a key in it is masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host; write a name or address, with a port if it is not the default one: api.clerk.com")]
pub struct InvalidHost(pub String);

impl Hosts {
    /// Creates the list of hosts, each `host`, `host:port` or a URL such as `https://api.clerk.com`.
    ///
    /// A host without a port stands for the default ports of http and https.
    ///
    /// # Errors
    ///
    /// [`InvalidHost`] for a text that is none of these.
    pub fn new<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidHost> {
        let mut list = Self::default();
        for text in hosts {
            let (name, port) = parse(text).ok_or_else(|| InvalidHost(mask_secrets(text)))?;
            let ports = port.as_ref().map_or(&[443, 80][..], std::slice::from_ref);
            for port in ports {
                list.add(Host::new(&name, *port));
            }
        }
        Ok(list)
    }

    /// Returns the ids of all hosts.
    pub fn ids(&self) -> impl Iterator<Item = HostId> + '_ {
        self.hosts.iter().map(|host| host.id)
    }

    /// Adds the hosts of another list.
    pub fn extend(&mut self, other: &Self) {
        for host in &other.hosts {
            self.add(host.clone());
        }
    }

    fn add(&mut self, host: Host) {
        if !self.hosts.contains(&host) {
            self.hosts.push(host);
        }
    }

    /// Finds the host of a request. Its name may end in a dot.
    pub(super) fn find(&self, name: &str, port: Option<u16>, scheme: Scheme) -> Option<HostId> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let port = port.unwrap_or(if scheme == Scheme::Http { 80 } else { 443 });
        let is_it = |host: &&Host| host.port == port && host.name.eq_ignore_ascii_case(name);
        self.hosts.iter().find(is_it).map(|host| host.id)
    }
}

impl Host {
    fn new(name: &str, port: u16) -> Self {
        let mut hasher = FxHasher::default();
        hasher.write(name.as_bytes());
        hasher.write_u16(port);
        Self { id: HostId(hasher.finish()), name: name.into(), port }
    }
}

/// Splits a configured text into a name in lower case and a port.
fn parse(text: &str) -> Option<(String, Option<u16>)> {
    let (name, port) = if text.contains("://") {
        let url = Url::parse(text)?;
        let default = match url.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Unknown => return None,
        };
        (url.host?, Some(url.port.unwrap_or(default)))
    } else {
        split_port(text)
    };
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let name = name.strip_suffix('.').unwrap_or(name);
    // A single colon is left over from a port that is none; IPv6 addresses have more.
    let is_name = !name.is_empty() && name.chars().all(is_fit) && name.matches(':').count() != 1;
    is_name.then(|| (name.to_ascii_lowercase(), port))
}
