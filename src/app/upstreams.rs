//! The HTTP clients of probes and gateway, which trust the same certificate authorities.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_fingerprint::{Look, ReloadStats, WatchedFiles};

use clerk_client::transport::{
    BuildError, HyperOptions, NetworkTransport, ReplaceableTransport, ReqwestOptions, ReqwestTransport, Transport,
};

/// The clients, and the file of certificate authorities they were built with.
#[derive(Debug)]
pub(super) struct Upstreams {
    probes: Arc<ReplaceableTransport>,
    gateway: Option<GatewayUpstream>,
    ca_file: Option<PathBuf>,
    /// Content hash of the file.
    content: Option<u64>,
    watched: WatchedFiles,
}

#[derive(Debug)]
struct GatewayUpstream {
    transport: Arc<ReplaceableTransport>,
    http2: bool,
}

/// Clients that are ready to replace the previous ones.
#[derive(Debug)]
pub(super) struct NewUpstreams {
    probes: Arc<ReqwestTransport>,
    gateway: Option<Arc<NetworkTransport>>,
    ca_file: Option<PathBuf>,
    content: Option<u64>,
    look: Look,
}

impl Upstreams {
    /// Builds the client of probes.
    ///
    /// # Errors
    /// Returns an error if a client cannot be built, for example because the file is invalid.
    pub(super) fn new(ca_file: Option<&Path>, stats: Arc<ReloadStats>) -> Result<Self, BuildError> {
        let made = make(ca_file, None)?;
        let mut watched = WatchedFiles::new(stats);
        count_success(&mut watched, ca_file, made.look);
        let probes = ReplaceableTransport::new(made.probes);
        Ok(Self { probes, gateway: None, ca_file: made.ca_file, content: made.content, watched })
    }

    /// The client of probes.
    pub(super) fn of_probes(&self) -> Arc<dyn Transport> {
        Arc::<ReplaceableTransport>::clone(&self.probes)
    }

    /// The client of the gateway; built on first use.
    ///
    /// # Errors
    /// Returns an error if it cannot be built.
    pub(super) fn of_gateway(&mut self, http2: bool) -> Result<Arc<dyn Transport>, BuildError> {
        let gateway = match self.gateway.take() {
            Some(gateway) => gateway,
            None => {
                let transport = NetworkTransport::new(&options(self.ca_file.as_deref(), http2))?;
                GatewayUpstream { transport: ReplaceableTransport::new(transport), http2 }
            }
        };
        let transport = Arc::<ReplaceableTransport>::clone(&gateway.transport);
        self.gateway = Some(gateway);
        Ok(transport)
    }

    /// Builds clients for another file or other content, to be [installed](Self::install). `None`: the present clients
    /// stay in use and keep their connections.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be built; nothing changes.
    pub(super) fn prepare(&mut self, ca_file: Option<&Path>) -> Result<Option<NewUpstreams>, BuildError> {
        if self.ca_file.as_deref() == ca_file && !self.watched.is_outdated() {
            return Ok(None);
        }
        let look = Look::at(ca_file.map(Path::to_owned));
        if self.ca_file.as_deref() == ca_file && !self.watched.is_failing() && content(ca_file) == self.content {
            self.watched.unchanged(look);
            return Ok(None);
        }
        let made = make(ca_file, self.gateway.as_ref().map(|gateway| gateway.http2));
        made.map(Some).inspect_err(|error| self.watched.failed(error))
    }

    /// Sends all later requests over these clients.
    pub(super) fn install(&mut self, new: NewUpstreams) {
        let is_other = (&self.ca_file, self.content) != (&new.ca_file, new.content);
        count_success(&mut self.watched, new.ca_file.as_deref(), new.look);
        if !is_other {
            if self.watched.is_recovery() {
                tracing::info!("the file of certificate authorities is readable again; unchanged");
            }
            return;
        }
        self.watched.is_recovery();
        self.probes.replace(new.probes);
        if let (Some(gateway), Some(transport)) = (&self.gateway, new.gateway) {
            gateway.transport.replace(transport);
        }
        (self.ca_file, self.content) = (new.ca_file, new.content);
        let file = self.ca_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        tracing::info!(file, "loaded certificate authorities; new connections of probes and gateway trust them");
    }

    /// Reloads the file if it has changed. An invalid file leaves the previous authorities in use.
    pub(super) fn refresh(&mut self) {
        let ca_file = self.ca_file.clone();
        match self.prepare(ca_file.as_deref()) {
            Ok(Some(new)) => self.install(new),
            Err(error) if self.watched.is_new_failure() => {
                tracing::warn!(
                    %error,
                    "failed to reload certificate authorities; using the previous ones and retrying"
                );
            }
            _ => {}
        }
    }
}

/// Without a file there is nothing to count.
fn count_success(watched: &mut WatchedFiles, ca_file: Option<&Path>, look: Look) {
    match ca_file {
        Some(_) => watched.succeeded(look),
        None => watched.forget(),
    }
}

fn options(ca_file: Option<&Path>, http2: bool) -> HyperOptions {
    HyperOptions::default().ca_file(ca_file.map(Path::to_owned)).http2(http2)
}

fn make(ca_file: Option<&Path>, gateway_http2: Option<bool>) -> Result<NewUpstreams, BuildError> {
    let look = Look::at(ca_file.map(Path::to_owned));
    let content = content(ca_file);
    let options_of_probes = ReqwestOptions::default().ca_file(ca_file.map(Path::to_owned));
    let probes = ReqwestTransport::new(options_of_probes)?;
    let gateway = gateway_http2.map(|http2| NetworkTransport::new(&options(ca_file, http2))).transpose()?;
    Ok(NewUpstreams { probes, gateway, ca_file: ca_file.map(Path::to_owned), content, look })
}

/// Content hash of a file; `None` if it cannot be read.
pub(super) fn content(file: Option<&Path>) -> Option<u64> {
    let bytes = std::fs::read(file?).ok()?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Some(hasher.finish())
}
