//! Signals of the operating system.

use tokio_util::sync::CancellationToken;

use crate::site::Reloader;

/// Cancels `stop` on SIGTERM or SIGINT. The second one ends the process at once, for people who do not want to wait.
///
/// # Errors
/// When signals cannot be listened for.
#[cfg(unix)]
pub async fn on_termination(stop: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
    Ok(())
}

/// Cancels `stop` on Ctrl-C.
///
/// # Errors
/// When signals cannot be listened for.
#[cfg(not(unix))]
pub async fn on_termination(stop: CancellationToken) -> std::io::Result<()> {
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    Ok(())
}

/// Loads the configuration again on each SIGHUP, until `stop`.
pub async fn on_hangup(reloader: Reloader, stop: CancellationToken) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangups = match signal(SignalKind::hangup()) {
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
    #[cfg(not(unix))]
    {
        drop(reloader);
        stop.cancelled().await;
    }
}
