//! Captures the logs of a test's thread.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

thread_local! {
    /// Lines logged by this thread after [`listen`]. A subscriber per test would miss lines, because tracing caches per
    /// process whether a callsite is enabled.
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                log.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts capturing this thread's logs, at every level.
pub fn listen() {
    static START: Once = Once::new();
    START.call_once(|| {
        let wanted = dynamic_filter_fn(|_, _| LOG.with_borrow(Option::is_some));
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Writer).with_filter(wanted);
        tracing_subscriber::registry().with(lines).init();
    });
    LOG.set(Some(Vec::new()));
}

/// Returns the lines captured since [`listen`].
pub fn everything() -> String {
    LOG.with_borrow(|log| String::from_utf8(log.clone().unwrap()).unwrap())
}
