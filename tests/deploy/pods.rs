//! A pod as its containers see it: the rendered arguments, environment and files, below a folder of the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use reqwest::{Certificate, Client};
use serde_json::Value;
use tempfile::TempDir;

use crate::exporter::{Exporter, bound_address, command, eventually};
use crate::named;

/// Texts of Secrets, by the Secret's name and entry.
pub(crate) type Secrets = BTreeMap<(&'static str, &'static str), String>;

/// What the rendered files are changed to besides the folder of each mount: ports become free ones.
const PORTS: [(&str, &str); 4] = [
    ("--web.listen-address=:10429", "--web.listen-address=127.0.0.1:0"),
    ("listen_address: :10430", "listen_address: 127.0.0.1:0"),
    ("listen_address: \":10430\"", "listen_address: 127.0.0.1:0"),
    ("--web.listen-address=0.0.0.0:10429", "--web.listen-address=127.0.0.1:0"),
];

/// The files of a container, and how paths are changed to find them.
pub(crate) struct Files {
    folder: TempDir,
    /// Folders or files as the container sees them.
    mounts: Vec<String>,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), mounts: Vec::new() }
    }

    /// Where something of the container is.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside.trim_start_matches('/'))
    }

    /// From now on, paths of this folder or file are found in the texts of files and arguments.
    pub(crate) fn mount(&mut self, inside: &str) {
        self.mounts.push(inside.to_owned());
    }

    pub(crate) fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.adapt(text)).unwrap();
    }

    /// A text with the paths of the test's folder.
    pub(crate) fn adapt(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in PORTS {
            text = text.replace(from, to);
        }
        for mount in &self.mounts {
            let place = self.path(mount);
            text = text.replace(mount.as_str(), place.to_str().unwrap());
        }
        text
    }

    /// Starts the binary with these arguments and variables, and nothing else in its environment.
    pub(crate) async fn start(&self, arguments: &[String], environment: &[(String, String)]) -> Exporter {
        let arguments: Vec<_> = arguments.iter().map(|argument| self.adapt(argument)).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut command = command(&arguments);
        if !arguments.iter().any(|argument| argument.starts_with("--web.listen-address")) {
            // The default is a port that something else may use.
            command.arg("--web.listen-address=127.0.0.1:0");
        }
        command.envs(environment.iter().cloned());
        // As in the image: the root is read-only.
        command.current_dir("/");
        Exporter::spawn(command, bound_address).await
    }
}

/// A running pod of a Deployment.
pub(crate) struct Pod {
    pub(crate) exporter: Exporter,
    readiness: Value,
    files: Files,
}

/// The entries of a volume that a pod has to have, as relative paths and texts.
fn entries(volume: &Value, objects: &[Value], secrets: &Secrets) -> Vec<(String, String)> {
    if let Some(name) = volume["configMap"]["name"].as_str() {
        let data = named(objects, "ConfigMap", name)["data"].as_object().unwrap();
        return data.iter().map(|(key, text)| (key.clone(), text.as_str().unwrap().to_owned())).collect();
    }
    if let Some(name) = volume["secret"]["secretName"].as_str() {
        let all = secrets.iter().filter(|((secret, _), _)| *secret == name);
        return all.map(|((_, entry), text)| ((*entry).to_owned(), text.clone())).collect();
    }
    let sources = volume["projected"]["sources"].as_array();
    let items = sources.into_iter().flatten().map(|source| {
        let (secret, item) = (source["secret"]["name"].as_str().unwrap(), &source["secret"]["items"][0]);
        let entry = item["key"].as_str().unwrap();
        let text = secrets.iter().find(|((name, key), _)| (*name, *key) == (secret, entry));
        let (_, text) = text.unwrap_or_else(|| panic!("the test has no Secret {secret} with {entry}"));
        (item["path"].as_str().unwrap().to_owned(), text.clone())
    });
    items.collect()
}

impl Pod {
    /// Starts a pod of this Deployment.
    pub(crate) async fn start(objects: &[Value], deployment: &str, secrets: &Secrets) -> Self {
        let spec = &named(objects, "Deployment", deployment)["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        let mut files = Files::new();
        let mounts = container["volumeMounts"].as_array().unwrap();
        for mount in mounts {
            files.mount(mount["mountPath"].as_str().unwrap());
        }
        for mount in mounts {
            let inside = mount["mountPath"].as_str().unwrap();
            let volumes = spec["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            let is_state = volume["emptyDir"].is_object();
            assert_ne!(is_state, mount["readOnly"] == true, "{inside}");
            fs::create_dir_all(files.path(inside)).unwrap();
            for (path, text) in entries(volume, objects, secrets) {
                files.write(&format!("{inside}/{path}"), &text);
            }
        }
        let arguments = container["args"].as_array().unwrap().iter();
        let arguments: Vec<_> = arguments.map(|argument| argument.as_str().unwrap().to_owned()).collect();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let variables = container["env"].as_array().into_iter().flatten();
        let variables: Vec<_> = variables.map(|it| (text(&it["name"]), text(&it["value"]))).collect();
        let exporter = files.start(&arguments, &variables).await;
        Self { exporter, readiness: container["readinessProbe"]["httpGet"].clone(), files }
    }

    /// Whether the process keeps state where the pod has its emptyDir.
    pub(crate) fn wrote_state(&self) -> bool {
        self.files.path("/var/lib/clerk-exporter/lock").exists()
    }

    /// Waits until the kubelet would call it ready.
    pub(crate) async fn until_ready(&self) {
        assert_eq!(self.readiness["port"], "http-metrics");
        let scheme = self.readiness["scheme"].as_str().unwrap_or("HTTP").to_ascii_lowercase();
        let path = self.readiness["path"].as_str().unwrap();
        let url = format!("{scheme}://{}{path}", self.exporter.address);
        // The kubelet does not verify certificates.
        let client = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap();
        eventually("ready", async || {
            let response = client.get(&url).send().await.ok()?;
            (response.status() == 200).then_some(())
        })
        .await;
    }
}

/// The test certificate authority's files.
pub(crate) fn certificate(name: &str) -> String {
    crate::read(&format!("crates/prometheus-web/tests/data/tls/{name}"))
}

/// A client that trusts it.
pub(crate) fn client() -> Client {
    let authority = Certificate::from_pem(certificate("ca.pem").as_bytes()).unwrap();
    Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap()
}
