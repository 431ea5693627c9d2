//! What the handling of one request needs beside the state.

use serde_json::Value;
use serde_json::value::RawValue;

use super::ids::{ksuid, mix};
use super::users::Directory;
use super::users::store::Users;
use super::users::view::View;

/// One request: its time, its source of identifiers, and the events that it causes.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) directory: &'a Directory,
    /// Milliseconds since the epoch.
    pub(super) now: i64,
    serial: u64,
    /// `None` if nothing listens.
    events: Option<Vec<Emitted>>,
}

/// An event that a request caused.
#[derive(Debug)]
pub(super) struct Emitted {
    pub(super) kind: &'static str,
    /// The user, organization or session that changed. Its events stay in order.
    pub(super) entity: String,
    /// The JSON of the event's `data`.
    pub(super) data: Box<RawValue>,
}

impl<'a> Context<'a> {
    pub(super) fn new(directory: &'a Directory, now: i64, serial: u64, is_listened_to: bool) -> Self {
        Self { directory, now, serial, events: is_listened_to.then(Vec::new) }
    }

    /// Returns a new identifier.
    pub(super) fn new_id(&mut self, prefix: &str) -> String {
        let (high, low) = (self.next_random(), self.next_random());
        ksuid(prefix, u64::try_from(self.now / 1_000).unwrap_or(0), high, low)
    }

    /// Returns a number that no other call returned, and that the seed decides.
    pub(super) fn next_random(&mut self) -> u64 {
        self.serial = mix(self.serial, 7);
        self.serial
    }

    /// Notes an event whose data is `data`.
    pub(super) fn emit(&mut self, kind: &'static str, entity: &str, data: &Value) {
        self.emit_with(kind, entity, || data.to_string());
    }

    /// The same with JSON that is only made if something listens.
    pub(super) fn emit_with(&mut self, kind: &'static str, entity: &str, data: impl FnOnce() -> String) {
        if let Some(events) = &mut self.events
            && let Ok(data) = RawValue::from_string(data())
        {
            events.push(Emitted { kind, entity: entity.to_owned(), data });
        }
    }

    /// Notes an event of a user that exists.
    pub(super) fn emit_user(&mut self, kind: &'static str, users: &Users, user: u32) {
        let view = View { directory: self.directory, users };
        let id = view.id(user);
        self.emit_with(kind, &id, || String::from_utf8(view.json(user)).unwrap_or_default());
    }

    pub(super) fn take_events(&mut self) -> Vec<Emitted> {
        self.events.take().unwrap_or_default()
    }
}
