//! Which node of a cluster has a key: the nodes say so themselves, in redirections. Pure.
//!
//! A key is sent to the node that had its slot last, or to any node, which redirects it. So there is no map to fetch or to
//! keep up to date, and no right to one is needed.

use std::collections::HashMap;

use redis::{RedisError, RetryMethod};

use super::address::NodeAddress;

/// Number of slots of a cluster (cluster specification, "Key distribution model").
const SLOTS: u16 = 16384;

/// A server to send an operation to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// The one of the URL, or any of them.
    Entry,
    /// One that another node named.
    Named(NodeAddress),
}

/// Where to send an operation instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// This operation and all others with the slot.
    Moved { slot: u16, to: NodeAddress },
    /// Only this operation, after `ASKING`: the slot is being moved.
    Ask { to: NodeAddress },
}

/// The slots whose node is known.
#[derive(Debug, Default)]
pub(super) struct Routes {
    nodes: HashMap<u16, NodeAddress>,
    is_cluster: bool,
}

impl Routes {
    pub(super) fn new(is_cluster: bool) -> Self {
        Self { nodes: HashMap::new(), is_cluster }
    }

    /// Whether the server is known to be a cluster.
    pub(super) const fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    pub(super) fn node(&self, slot: u16) -> Node {
        self.nodes.get(&slot).map_or(Node::Entry, |address| Node::Named(address.clone()))
    }

    pub(super) fn redirected(&mut self, redirect: &Redirect) {
        self.is_cluster = true;
        if let Redirect::Moved { slot, to } = redirect {
            self.nodes.insert(*slot, to.clone());
        }
    }

    /// A node executed an operation with this slot.
    pub(super) fn confirmed(&mut self, slot: u16, address: &NodeAddress) {
        if self.is_cluster && !self.nodes.contains_key(&slot) {
            self.nodes.insert(slot, address.clone());
        }
    }

    /// The node is lost: another one has its slots, or will have them.
    pub(super) fn forget(&mut self, node: &Node) {
        if let Node::Named(lost) = node {
            self.nodes.retain(|_, address| address != lost);
        }
    }

    pub(super) fn clear(&mut self) {
        self.nodes.clear();
    }
}

impl Redirect {
    /// Reads an error of the server at `from`. `None` if it redirects nowhere.
    pub(super) fn read(error: &RedisError, from: &NodeAddress) -> Option<Self> {
        let (address, slot) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let host = match (host, from) {
            // The server does not know the name by which clients reach it: the one that this client used.
            ("", NodeAddress::Tcp { host, .. }) => host.clone(),
            ("" | "?", _) => return None,
            (host, _) => host.trim_matches(['[', ']']).to_owned(),
        };
        let to = NodeAddress::Tcp { host, port };
        match error.retry_method() {
            RetryMethod::MovedRedirect if slot < SLOTS => Some(Self::Moved { slot, to }),
            RetryMethod::AskRedirect => Some(Self::Ask { to }),
            _ => None,
        }
    }

    pub(super) fn node(&self) -> Node {
        let (Self::Moved { to, .. } | Self::Ask { to }) = self;
        Node::Named(to.clone())
    }
}

/// The slot of a key or channel: of its hash tag, if it has one.
pub(super) fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(name).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err()
    }

    fn tcp(host: &str, port: u16) -> NodeAddress {
        NodeAddress::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot("clerk-exporter:{prod}:v2:forget"), crc16(b"prod") % SLOTS);
    }

    #[test]
    fn redirections_name_a_node() {
        let from = tcp("cache.internal", 7000);
        let read = |line: &str| Redirect::read(&error(line), &from);
        let moved = |to| Some(Redirect::Moved { slot: 3999, to });
        assert_eq!(read("MOVED 3999 127.0.0.1:6381"), moved(tcp("127.0.0.1", 6381)));
        assert_eq!(read("MOVED 3999 ::1:6381"), moved(tcp("::1", 6381)));
        assert_eq!(read("MOVED 3999 :6381"), moved(tcp("cache.internal", 6381)));
        assert_eq!(read("ASK 3999 other.internal:6381"), Some(Redirect::Ask { to: tcp("other.internal", 6381) }));
        for line in [
            "MOVED 3999 ?:6381",
            "MOVED 3999",
            "MOVED x 127.0.0.1:1",
            "MOVED 16384 127.0.0.1:1",
            "MOVED 1 127.0.0.1",
            "MOVED 1 127.0.0.1:65536",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "ERR MOVED",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
        let socket = NodeAddress::Unix("/run/redis.sock".into());
        assert_eq!(Redirect::read(&error("MOVED 3999 :6381"), &socket), None);
    }

    #[test]
    fn slots_follow_their_redirections() {
        let mut routes = Routes::default();
        routes.confirmed(1, &tcp("a", 1));
        assert_eq!((routes.node(1), routes.is_cluster()), (Node::Entry, false), "a single server");
        routes.redirected(&Redirect::Ask { to: tcp("b", 1) });
        assert_eq!((routes.node(1), routes.is_cluster()), (Node::Entry, true), "only the one operation");
        routes.confirmed(1, &tcp("a", 1));
        routes.redirected(&Redirect::Moved { slot: 2, to: tcp("b", 1) });
        assert_eq!([1, 2].map(|slot| routes.node(slot)), [tcp("a", 1), tcp("b", 1)].map(Node::Named));
        routes.confirmed(2, &tcp("a", 1));
        assert_eq!(routes.node(2), Node::Named(tcp("b", 1)), "a redirection is newer");
        routes.forget(&Node::Named(tcp("b", 1)));
        assert_eq!([1, 2].map(|slot| routes.node(slot)), [Node::Named(tcp("a", 1)), Node::Entry]);
        routes.clear();
        assert_eq!((routes.node(1), routes.is_cluster()), (Node::Entry, true));
    }
}
