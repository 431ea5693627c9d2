//! The server's address, and connecting to it.
//!
//! Streams are opened here and not by the client library, so that TLS uses the same library, provider (aws-lc-rs) and
//! roots as the other connections. The client library would use rustls' process-wide default, which belongs to the
//! embedding program.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::permissions::Command;
use super::{RedisClientError, RedisConfigError, RedisOptions};

/// Maximum length of a response to a login.
const MAX_LINE: usize = 4096;

/// A byte stream of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Address and login of the server.
pub(super) struct Connector {
    place: Address,
    login: RedisConnectionInfo,
}

enum Address {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, name: ServerName<'static>, connector: TlsConnector },
    Unix(PathBuf),
}

/// Drives a connection; must be polled until it ends.
pub(super) type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Connector {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, RedisConfigError> {
        // The client's error may contain the URL.
        let info = options.url.expose().into_connection_info().map_err(|_| RedisConfigError::Url)?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Address::Tcp { host: host.clone(), port: *port },
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(RedisConfigError::Insecure),
            ConnectionAddr::TcpTls { host, port, .. } => Address::Tls {
                host: host.clone(),
                port: *port,
                name: ServerName::try_from(host.clone()).map_err(|_| RedisConfigError::Url)?,
                connector: connector(options.authorities.as_deref())?,
            },
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return Err(RedisConfigError::Url),
        };
        Ok(Self { place, login: info.redis_settings().clone() })
    }

    /// Opens a connection for operations, without a deadline.
    pub(super) async fn open(&self) -> Result<(MultiplexedConnection, Driver), RedisClientError> {
        let stream = self.logged_in().await?;
        // Callers set the deadlines.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&silent(), stream, config).await?;
        Ok((connection, Box::pin(driver)))
    }

    /// Opens a connection for messages, without a deadline.
    pub(super) async fn open_for_messages(&self) -> Result<PubSub, RedisClientError> {
        let stream = self.logged_in().await?;
        Ok(PubSub::new(&silent(), stream).await?)
    }

    /// Logs in without the client library, which reports any error during login as a wrong password, even a reached
    /// client limit.
    async fn logged_in(&self) -> Result<Box<dyn Stream>, RedisClientError> {
        let mut stream = self.stream().await.map_err(|error| RedisClientError::io(&error))?;
        for command in self.login_commands() {
            // At its client limit, a server sends an error and closes, perhaps before the command is written. That
            // error says more than a broken pipe.
            let sent = stream.write_all(&command.get_packed_command()).await;
            let line = line(&mut stream).await.map_err(|error| RedisClientError::io(&sent.err().unwrap_or(error)))?;
            redis::parse_redis_value(&line)?.extract_error()?;
        }
        Ok(stream)
    }

    fn login_commands(&self) -> Vec<Cmd> {
        let mut commands = Vec::new();
        if let Some(password) = self.login.password() {
            let mut command = Command::Auth.build();
            command.arg(self.login.username()).arg(password);
            commands.push(command);
        }
        if self.login.db() != 0 {
            let mut command = Command::Select.build();
            command.arg(self.login.db());
            commands.push(command);
        }
        commands
    }

    async fn stream(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.place {
            Address::Tcp { host, port } => Box::new(tcp(host, *port).await?),
            Address::Tls { host, port, name, connector } => {
                Box::new(connector.connect(name.clone(), tcp(host, *port).await?).await?)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// Suppresses the client's `CLIENT SETINFO`, which would need an additional right.
fn silent() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_skip_set_lib_name()
}

/// Reads one line with its end. The server sends nothing more before the next command.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(stream.read_u8().await?);
    }
    Ok(line)
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
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
    use crate::secret::Secret;

    fn target(url: &str) -> Result<Connector, RedisConfigError> {
        Connector::new(&RedisOptions::new(Secret::new(url.to_owned())))
    }

    #[test]
    fn urls_of_all_kinds_are_read() {
        let tcp = target("redis://user:p%40ss@[::1]:7000/3").unwrap();
        assert!(matches!(&tcp.place, Address::Tcp { host, port: 7000 } if host == "::1"));
        assert_eq!((tcp.login.username(), tcp.login.password(), tcp.login.db()), (Some("user"), Some("p@ss"), 3));
        assert!(matches!(target("valkey://cache").unwrap().place, Address::Tcp { port: 6379, .. }));
        assert!(matches!(target("rediss://cache.example").unwrap().place, Address::Tls { port: 6379, .. }));
        let unix = target("unix:///run/redis.sock?db=2").unwrap();
        assert!(matches!(&unix.place, Address::Unix(path) if path.ends_with("redis.sock")));
    }

    #[test]
    fn invalid_urls_are_rejected_without_being_shown() {
        for url in ["", "CANARY", "http://CANARY@host", "redis://:CANARY@host/x", "redis://CANARY:pass word@host:x"] {
            let error = target(url).err().unwrap();
            assert_eq!(error, RedisConfigError::Url, "{url}");
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
        assert_eq!(target("rediss://:CANARY@host/#insecure").err(), Some(RedisConfigError::Insecure));
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
}
