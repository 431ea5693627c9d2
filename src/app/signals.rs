//! Signals of the operating system.

use tokio_util::sync::CancellationToken;

use crate::admin::Reloader;

/// Cancels `stop` on SIGTERM or SIGINT. The second one ends the process at once, for people who do not want to wait.
///
/// Signals are caught from the call on, not only once the future runs.
///
/// # Errors
/// When signals cannot be listened for.
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
                tracing::warn!(signal = name, "ending at once");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "stopping; a second signal ends at once");
            stop.cancel();
        }
    })
}

/// Cancels `stop` on Ctrl-C.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn on_termination(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    })
}

/// Loads the configuration again on each SIGHUP, until `stop`.
///
/// Signals are caught from the call on, not only once the future runs.
#[cfg(unix)]
pub fn on_hangup(reloader: Reloader, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
    use tokio::signal::unix::{SignalKind, signal};
    let hangups = signal(SignalKind::hangup());
    async move {
        let mut hangups = match hangups {
            Ok(hangups) => hangups,
            Err(error) => {
                tracing::warn!(%error, "SIGHUP does not reload the configuration");
                return;
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangups.recv() => {
                    // What is wrong is in the log already.
                    let _ = reloader.reload().await;
                }
            }
        }
    }
}

/// There is no such signal.
#[cfg(not(unix))]
pub async fn on_hangup(_: Reloader, stop: CancellationToken) {
    stop.cancelled().await;
}
