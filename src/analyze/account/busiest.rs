//! The windows with the highest use, and what they consisted of.

use super::spenders::SpenderKey;
use clerk_quota::Moment;
use clerk_quota::snapshot::ClosedWindow;

/// Windows that are kept.
const MAX_WINDOWS: usize = 10;

/// Senders that are named of a window.
const MAX_SENDERS: usize = 5;

/// A window and its requests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BusyWindow {
    pub(crate) start: Moment,
    pub(crate) window: ClosedWindow,
    /// Requests that started in it; `None` for a window that is not on the grid.
    pub(crate) requests: Option<u64>,
    /// The senders of most of them.
    pub(crate) senders: Vec<(SpenderKey, u64)>,
}

/// The busiest windows, the first one the busiest.
#[derive(Debug, Default)]
pub(crate) struct Busiest(Vec<BusyWindow>);

impl Busiest {
    pub(super) fn add(&mut self, window: &ClosedWindow, start: Moment, content: Option<Vec<(SpenderKey, u64)>>) {
        let requests = content.as_ref().map(|content| content.iter().map(|(_, requests)| requests).sum());
        let mut senders = content.unwrap_or_default();
        senders.truncate(MAX_SENDERS);
        let busy = BusyWindow { start, window: *window, requests, senders };
        let place = self.0.partition_point(|known| rank(known) >= rank(&busy));
        if place < MAX_WINDOWS {
            self.0.insert(place, busy);
            self.0.truncate(MAX_WINDOWS);
        }
    }

    pub(crate) fn windows(&self) -> &[BusyWindow] {
        &self.0
    }
}

/// By use in millionths, then by requests. Equal ones stay in the order of time.
fn rank(busy: &BusyWindow) -> (u64, u64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a ratio from 0 to 1")]
    let usage = (busy.window.usage.unwrap_or_default() * 1e6) as u64;
    (usage, busy.requests.unwrap_or_default())
}
