//! Where the server is: what a URL says. Pure.

use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::RedisConfigError;
use crate::secret::{Secret, percent_decoded};

/// Default port of a sentinel.
const SENTINEL_PORT: u16 = 26379;

/// Most hosts in a URL.
const MAX_HOSTS: usize = 100;

/// The parts of a URL.
pub(super) struct RedisUrl {
    pub(super) deployment: Deployment,
    pub(super) is_tls: bool,
    /// For the servers with the data.
    pub(super) login: Login,
}

/// How the server is found.
pub(super) enum Deployment {
    /// A server, which may be a node of a cluster.
    Single(NodeAddress),
    /// Nodes of a cluster, of which any one suffices.
    Cluster(Vec<NodeAddress>),
    /// Sentinels, which name the primary of this service.
    Sentinels { sentinels: Vec<NodeAddress>, service: String, login: Login },
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum NodeAddress {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// User, password and database.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: i64,
}

impl RedisUrl {
    pub(super) fn parse(url: &str) -> Result<Self, RedisConfigError> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        match scheme {
            "redis+sentinel" | "valkey+sentinel" => Self::sentinels(rest, false),
            "rediss+sentinel" | "valkeys+sentinel" => Self::sentinels(rest, true),
            "redis+cluster" | "valkey+cluster" => Self::cluster(rest, false),
            "rediss+cluster" | "valkeys+cluster" => Self::cluster(rest, true),
            _ => Self::single(url),
        }
    }

    fn single(url: &str) -> Result<Self, RedisConfigError> {
        // The client library's error may contain the URL.
        let info = url.into_connection_info().map_err(|_| RedisConfigError::Url)?;
        let (address, is_tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (NodeAddress::Tcp { host: host.clone(), port: *port }, false),
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(RedisConfigError::Insecure),
            ConnectionAddr::TcpTls { host, port, .. } => (NodeAddress::Tcp { host: host.clone(), port: *port }, true),
            ConnectionAddr::Unix(path) => (NodeAddress::Unix(path.clone()), false),
            _ => return Err(RedisConfigError::Url),
        };
        let settings = info.redis_settings();
        let login = Login {
            user: settings.username().map(str::to_owned),
            password: settings.password().map(Secret::from),
            database: settings.db(),
        };
        Ok(Self { deployment: Deployment::Single(address), is_tls, login })
    }

    fn cluster(rest: &str, is_tls: bool) -> Result<Self, RedisConfigError> {
        let parts = Parts::split(rest)?;
        if !matches!(parts.path, "" | "0") || !parts.query.is_empty() {
            return Err(RedisConfigError::ClusterUrl);
        }
        let (nodes, login) = parts.hosts(None).map_err(|_| RedisConfigError::ClusterUrl)?;
        Ok(Self { deployment: Deployment::Cluster(nodes), is_tls, login })
    }

    fn sentinels(rest: &str, is_tls: bool) -> Result<Self, RedisConfigError> {
        let parts = Parts::split(rest)?;
        let (service, database) = parts.path.split_once('/').unwrap_or((parts.path, "0"));
        let is_name = !service.is_empty() && service.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
        let database = database.parse().ok().filter(|database| *database >= 0);
        let (Some(database), true) = (database, is_name) else { return Err(RedisConfigError::SentinelUrl) };
        let (sentinels, login) = parts.hosts(Some(SENTINEL_PORT)).map_err(|_| RedisConfigError::SentinelUrl)?;
        let login = Login { database, ..login };
        let service = service.to_owned();
        let deployment = Deployment::Sentinels { sentinels, service, login: sentinel_login(parts.query)? };
        Ok(Self { deployment, is_tls, login })
    }
}

fn sentinel_login(query: &str) -> Result<Login, RedisConfigError> {
    let mut login = Login::default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or(RedisConfigError::SentinelUrl)?;
        let value = String::from_utf8(percent_decoded(value.as_bytes())).map_err(|_| RedisConfigError::SentinelUrl)?;
        match name {
            "sentinel_username" => login.user = Some(value),
            "sentinel_password" => login.password = Some(value.into()),
            _ => return Err(RedisConfigError::SentinelUrl),
        }
    }
    if login.user.is_some() && login.password.is_none() {
        return Err(RedisConfigError::SentinelUrl);
    }
    Ok(login)
}

/// A URL with several hosts.
struct Parts<'a> {
    user: Option<&'a str>,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str) -> Result<Self, RedisConfigError> {
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        if fragment == "insecure" {
            return Err(RedisConfigError::Insecure);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        Ok(Self { user, hosts, path, query })
    }

    /// The addresses and the login. Each is read as a URL of its own, so that all kinds of URLs follow the same rules.
    fn hosts(&self, default_port: Option<u16>) -> Result<(Vec<NodeAddress>, Login), RedisConfigError> {
        // Or else a user of the second host would be taken for a part of the password.
        if self.user.is_some_and(|user| user.contains(['@', ','])) {
            return Err(RedisConfigError::Url);
        }
        let user = self.user.map_or_else(String::new, |user| [user, "@"].concat());
        let mut nodes = Vec::new();
        let mut login = Login::default();
        for host in self.hosts.split(',') {
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = default_port.filter(|_| !has_port).map_or_else(String::new, |port| format!(":{port}"));
            if host.is_empty() || nodes.len() == MAX_HOSTS {
                return Err(RedisConfigError::Url);
            }
            let url = Secret::new(format!("redis://{user}{host}{port}"));
            let one = RedisUrl::single(url.expose())?;
            if let Deployment::Single(address) = one.deployment {
                nodes.push(address);
            }
            login = one.login;
        }
        Ok((nodes, login))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> NodeAddress {
        NodeAddress::Tcp { host: host.to_owned(), port }
    }

    fn shown(login: &Login) -> (Option<&str>, Option<&str>, i64) {
        (login.user.as_deref(), login.password.as_ref().map(Secret::expose), login.database)
    }

    #[test]
    fn urls_of_a_single_server_are_read() {
        let single = |url: &str| {
            let read = RedisUrl::parse(url).unwrap();
            let Deployment::Single(address) = read.deployment else { panic!("{url}") };
            (address, read.is_tls, read.login)
        };
        let (address, is_tls, login) = single("redis://user:p%40ss@[::1]:7000/3");
        assert_eq!((address, is_tls), (tcp("::1", 7000), false));
        assert_eq!(shown(&login), (Some("user"), Some("p@ss"), 3));
        assert_eq!(single("valkey://cache").0, tcp("cache", 6379));
        let (address, is_tls, _) = single("rediss://cache.example");
        assert_eq!((address, is_tls), (tcp("cache.example", 6379), true));
        let (address, _, login) = single("unix:///run/redis.sock?db=2");
        assert_eq!((address, login.database), (NodeAddress::Unix("/run/redis.sock".into()), 2));
    }

    #[test]
    fn urls_of_sentinels_are_read() {
        let url = "redis+sentinel://app:p%2Cs%40s@one,two:7000,[::1],[::2]:7001/prod/3\
            ?sentinel_username=watch&sentinel_password=a%26b";
        let read = RedisUrl::parse(url).unwrap();
        let Deployment::Sentinels { sentinels, service, login } = read.deployment else { panic!() };
        let expected = [("one", 26379), ("two", 7000), ("::1", 26379), ("::2", 7001)];
        assert_eq!(sentinels, expected.map(|(host, port)| tcp(host, port)));
        assert_eq!((service.as_str(), read.is_tls), ("prod", false));
        assert_eq!(shown(&login), (Some("watch"), Some("a&b"), 0));
        assert_eq!(shown(&read.login), (Some("app"), Some("p,s@s"), 3));
        let read = RedisUrl::parse("rediss+sentinel://one/mymaster").unwrap();
        assert!(read.is_tls && shown(&read.login) == (None, None, 0));
    }

    #[test]
    fn urls_of_clusters_are_read() {
        let read = RedisUrl::parse("rediss+cluster://:secret@one:7000,two,three:7002/0").unwrap();
        let Deployment::Cluster(nodes) = read.deployment else { panic!() };
        assert_eq!(nodes, [("one", 7000), ("two", 6379), ("three", 7002)].map(|(host, port)| tcp(host, port)));
        assert!(read.is_tls);
        assert_eq!(shown(&read.login), (None, Some("secret"), 0));
    }

    #[test]
    fn invalid_urls_are_rejected_without_being_shown() {
        use RedisConfigError::{ClusterUrl, Insecure, SentinelUrl, Url};
        for (url, expected) in [
            ("", Url),
            ("CANARY", Url),
            ("http://CANARY@host", Url),
            ("redis://:CANARY@host/x", Url),
            ("redis://CANARY:pass word@host:x", Url),
            ("redis://:CANARY@one:6379,two:6379", Url),
            ("redis+sentinel://:CANARY@host", SentinelUrl),
            ("redis+sentinel://:CANARY@host/", SentinelUrl),
            ("redis+sentinel://:CANARY@/prod", SentinelUrl),
            ("redis+sentinel://:CANARY@one,,two/prod", SentinelUrl),
            ("redis+sentinel://:CANARY@one,x@two/prod", SentinelUrl),
            ("redis+sentinel://:CANARY@one:x/prod", SentinelUrl),
            ("redis+sentinel://one/prod/CANARY", SentinelUrl),
            ("redis+sentinel://one/prod/-1", SentinelUrl),
            ("redis+sentinel://one/prod?CANARY", SentinelUrl),
            ("redis+sentinel://one/prod?password=CANARY", SentinelUrl),
            ("redis+sentinel://one/prod?sentinel_username=CANARY", SentinelUrl),
            ("redis+cluster://:CANARY@", ClusterUrl),
            ("redis+cluster://:CANARY@one/1", ClusterUrl),
            ("redis+cluster://one?password=CANARY", ClusterUrl),
            ("rediss://:CANARY@host/#insecure", Insecure),
            ("rediss+sentinel://:CANARY@host/prod#insecure", Insecure),
            ("rediss+cluster://:CANARY@host#insecure", Insecure),
        ] {
            let error = RedisUrl::parse(url).err().unwrap_or_else(|| panic!("{url}"));
            assert_eq!(error, expected, "{url}");
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
    }
}
