//! Runs operations: in time, at the right server, and again if that cannot do harm.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use redis::Value;
use tokio::time::{Instant, timeout};

use super::address::NodeAddress;
use super::breaker::{BreakerAdmission, Change};
use super::call::Call;
use super::connection::ConnectionManager;
use super::error::DOCUMENT;
use super::error_reply::{breaks_connection, is_dropped, is_replica, is_unfit};
use super::operations::{ClientInner, RedisClient};
use super::permissions::acl_rule;
use super::refusals::Operation;
use super::slots::{Node, Redirect};
use super::{ErrorReply, RedisClientError};

/// How often an operation goes to another server: redirected, or because one is lost.
const MAX_DETOURS: u32 = 5;

/// The connection that an operation used last, and its number.
type Used = Mutex<Option<(Arc<ConnectionManager>, u64)>>;

impl RedisClient {
    /// Runs an operation within the timeout, if the breaker admits it. `commands` are those it may run.
    pub(super) async fn operate(
        &self,
        operation: &Operation,
        commands: impl FnOnce(Option<usize>) -> Vec<Box<str>>,
        call: &Call<'_>,
    ) -> Result<Value, RedisClientError> {
        let shared = &*self.0;
        shared.counters.operations.fetch_add(1, Ordering::Relaxed);
        let permit = BreakerPermit::take(shared)?;
        let used = Used::default();
        let result = timeout(shared.timeout, shared.attempt(call, &used)).await;
        let result = result.unwrap_or_else(|_| {
            if let Some((manager, number)) = used.into_inner()
                && manager.timed_out(number)
            {
                shared.nodes.lost(manager.node());
            }
            Err(RedisClientError::Timeout { after: shared.timeout })
        });
        let result = result.map_err(|error| error.named(commands));
        permit.settle(result.as_ref().err());
        shared.note(operation, result.as_ref().map(|_| ()));
        result
    }
}

impl ClientInner {
    async fn attempt(&self, call: &Call<'_>, used: &Used) -> Result<Value, RedisClientError> {
        let slot = call.slot();
        let mut node = self.nodes.node(slot);
        let mut is_asking = false;
        let mut is_second = false;
        let mut detours = 0;
        loop {
            let manager = self.nodes.manager(&node);
            let (number, connection) = manager.connection();
            let open = match connection.await {
                Ok(open) => open,
                Err(error) => {
                    manager.discard(number);
                    detours += 1;
                    let other = self.nodes.lost(&node).filter(|_| detours <= MAX_DETOURS);
                    (node, is_asking) = (other.ok_or(error)?, false);
                    continue;
                }
            };
            *used.lock() = Some((Arc::clone(&manager), number));
            let refuses_time = manager.refuses_time(number);
            let error = match call.send(open.connection, is_asking, refuses_time).await {
                Ok(done) => {
                    manager.answered(number);
                    if !is_asking {
                        self.nodes.confirmed(slot, &open.address);
                    }
                    if call.needs_time() {
                        self.note_time(&open.address, refuses_time);
                    }
                    return Ok(done);
                }
                Err(error) => error,
            };
            if call.is_refused_time(&error) {
                manager.set_refuses_time(number);
                if !refuses_time {
                    continue;
                }
            }
            if let Some(redirect) = Redirect::read(&error, &open.address) {
                manager.answered(number);
                self.nodes.redirected(&redirect);
                detours += 1;
                if detours > MAX_DETOURS {
                    return Err(error.into());
                }
                (node, is_asking) = (redirect.node(), matches!(redirect, Redirect::Ask { .. }));
                continue;
            }
            if self.nodes.is_cluster() && is_unfit(&error) && detours < MAX_DETOURS {
                // It is not part of the cluster any more, or not yet: another node may be.
                detours += 1;
                manager.discard(number);
                let has_others = self.target.skip(&open.address);
                let other = self.nodes.lost(&node).or(has_others.then_some(Node::Entry));
                (node, is_asking) = (other.ok_or(error)?, false);
                continue;
            }
            let mut next = None;
            if breaks_connection(&error) {
                manager.discard(number);
                next = self.nodes.lost(&node);
            }
            if is_replica(&error) {
                manager.renew(number);
            }
            // A server closes idle connections, which is noticed only now.
            if is_second || !is_dropped(&error) {
                return Err(error.into());
            }
            is_second = true;
            if let Some(next) = next {
                (node, is_asking) = (next, false);
            }
        }
    }

    /// Logs when the first server begins to refuse `TIME` in scripts, and when the last one ceases to.
    fn note_time(&self, server: &NodeAddress, is_refused: bool) {
        let mut refusing = self.refusing_time.lock();
        let was_refused = !refusing.is_empty();
        if is_refused {
            refusing.insert(server.clone());
        } else if was_refused {
            refusing.remove(server);
        }
        if refusing.is_empty() != was_refused {
            return;
        }
        drop(refusing);
        if is_refused {
            tracing::warn!(
                "Redis refuses TIME in scripts; using the clock of this process instead: grant +time, or keep the clocks of \
                all processes synchronized; see {DOCUMENT}#time-in-scripts"
            );
        } else {
            tracing::info!("Redis runs TIME in scripts again");
        }
    }
}

/// Admission by the breaker. Reports to it if the caller is dropped.
struct BreakerPermit<'a> {
    shared: &'a ClientInner,
    admission: Option<BreakerAdmission>,
}

impl<'a> BreakerPermit<'a> {
    fn take(shared: &'a ClientInner) -> Result<Self, RedisClientError> {
        let admission = shared.breaker.lock().admit(Instant::now());
        if let BreakerAdmission::Denied { left } = admission {
            let error = RedisClientError::Resting { left };
            shared.counters.failed(&error);
            return Err(error);
        }
        Ok(Self { shared, admission: Some(admission) })
    }

    fn settle(mut self, error: Option<&RedisClientError>) {
        let Some(admission) = self.admission.take() else { return };
        let change = match error {
            Some(error) if error.is_outage() => self.shared.breaker.lock().failed(admission, Instant::now()),
            // A refusal is a response too.
            _ => self.shared.breaker.lock().succeeded(),
        };
        match error {
            Some(error) => self.shared.counters.failed(error),
            None => drop(self.shared.counters.succeeded.fetch_add(1, Ordering::Relaxed)),
        }
        match (change, error) {
            (Change::WentDown, Some(error)) => {
                // A server that vanished never closes the connection.
                self.shared.nodes.discard_open();
                tracing::warn!(%error, "Redis is down; continuing without it");
            }
            (Change::CameBack, _) => tracing::info!("Redis is back"),
            _ => {}
        }
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        if let Some(admission) = self.admission {
            self.shared.breaker.lock().abandoned(admission, Instant::now());
        }
    }
}

impl ClientInner {
    pub(super) fn note(&self, operation: &Operation, result: Result<(), &RedisClientError>) {
        let now = Instant::now();
        match result {
            Ok(()) => {
                let ended = self.refusals.lock().succeeded(operation, now);
                for refusal in ended {
                    tracing::info!(class = refusal.class().as_str(), "Redis accepts operations again");
                }
            }
            Err(RedisClientError::Refused(_)) if operation.is_optional() => {}
            Err(RedisClientError::Refused(refusal)) => {
                if self.refusals.lock().refused(operation, refusal, now) {
                    self.warn(refusal);
                }
            }
            // It is unknown whether it would have been refused.
            Err(_) => {}
        }
    }

    fn warn(&self, refusal: &ErrorReply) {
        let class = refusal.class().as_str();
        match refusal {
            ErrorReply::Permission(_) | ErrorReply::UnknownCommand(_) => {
                let needed = acl_rule(&self.prefix);
                tracing::warn!(class, %refusal, needed, "Redis refuses operations; continuing without them");
            }
            _ => tracing::warn!(class, %refusal, "Redis refuses operations; continuing without them"),
        }
    }
}
