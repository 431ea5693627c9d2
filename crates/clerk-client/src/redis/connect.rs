//! Connecting to a server, and logging in.
//!
//! Streams are opened here and not by the client library, so that TLS uses the same library, provider (aws-lc-rs) and
//! roots as the other connections. The client library would use rustls' process-wide default, which belongs to the
//! embedding program. Its clients for sentinels and clusters open their connections themselves, so `sentinel` and `slots`
//! replace them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{Deployment, Login, NodeAddress, RedisUrl};
use super::permissions::Command;
use super::sentinel;
use super::slots::Node;
use super::{RedisClientError, RedisConfigError, RedisOptions, RedisPassword};
use crate::secret::Secret;

/// Maximum length of a response before the connection is used.
const MAX_REPLY: usize = 16 << 10;

/// A byte stream of any kind.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Opens connections to the servers of a URL.
pub(super) struct Connector {
    deployment: Deployment,
    login: Login,
    password: Option<RedisPassword>,
    tls: Option<TlsConnector>,
    connect_timeout: Duration,
    /// The node of the URL to try first.
    first: AtomicUsize,
}

/// Drives a connection; must be polled until it ends.
pub(super) type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Connector {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, RedisConfigError> {
        let RedisUrl { deployment, is_tls, login } = RedisUrl::parse(options.url.expose())?;
        if let Some(password) = &options.password {
            password.check()?;
            if login.password.is_some() {
                return Err(RedisConfigError::TwoPasswords);
            }
        }
        let tls = if is_tls { Some(connector(options.authorities.as_deref())?) } else { None };
        if is_tls {
            for address in deployment.addresses() {
                server_name(address).ok_or(RedisConfigError::Url)?;
            }
        }
        let first = AtomicUsize::new(fastrand::usize(..deployment.addresses().len().max(1)));
        let RedisOptions { password, connect_timeout, .. } = options.clone();
        Ok(Self { deployment, login, password, tls, connect_timeout, first })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.deployment, Deployment::Cluster(_))
    }

    /// Opens a connection for operations. Reading the password has a time limit of its own.
    pub(super) async fn open(
        &self,
        node: &Node,
    ) -> Result<(MultiplexedConnection, Driver, NodeAddress), RedisClientError> {
        let (stream, address) = self.logged_in(node).await?;
        // Callers set the deadlines.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&silent(), stream, config).await?;
        Ok((connection, Box::pin(driver), address))
    }

    /// Opens a connection for messages.
    pub(super) async fn open_for_messages(&self, node: &Node) -> Result<PubSub, RedisClientError> {
        let (stream, _) = self.logged_in(node).await?;
        Ok(PubSub::new(&silent(), stream).await?)
    }

    async fn logged_in(&self, node: &Node) -> Result<(Box<dyn ByteStream>, NodeAddress), RedisClientError> {
        let password = match &self.password {
            Some(password) => Some(password.read().await?),
            None => self.login.password.clone(),
        };
        let limit = self.connect_timeout;
        let connected = timeout(limit, self.connect(node, password.as_ref())).await;
        connected.unwrap_or(Err(RedisClientError::Timeout { after: limit }))
    }

    async fn connect(
        &self,
        node: &Node,
        password: Option<&Secret>,
    ) -> Result<(Box<dyn ByteStream>, NodeAddress), RedisClientError> {
        let login = Login { password: password.cloned(), ..self.login.clone() };
        match (node, &self.deployment) {
            (Node::Named(address), _) | (Node::Entry, Deployment::Single(address)) => {
                Ok((self.server(address, &login).await?, address.clone()))
            }
            (Node::Entry, Deployment::Cluster(nodes)) => self.any(nodes, &login).await,
            (Node::Entry, Deployment::Sentinels { sentinels, service, login: of_sentinels }) => {
                let limit = self.connect_timeout / 2;
                let ask = |address| async move {
                    let mut stream = self.server(address, of_sentinels).await?;
                    sentinel::ask(&mut stream, service).await
                };
                let primary = sentinel::primary(sentinels.iter().map(ask), limit).await?;
                let mut stream = self.server(&primary, &login).await?;
                sentinel::check_role(&mut stream).await?;
                Ok((stream, primary))
            }
        }
    }

    /// The next connection by the URL goes to another node than this one. Returns whether the URL names another one.
    pub(super) fn skip(&self, node: &NodeAddress) -> bool {
        let nodes = self.deployment.addresses();
        if let Some(place) = nodes.iter().position(|address| address == node) {
            self.first.store((place + 1) % nodes.len(), Ordering::Relaxed);
        }
        nodes.iter().any(|address| address != node)
    }

    /// Connects to the first node that can be reached.
    async fn any(
        &self,
        nodes: &[NodeAddress],
        login: &Login,
    ) -> Result<(Box<dyn ByteStream>, NodeAddress), RedisClientError> {
        let each = self.connect_timeout / u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
        let first = self.first.load(Ordering::Relaxed);
        let mut failure = RedisClientError::unavailable("the URL names no server");
        for place in (first..).take(nodes.len()) {
            let Some(address) = nodes.get(place % nodes.len()) else { continue };
            let connected = timeout(each, self.server(address, login)).await;
            match connected.unwrap_or(Err(RedisClientError::Timeout { after: each })) {
                Ok(stream) => {
                    self.first.store(place % nodes.len(), Ordering::Relaxed);
                    return Ok((stream, address.clone()));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Logs in without the client library, which reports any error during login as a wrong password, even a reached
    /// client limit.
    async fn server(&self, address: &NodeAddress, login: &Login) -> Result<Box<dyn ByteStream>, RedisClientError> {
        let mut stream = self.stream(address).await.map_err(|error| RedisClientError::io(&error))?;
        for command in login.commands() {
            request(&mut stream, &command).await?;
        }
        Ok(stream)
    }

    async fn stream(&self, address: &NodeAddress) -> io::Result<Box<dyn ByteStream>> {
        Ok(match (address, &self.tls) {
            (NodeAddress::Unix(path), _) => Box::new(UnixStream::connect(path).await?),
            (NodeAddress::Tcp { host, port }, None) => Box::new(tcp(host, *port).await?),
            (NodeAddress::Tcp { host, port }, Some(connector)) => {
                let name = server_name(address).ok_or(io::ErrorKind::InvalidInput)?;
                Box::new(connector.connect(name, tcp(host, *port).await?).await?)
            }
        })
    }
}

impl Deployment {
    fn addresses(&self) -> &[NodeAddress] {
        match self {
            Self::Single(address) => std::slice::from_ref(address),
            Self::Cluster(nodes) => nodes,
            Self::Sentinels { sentinels, .. } => sentinels,
        }
    }
}

impl Login {
    fn commands(&self) -> Vec<Cmd> {
        let mut commands = Vec::new();
        if let Some(password) = &self.password {
            let mut command = Command::Auth.build();
            command.arg(self.user.as_deref()).arg(password.expose());
            commands.push(command);
        }
        if self.database != 0 {
            let mut command = Command::Select.build();
            command.arg(self.database);
            commands.push(command);
        }
        commands
    }
}

/// Suppresses the client's `CLIENT SETINFO`, which would need an additional right.
fn silent() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_skip_set_lib_name()
}

/// Sends a command and reads its response. The server sends nothing more before the next one.
pub(super) async fn request(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    command: &Cmd,
) -> Result<Value, RedisClientError> {
    // At its client limit, a server sends an error and closes, perhaps before the command is written. That error says
    // more than a broken pipe.
    let sent = stream.write_all(&command.get_packed_command()).await;
    let mut reply = Vec::new();
    loop {
        let read = stream.read_buf(&mut reply).await;
        let error = match read {
            Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            return Err(RedisClientError::io(&sent.err().unwrap_or(error)));
        }
        // Incomplete responses are errors too.
        if reply.ends_with(b"\r\n")
            && let Ok(value) = redis::parse_redis_value(&reply)
        {
            return Ok(value.extract_error()?);
        }
        if reply.len() > MAX_REPLY || !reply.first().is_some_and(|kind| b"+-:$*_#,(%~".contains(kind)) {
            return Err(RedisClientError::unavailable("the server does not speak the Redis protocol"));
        }
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The name in the server's certificate; any for a socket in the file system, which has no TLS.
fn server_name(address: &NodeAddress) -> Option<ServerName<'static>> {
    let host = match address {
        NodeAddress::Tcp { host, .. } => host.clone(),
        NodeAddress::Unix(_) => "localhost".to_owned(),
    };
    ServerName::try_from(host).ok()
}

fn connector(authorities: Option<&[u8]>) -> Result<TlsConnector, RedisConfigError> {
    let failed = |error: &dyn std::fmt::Display| RedisConfigError::Authorities(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let config = match authorities {
        None => builder.with_platform_verifier().map_err(|error| failed(&error))?.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.is_empty() {
                return Err(failed(&"no certificate found"));
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Connector, RedisConfigError> {
        Connector::new(&RedisOptions::new(Secret::new(url.to_owned())))
    }

    #[test]
    fn authorities_must_be_certificates() {
        let mut options = RedisOptions::new(Secret::new("rediss://host".to_owned()));
        for pem in [&b""[..], b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            options.authorities = Some(pem.to_vec());
            assert!(matches!(Connector::new(&options), Err(RedisConfigError::Authorities(_))));
        }
        options.authorities = Some(include_bytes!("../../tests/data/tls/ca.pem").to_vec());
        assert!(Connector::new(&options).is_ok());
    }

    #[test]
    fn hosts_must_be_names_if_tls_checks_them() {
        assert!(target("redis://a_b!").is_ok());
        for url in ["rediss://a_b!", "rediss+cluster://a,a_b!", "rediss+sentinel://a,a_b!/prod"] {
            assert_eq!(target(url).err(), Some(RedisConfigError::Url), "{url}");
        }
    }

    #[test]
    fn there_is_one_source_of_the_password() {
        let options = |url: &str| RedisOptions::new(url.into()).password(RedisPassword::file("/run/secrets/redis"));
        assert!(Connector::new(&options("redis://app@host")).is_ok());
        for url in ["redis://:CANARY@host", "redis+cluster://app:CANARY@host", "redis+sentinel://:CANARY@host/prod"] {
            assert_eq!(Connector::new(&options(url)).err(), Some(RedisConfigError::TwoPasswords));
        }
        let url = "redis+sentinel://app@host/prod?sentinel_password=CANARY";
        assert!(Connector::new(&options(url)).is_ok(), "sentinels have a password of their own");
    }

    #[tokio::test]
    async fn replies_in_pieces_are_read_whole() {
        let reply = async |pieces: &[&'static [u8]]| {
            let (mut client, mut server) = tokio::io::duplex(64 << 10);
            let pieces = pieces.to_vec();
            let serve = async move {
                let mut command = [0; 14];
                server.read_exact(&mut command).await.unwrap();
                for piece in pieces {
                    server.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let command = Command::Ping.build();
            tokio::join!(request(&mut client, &command), serve).0
        };
        let expected = Value::Array(vec![Value::BulkString(b"a\r\n".to_vec()), Value::Nil]);
        assert_eq!(reply(&[b"*2\r\n", b"$3\r\na\r\n", b"\r\n$-1\r", b"\n"]).await, Ok(expected));
        let error = reply(&[b"-NOAUTH Authentication", b" required.\r\n"]).await.unwrap_err();
        assert_eq!(error, RedisClientError::Refused(super::super::ErrorReply::Credentials));
        let strange: [&[&[u8]]; 4] = [&[b"HTTP/1.1 400 Bad Request\r\n"], &[b"*1\r\n"], &[], &[&[b'+'; MAX_REPLY + 1]]];
        for pieces in strange {
            assert!(matches!(reply(pieces).await, Err(RedisClientError::Unavailable { .. })));
        }
    }
}
