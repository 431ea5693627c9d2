//! Progress on standard error, if that is a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between redraws.
const TICK: Duration = Duration::from_millis(250);

/// Shows how much of the logs is read, until `work` ends. `total` is unknown for standard input.
pub(super) async fn during<T>(total: Option<u64>, bytes: &Arc<AtomicU64>, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let template = match total {
        Some(_) => "{binary_bytes}/{binary_total_bytes} [{bar:24}] {binary_bytes_per_sec}, {eta} to go",
        None => "{spinner} {binary_bytes}, {binary_bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
    let mut ticks = tokio::time::interval(TICK);
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            _ = ticks.tick() => bar.set_position(bytes.load(Ordering::Relaxed)),
        }
    };
    bar.finish_and_clear();
    done
}
