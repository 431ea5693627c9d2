//! The parts of the program that see the applications' requests, and who sent these.

use std::sync::Arc;

use crate::gateway::{Gateway, UNKNOWN_KEYS};
use crate::telemetry::Telemetry;
use clerk_quota::ledger::{Handle, Ledger};
use clerk_quota::spending::Spender;
use clerk_quota::{CallerId, MethodLabel, Moment, Source, Span};

/// Maximum number of shares listed.
const MAX_SHARES: usize = 20;

/// The parts that are configured.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The gateway.
    pub gateway: Option<Arc<Gateway>>,
    /// The receiver of traces.
    pub telemetry: Option<Arc<Telemetry>>,
}

/// One part of the requests of a time span that Clerk may have counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The method.
    pub method: MethodLabel,
    /// The route template that was requested.
    pub route: &'static str,
    /// The caller.
    pub caller: Arc<str>,
    /// The part of the program that sent the requests, or telemetry.
    pub source: Source,
    /// Number of requests.
    pub requests: u64,
    /// Share of all requests in the time span, from 0 to 1.
    pub ratio: f64,
}

/// The largest consumers of an instance's quota, in descending order, for each of [`Span::ALL`].
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceShares {
    /// The alias; `other` for requests with unknown keys.
    pub instance: Arc<str>,
    /// The shares.
    pub shares: [Vec<Share>; Span::ALL.len()],
}

impl Sources {
    /// Returns whether callers are known, so that consumers can be listed.
    #[must_use]
    pub const fn know_callers(&self) -> bool {
        self.gateway.is_some() || self.telemetry.is_some()
    }

    /// Returns the name of the caller to which a request is attributed.
    #[must_use]
    pub fn caller_name(&self, caller: CallerId, source: Source) -> Arc<str> {
        let name = match source {
            Source::Gateway => self.gateway.as_ref().map(|gateway| gateway.caller_name(caller)),
            Source::Telemetry => self.telemetry.as_ref().map(|telemetry| telemetry.caller_name(caller)),
            Source::Probe | Source::Client => None,
        };
        name.unwrap_or_else(|| Arc::from(source.as_str()))
    }

    /// Returns the largest consumers of each instance at `now`, in the order of the configuration. Instances without
    /// requests in the last hour are omitted.
    #[must_use]
    pub fn top(&self, ledger: &Ledger, now: Moment) -> Vec<InstanceShares> {
        let unknown_keys = self.gateway.as_ref().and_then(|gateway| gateway.unknown_keys_ledger());
        let unknown_keys = unknown_keys.map(|handle| (Arc::from(UNKNOWN_KEYS), handle));
        let all = ledger.instances().into_iter().chain(unknown_keys);
        let named = all.map(|(instance, handle)| {
            let shares = Span::ALL.map(|span| self.shares(&handle, now, span));
            InstanceShares { instance, shares }
        });
        named.filter(|it| it.shares.iter().any(|shares| !shares.is_empty())).collect()
    }

    /// Returns the largest consumers of an instance's quota in this time span, in descending order.
    #[must_use]
    pub fn shares(&self, ledger: &Handle, now: Moment, span: Span) -> Vec<Share> {
        let shares = ledger.lock().top(now, span);
        let named = shares.into_iter().take(MAX_SHARES).map(|share| {
            let Spender { caller, source, route, method } = share.spender;
            let (route, caller) = (route.template(), self.caller_name(caller, source));
            Share { method, route, caller, source, requests: share.requests, ratio: share.ratio }
        });
        named.collect()
    }
}
