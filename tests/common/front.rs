//! The binary with a gateway in front of a simulated Clerk.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::exporter::{Exporter, Folder, KEY, bound_address, command};

/// A running exporter whose gateway listens. It probes once, at the start.
pub(crate) struct Front {
    pub(crate) exporter: Exporter,
    /// Where the gateway listens.
    pub(crate) address: SocketAddr,
    folder: Folder,
}

impl Front {
    /// `limit` is the limit of the instance; `gateway` are lines below `gateway:`.
    pub(crate) async fn start(api_url: &str, limit: &str, gateway: &str) -> Self {
        Self::with_files(api_url, limit, gateway, &[]).await
    }

    /// Also writes files that the lines may name.
    pub(crate) async fn with_files(api_url: &str, limit: &str, gateway: &str, files: &[(&str, &str)]) -> Self {
        Self::with((api_url, limit, gateway), files, &[]).await
    }

    /// Also has further arguments.
    pub(crate) async fn with(
        (api_url, limit, gateway): (&str, &str, &str),
        files: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        let folder = Folder::new();
        for (name, text) in files {
            folder.write(name, text);
        }
        let path = configure(&folder, api_url, limit, gateway);
        let mut command = command(&["--config.file", path.to_str().unwrap(), "--web.listen-address=127.0.0.1:0"]);
        command.args(arguments);
        let exporter = Exporter::spawn(command, bound_address).await;
        let address = exporter.gateway().await;
        // The initial probe is not a request of an application.
        exporter.until("clerk_probes_total", &[], |probes| probes > 0.0).await;
        Self { exporter, address, folder }
    }

    /// Rewrites the configuration.
    pub(crate) fn configure(&self, api_url: &str, limit: &str, gateway: &str) {
        configure(&self.folder, api_url, limit, gateway);
    }
}

fn configure(folder: &Folder, api_url: &str, limit: &str, gateway: &str) -> PathBuf {
    let lines = gateway.trim_end().replace('\n', "\n  ");
    folder.write(
        "config.yml",
        &format!(
            "probe: {{ schedule: '0 0 0 29 2 *' }}\n\
             instances:\n  - {{ name: prod, secret_key: {KEY}, api_url: '{api_url}', limit: {limit} }}\n\
             gateway:\n  listen_address: 127.0.0.1:0\n  {lines}\n"
        ),
    )
}
