//! Listen addresses (`--web.listen-address`) and sockets passed by systemd.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
#[cfg(unix)]
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::{TcpListener, TcpSocket};

use super::socket::Socket;
#[cfg(unix)]
use super::socket::{NO_ADDRESS, UnixSocket};

/// Clients that the kernel may queue before they are accepted. With tokio's 128, a burst of clients overflows the
/// queue, and the rest only retry after a second.
const BACKLOG: u32 = 1024;

/// A listen address, as in `--web.listen-address`.
///
/// The formats are those of other exporters: `:10429` (every interface), `127.0.0.1:10429`, `[::1]:10429` or
/// `name:10429`; `unix:/run/name.sock` is a Unix domain socket. With port 0 the operating system chooses one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `:port`: every interface, IPv6 and IPv4.
    AllInterfaces(u16),
    /// An IP address and a port.
    Socket(SocketAddr),
    /// A host name, resolved when the address is bound, and a port.
    Name(String, u16),
    /// `unix:/path`: a Unix domain socket. The permissions of its directory and the umask decide who may connect.
    #[cfg(unix)]
    Unix(PathBuf),
}

/// The reason why a text is not a [`ListenAddress`]; the message says what to write instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseListenAddressError {
    /// `vsock://`, `unix://` and so on.
    #[error("listen address {0:?}: only TCP and Unix sockets are supported; write HOST:PORT, :PORT or unix:/PATH")]
    NotTcp(String),
    /// There is no colon, and so no port.
    #[error("listen address {0:?} has no port; write HOST:PORT, or :PORT for every interface")]
    NoPort(String),
    /// The part after the last colon is not a port.
    #[error("listen address {0:?}: the port must be a number from 0 to 65535")]
    BadPort(String),
    /// An IPv6 address without brackets, whose colons are ambiguous with the port's.
    #[error("listen address {0:?}: write an IPv6 address in brackets, as in [::1]:10429")]
    UnbracketedIpv6(String),
    /// The host is neither an IP address nor a host name.
    #[error("listen address {0:?}: the part before the port is neither an IP address nor a host name")]
    BadHost(String),
}

impl ListenAddress {
    /// Returns whether only this machine can reach the address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::AllInterfaces(_) => false,
            Self::Socket(address) => address.ip().is_loopback(),
            Self::Name(name, _) => name.eq_ignore_ascii_case("localhost"),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ParseListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use ParseListenAddressError as Error;

        let text = text.trim();
        #[cfg(unix)]
        if let Some(path) = text.strip_prefix("unix:")
            && path.starts_with('/')
            && !path.starts_with("//")
        {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if text.contains("://") || text.starts_with('/') {
            return Err(Error::NotTcp(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| Error::NoPort(text.to_owned()))?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::BadPort(text.to_owned()));
        }
        let port = port.parse().map_err(|_| Error::BadPort(text.to_owned()))?;

        if host.is_empty() {
            return Ok(Self::AllInterfaces(port));
        }
        if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = inner.parse().map_err(|_| Error::BadHost(text.to_owned()))?;
            return Ok(Self::Socket(SocketAddr::new(address.into(), port)));
        }
        if host.contains(':') {
            return Err(Error::UnbracketedIpv6(text.to_owned()));
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Socket(SocketAddr::new(address, port)));
        }
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        // All digits and dots would be a mistyped IPv4 address: do not resolve it.
        let is_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_name && !is_number { Ok(Self::Name(host.to_owned(), port)) } else { Err(Error::BadHost(text.to_owned())) }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllInterfaces(port) => write!(f, ":{port}"),
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The reason why listening failed; the message names the address and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process uses the address.
    #[error("cannot listen on {address}: the address is already in use; stop the other process or choose another port")]
    InUse {
        /// The address as written.
        address: String,
    },
    /// The operating system denies permission.
    #[error("cannot listen on {address}: permission denied; choose a port above 1023")]
    Denied {
        /// The address as written.
        address: String,
    },
    /// The machine has no interface with this address.
    #[error("cannot listen on {address}: this machine has no such address; write :PORT for every interface")]
    NotLocal {
        /// The address as written.
        address: String,
    },
    /// The host name cannot be resolved.
    #[error("cannot listen on {address}: the name cannot be resolved; write an IP address")]
    Unresolved {
        /// The address as written.
        address: String,
        /// The resolver's error.
        source: io::Error,
    },
    /// Any other error.
    #[error("cannot listen on {address}")]
    Other {
        /// The address as written.
        address: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// Socket activation was requested, but no socket was passed.
    #[error("systemd passed no socket (LISTEN_FDS); start through the .socket unit, or remove --web.systemd-socket")]
    NoSystemdSocket,
    /// systemd passed a socket that is not a listening TCP or Unix stream socket.
    #[error(
        "socket {index} passed by systemd is not a stream socket; use ListenStream=PORT or ListenStream=/PATH in the .socket unit"
    )]
    SystemdSocket {
        /// Position among the passed sockets, from 0.
        index: usize,
        /// The cause.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: &ListenAddress, source: io::Error) -> Self {
        let address = address.to_string();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address },
            _ => Self::Other { address, source },
        }
    }
}

/// A bound and listening socket.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: Socket,
    address: SocketAddr,
    /// Name of a Unix domain socket, which has no other address.
    name: Option<String>,
}

impl Listener {
    fn new(socket: TcpListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket: Socket::Tcp(socket), address, name: None })
    }

    #[cfg(unix)]
    fn passed_unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let name = address.as_pathname().map_or_else(|| "unix".to_owned(), |path| format!("unix:{}", path.display()));
        let socket = UnixSocket::passed(tokio::net::UnixListener::from_std(socket)?);
        Ok(Self { socket: Socket::Unix(socket), address: NO_ADDRESS, name: Some(name) })
    }

    /// Returns the address that clients can connect to, with the actual port if port 0 was requested.
    ///
    /// For a Unix domain socket it is `0.0.0.0:0`; `Display` shows the path.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.address.fmt(f),
        }
    }
}

/// Binds all addresses.
///
/// # Errors
/// Returns an error for the first address that cannot be bound. Sockets bound before it are closed.
pub async fn bind(addresses: &[ListenAddress]) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        match address {
            ListenAddress::AllInterfaces(port) => {
                let bound = bind_all_interfaces(*port);
                listeners.extend(bound.map_err(|error| BindError::new(address, error))?);
            }
            ListenAddress::Socket(socket) => {
                let bound = bind_one(*socket);
                listeners.push(bound.map_err(|error| BindError::new(address, error))?);
            }
            ListenAddress::Name(host, port) => {
                listeners.push(bind_name(address, host, *port).await?);
            }
            #[cfg(unix)]
            ListenAddress::Unix(path) => {
                let socket = UnixSocket::bind(path).map_err(|error| BindError::new(address, error))?;
                let name = Some(address.to_string());
                listeners.push(Listener { socket: Socket::Unix(socket), address: NO_ADDRESS, name });
            }
        }
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr) -> io::Result<Listener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for TIME_WAIT of the old connections. Two live listeners still exclude each other. (On
    // Windows the option has another meaning, and a restart does not have to wait.)
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Listener::new(socket.listen(BACKLOG)?)
}

/// Binds `[::]` and, if that does not accept IPv4, also `0.0.0.0`.
///
/// Whether `[::]` accepts IPv4 clients is a system setting (`net.ipv6.bindv6only`). Binding the IPv4 wildcard
/// afterwards shows it: "in use" means that the first socket accepts both.
fn bind_all_interfaces(port: u16) -> io::Result<Vec<Listener>> {
    let ipv6 = match bind_one((Ipv6Addr::UNSPECIFIED, port).into()) {
        Ok(listener) => listener,
        Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            return Err(error);
        }
        // IPv6 is disabled.
        Err(_) => return Ok(vec![bind_one((Ipv4Addr::UNSPECIFIED, port).into())?]),
    };
    let port = ipv6.local_addr().port();
    match bind_one((Ipv4Addr::UNSPECIFIED, port).into()) {
        Ok(ipv4) => Ok(vec![ipv6, ipv4]),
        Err(_) => Ok(vec![ipv6]),
    }
}

/// Binds the first address of a name that can be bound.
async fn bind_name(address: &ListenAddress, host: &str, port: u16) -> Result<Listener, BindError> {
    let unresolved = |source| BindError::Unresolved { address: address.to_string(), source };
    let resolved = tokio::net::lookup_host((host, port)).await.map_err(unresolved)?;
    let mut failure = None;
    for candidate in resolved {
        match bind_one(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    Err(match failure {
        Some(error) => BindError::new(address, error),
        None => unresolved(io::Error::from(io::ErrorKind::NotFound)),
    })
}

/// Takes the listening sockets that systemd passed (`LISTEN_FDS`, see `sd_listen_fds(3)`).
///
/// Call it once and early: it removes the protocol's environment variables, so that child processes do not use the
/// sockets. Requires a tokio runtime.
///
/// # Errors
/// Returns an error if no socket was passed, or if one is neither a TCP nor a Unix stream socket.
pub fn from_systemd() -> Result<Vec<Listener>, BindError> {
    let mut passed = listenfd::ListenFd::from_env();
    if passed.len() == 0 {
        return Err(BindError::NoSystemdSocket);
    }
    let mut listeners = Vec::with_capacity(passed.len());
    for index in 0..passed.len() {
        let take = |passed: &mut listenfd::ListenFd| {
            // A socket that is not TCP stays available to be taken as another kind.
            let not_tcp = match passed.take_tcp_listener(index) {
                Ok(socket) => {
                    let socket = socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                    socket.set_nonblocking(true)?;
                    return Listener::new(TcpListener::from_std(socket)?);
                }
                Err(not_tcp) => not_tcp,
            };
            #[cfg(unix)]
            if let Ok(Some(socket)) = passed.take_unix_listener(index) {
                return Listener::passed_unix(socket);
            }
            Err(not_tcp)
        };
        let listener = take(&mut passed).map_err(|source| BindError::SystemdSocket { index, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_address_parses_every_format() {
        let cases = [
            (":10429", ListenAddress::AllInterfaces(10429)),
            ("127.0.0.1:0", ListenAddress::Socket(([127, 0, 0, 1], 0).into())),
            ("[::1]:10429", ListenAddress::Socket((Ipv6Addr::LOCALHOST, 10429).into())),
            ("unix:/run/clerk.sock", ListenAddress::Unix("/run/clerk.sock".into())),
            ("metrics.example_1:80", ListenAddress::Name("metrics.example_1".to_owned(), 80)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn invalid_listen_address_error_has_a_remedy() {
        let cases = [
            ("vsock://:10429", "only TCP"),
            ("unix:x.sock", "a number from"),
            ("unix:///run/x.sock", "only TCP"),
            ("/run/x.sock", "only TCP"),
            ("10429", "write HOST:PORT, or :PORT"),
            ("localhost", "write HOST:PORT, or :PORT"),
            ("localhost:http", "a number from 0 to 65535"),
            (":65536", "a number from 0 to 65535"),
            (":+1", "a number from 0 to 65535"),
            (":", "a number from 0 to 65535"),
            ("::1:10429", "in brackets"),
            ("[::1:10429", "in brackets"),
            ("[nonsense]:1", "neither an IP address nor a host name"),
            ("127.0.0:1", "neither an IP address nor a host name"),
            ("a b:1", "neither an IP address nor a host name"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
