//! Operating system signals.

use tokio_util::sync::CancellationToken;

use crate::admin::Reloader;

/// Cancels `stop` on SIGTERM or SIGINT. A second signal exits immediately.
///
/// Signals are handled from the call on, not only once the future is polled.
///
/// # Errors
/// Returns an error if the signal handlers cannot be installed.
#[cfg(unix)]
pub fn on_termination(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        for patience in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if !patience {
                tracing::warn!(signal = name, "exiting immediately");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "stopping; a second signal exits immediately");
            stop.cancel();
        }
    })
}

/// Cancels `stop` on Ctrl-C.
///
/// # Errors
/// Never returns an error.
#[cfg(not(unix))]
pub fn on_termination(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    })
}

/// Reloads the configuration on each SIGHUP, until `stop`.
///
/// Signals are handled from the call on, not only once the future is polled.
#[cfg(unix)]
pub fn on_hangup(reloader: Reloader, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
    use tokio::signal::unix::{SignalKind, signal};
    let hangups = signal(SignalKind::hangup());
    async move {
        let mut hangups = match hangups {
            Ok(hangups) => hangups,
            Err(error) => {
                tracing::warn!(%error, "cannot handle SIGHUP; it will not reload the configuration");
                return;
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangups.recv() => {
                    // The reload logs its errors.
                    let _ = reloader.reload().await;
                }
            }
        }
    }
}

/// This platform has no such signal.
#[cfg(not(unix))]
pub async fn on_hangup(_: Reloader, stop: CancellationToken) {
    stop.cancelled().await;
}
