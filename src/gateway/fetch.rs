//! Asking Clerk for all who want the same: a request for the resource, or a look-up in a list with others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, RETRY_AFTER, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, request};
use parking_lot::Mutex;

use super::answer::{error_body, own_trace_id, whole_seconds};
use super::forward;
use super::options::Instance;
use super::policy::Policies;
use super::reads::API_VERSION;
use clerk_client::cache::Stored;
use clerk_client::clerk::{ApiError, Error};
use clerk_client::outbound::limiter::Priority;
use clerk_client::outbound::retry::Repeat;
use clerk_client::outbound::{Authorization, CallError, Opened, Relay, Relayed, SendError};
use clerk_client::transport::{ErrorKind, RequestBody, TransportError};
use clerk_quota::Route;

/// Larger answers are handed on as they come and shared with nobody.
const MAX_SHARED_BYTES: usize = 4 * 1024 * 1024;

/// What a fetch cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Whether there was one, and not just another's answer.
    pub(super) is_ours: bool,
    pub(super) attempts: u32,
    /// Lists that were asked for in vain before.
    pub(super) lists: u32,
    pub(super) waited: Duration,
    pub(super) took: Option<Duration>,
    pub(super) is_batched: bool,
    /// Whether it was the first look-up of its list.
    pub(super) has_opened: bool,
    /// Whether pacing, which is in shadow, would have let it wait.
    pub(super) would_wait: bool,
}

/// Why there is no answer to be shared.
#[derive(Debug)]
pub(super) enum Why {
    Send(SendError),
    /// A list was not let go, or got no answer.
    List(Arc<Error>),
    /// The answer broke off.
    Broken(CallError),
    /// It is too large, or none that can be kept.
    Unshareable,
}

/// Asks Clerk for all who want the same.
pub(super) struct Fetcher {
    pub(super) instance: Arc<Instance>,
    pub(super) head: Arc<request::Parts>,
    pub(super) route: Route,
    pub(super) authorization: Authorization,
    pub(super) policies: Policies,
    pub(super) priority: Priority,
    /// The user to be looked up together with others.
    pub(super) user: Option<String>,
    pub(super) cost: Mutex<Cost>,
    /// An answer that is too large to be shared, for whoever asked.
    pub(super) large: Mutex<Option<Relayed>>,
}

impl Fetcher {
    pub(super) async fn fetch(&self) -> Result<Stored, Why> {
        let batched = match &self.user {
            Some(user) => self.fetch_with_others(user).await,
            None => None,
        };
        match batched {
            Some(answer) => answer,
            None => self.fetch_alone().await,
        }
    }

    async fn fetch_alone(&self) -> Result<Stored, Why> {
        let mut head = request::Parts::clone(&self.head);
        // Whoever gets the answer can read it, and nothing in it is for one client.
        for name in [ACCEPT_ENCODING, COOKIE] {
            head.headers.remove(name);
        }
        forward::request(&mut head, &self.instance.target, false).map_err(|_| Why::Unshareable)?;
        let repeat = Repeat::of(&head.method);
        let request = Request::from_parts(head, RequestBody::empty());
        let relay = Relay { request, route: self.route, repeat, authorization: self.authorization };
        let handling = self.instance.plan.handling(&self.policies, self.priority);
        let would_wait = self.would_wait();
        let begun = {
            let mut cost = self.cost.lock();
            *cost = Cost { is_ours: true, would_wait, lists: cost.lists, ..Cost::default() };
            *cost
        };
        let outbound = &self.instance.outbound;
        let mut relayed = outbound.relay(relay, &handling).await.map_err(Why::Send)?;
        let Relayed { attempts, waited, took, .. } = relayed;
        *self.cost.lock() = Cost { attempts, waited, took: Some(took), ..begun };
        self.instance.heed_refusal(self.authorization, relayed.answer.head.status);
        if !forward::is_final(&relayed.answer.head) {
            return Err(Why::Unshareable);
        }
        let patience = self.instance.plan.body_idle_timeout;
        let filled = relayed.answer.body.fill(MAX_SHARED_BYTES, patience).await;
        let is_whole = filled.map_err(|_| Why::Broken(CallError::Timeout(patience)))?;
        if relayed.answer.body.is_broken() {
            let why = "the body of an answer broke off".to_owned();
            return Err(Why::Broken(TransportError::new(ErrorKind::Broken, why).into()));
        }
        if !is_whole {
            *self.large.lock() = Some(relayed);
            return Err(Why::Unshareable);
        }
        let Opened { mut head, body, .. } = *relayed.answer;
        forward::response(&mut head);
        for name in [CONTENT_LENGTH, SET_COOKIE] {
            head.headers.remove(name);
        }
        let may_be_kept = may_be_kept(&head.headers);
        let answer = Stored::new(head.status, head.headers, body.seen(), outbound.clock.wall());
        Ok(if may_be_kept { answer } else { answer.for_once() })
    }

    fn would_wait(&self) -> bool {
        self.instance.would_wait(&self.policies, self.route, self.priority)
    }

    /// None where it is better asked for alone.
    async fn fetch_with_others(&self, user: &str) -> Option<Result<Stored, Why>> {
        let version = self.head.headers.get(&API_VERSION);
        let loader = self.instance.shared.loader(&self.instance, version, &self.policies, self.priority)?;
        // A list that is under way already may have been read before an invalidation that we come after.
        loader.forget(user);
        let would_wait = self.would_wait();
        let (found, has_opened) = loader.raw_merged(user).await;
        let answer = match found {
            Ok(Some(user)) => Ok(self.stored(StatusCode::OK, HeaderMap::new(), user.into_bytes())),
            Ok(None) => Ok(self.missing(user)),
            Err(error) => match &*error {
                // What is wrong with a list for another reason need not be wrong with a request of its own.
                Error::Api(api) if is_of_all(api.status) => Ok(self.refused(api)),
                Error::Shed(_) if self.policies.pace.is_on() => Err(Why::List(error)),
                Error::Transport { .. } => Err(Why::List(error)),
                _ => {
                    self.cost.lock().lists += u32::from(has_opened);
                    return None;
                }
            },
        };
        *self.cost.lock() = Cost {
            is_ours: has_opened,
            attempts: u32::from(has_opened),
            is_batched: true,
            has_opened,
            would_wait: would_wait && has_opened,
            ..Cost::default()
        };
        Some(answer)
    }

    fn stored(&self, status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Stored {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Stored::new(status, headers, body, self.instance.outbound.clock.wall())
    }

    /// A user that a list was without, in the words that Clerk has for one that is asked for alone.
    fn missing(&self, user: &str) -> Stored {
        let why = format!("No user was found with id {user}.");
        let body = error_body("not found", &why, "resource_not_found", Some(&own_trace_id()));
        self.stored(StatusCode::NOT_FOUND, HeaderMap::new(), body)
    }

    /// What Clerk said to a list, as it would have said it to each look-up.
    fn refused(&self, error: &ApiError) -> Stored {
        let mut headers = HeaderMap::new();
        if let Some(wait) = error.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        let code = error.code.as_deref().unwrap_or("internal_clerk_error");
        let body = error_body(&error.message, &error.message, code, error.trace_id.as_deref());
        self.stored(error.status, headers, body)
    }
}

/// Whether an answer may be given to who asks the same later: it does not say no (RFC 9111, section 5.2.2), and does not
/// depend on more of a request than is looked at (section 4.1) or is the same for all who are given it.
pub(super) fn may_be_kept(headers: &HeaderMap) -> bool {
    let elements = |name| {
        let values = headers.get_all(name).iter().map(|value: &HeaderValue| value.to_str().unwrap_or("*"));
        values.flat_map(|value| value.split(',')).map(str::trim)
    };
    let says_no = |directive: &str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["no-store", "private"].iter().any(|no| name.eq_ignore_ascii_case(no))
    };
    let is_known = |field: &str| KNOWN_TO_VARY.iter().any(|known| field.eq_ignore_ascii_case(known));
    !elements(CACHE_CONTROL).any(says_no) && elements(VARY).all(|field| field.is_empty() || is_known(field))
}

/// What an answer may vary by: the first two are part of what is asked for; compression and cookies are never asked for;
/// all keys of an instance see the same; and no browser, which has an origin, has a key.
const KNOWN_TO_VARY: [&str; 6] =
    ["accept", "clerk-api-version", "accept-encoding", "cookie", "authorization", "origin"];

/// Whether a list that is refused with this status would be refused for each of its users, too.
fn is_of_all(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}
