//! The connections to all servers, and which of them has a slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::address::NodeAddress;
use super::connect::Connector;
use super::connection::ConnectionManager;
use super::slots::{Node, Redirect, Routes};

/// Most servers with a connection of their own: far above the size of any cluster.
const MAX_NODES: usize = 256;

/// The connections for operations. There is one server, unless it redirects to others.
pub(super) struct Nodes {
    target: Arc<Connector>,
    max_age: Duration,
    state: Mutex<State>,
}

struct State {
    routes: Routes,
    managers: HashMap<Node, Arc<ConnectionManager>>,
    /// Connections started by managers that are gone.
    begun_before: u64,
}

impl Nodes {
    pub(super) fn new(target: Arc<Connector>, max_age: Duration) -> Self {
        let routes = Routes::new(target.is_cluster());
        let state = Mutex::new(State { routes, managers: HashMap::new(), begun_before: 0 });
        Self { target, max_age, state }
    }

    /// Whether the server is known to be a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        self.state.lock().routes.is_cluster()
    }

    /// Returns the server that has a slot, as far as known.
    pub(super) fn node(&self, slot: u16) -> Node {
        self.state.lock().routes.node(slot)
    }

    /// Returns the connection to a server.
    pub(super) fn manager(&self, node: &Node) -> Arc<ConnectionManager> {
        let mut state = self.state.lock();
        if let Some(manager) = state.managers.get(node) {
            return Arc::clone(manager);
        }
        if state.managers.len() >= MAX_NODES {
            state.begun_before += state.managers.drain().map(|(_, manager)| manager.begun()).sum::<u64>();
        }
        let manager = Arc::new(ConnectionManager::new(Arc::clone(&self.target), node.clone(), self.max_age));
        state.managers.insert(node.clone(), Arc::clone(&manager));
        manager
    }

    pub(super) fn redirected(&self, redirect: &Redirect) {
        self.state.lock().routes.redirected(redirect);
    }

    /// A server executed an operation with this slot.
    pub(super) fn confirmed(&self, slot: u16, address: &NodeAddress) {
        self.state.lock().routes.confirmed(slot, address);
    }

    /// A server is lost. Returns another one that may know which has its slots now.
    pub(super) fn lost(&self, node: &Node) -> Option<Node> {
        let mut state = self.state.lock();
        state.routes.forget(node);
        if !state.routes.is_cluster() {
            return None;
        }
        if *node != Node::Entry {
            return Some(Node::Entry);
        }
        let others = state.managers.values().filter(|manager| manager.node() != node && manager.is_open());
        let others: Vec<_> = others.map(|manager| manager.node().clone()).collect();
        fastrand::choice(others)
    }

    /// Discards all open connections, and what is known about slots.
    pub(super) fn discard_open(&self) {
        let mut state = self.state.lock();
        state.routes.clear();
        state.managers.values().for_each(|manager| manager.discard_open());
    }

    /// Number of connections started.
    pub(super) fn begun(&self) -> u64 {
        let state = self.state.lock();
        state.begun_before + state.managers.values().map(|manager| manager.begun()).sum::<u64>()
    }
}
