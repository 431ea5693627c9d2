//! Which proxy a request takes: the environment's variables, read in one place and by one rule for every HTTP client.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use super::api_url::is_this_machine;
use super::no_proxy::NoProxy;
use crate::secret::{EnvLookup, process_env};

/// The proxies of the environment.
///
/// `HTTPS_PROXY` and `HTTP_PROXY` by the scheme of the address, else `ALL_PROXY`, and `NO_PROXY`
/// for what is reached directly. Names in lower case mean the same; where both are set, the one in capitals counts. White space
/// around a value is ignored, and an empty one is none.
///
/// A value that cannot be used is not passed over: a request that it is for fails and names the variable.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxies {
    https: Choice,
    http: Choice,
    exceptions: NoProxy,
    warnings: Vec<String>,
}

type Choice = Result<Option<Proxy>, ProxyError>;

/// A proxy, spoken to by http or over TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Its address, without user and password.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of `Proxy-Authorization`, if it wants one; marked as sensitive.
    #[must_use]
    pub const fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("https", &self.https).field("http", &self.http).finish_non_exhaustive()
    }
}

/// A variable that names no proxy that can be used. The value is not shown: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {fault}: set {variable} to http://HOST:PORT, or unset it")]
pub struct ProxyError {
    variable: &'static str,
    fault: ProxyFault,
}

/// What is wrong with the address of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ProxyFault {
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("has white space or a control character within it")]
    IllegalCharacter,
    #[error("names a socks proxy, but only proxies that are spoken to by http or https can be used")]
    Socks,
    #[error("has a scheme other than http and https")]
    Scheme,
    #[error("is no address (special characters of a password have to be percent-encoded)")]
    NoAddress,
}

impl Proxies {
    /// Those of this process' environment.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(&process_env)
    }

    /// Those that these variables name.
    #[must_use]
    pub fn from_variables(env: EnvLookup<'_>) -> Self {
        let mut warnings = Vec::new();
        let mut pick = |names| pick(names, env, &mut warnings);
        let (https, http) = (pick(["HTTPS_PROXY", "https_proxy"]), pick(["HTTP_PROXY", "http_proxy"]));
        let (all, no) = (pick(["ALL_PROXY", "all_proxy"]), pick(["NO_PROXY", "no_proxy"]));
        let of = |own: &Option<(&'static str, OsString)>| match own.as_ref().or(all.as_ref()) {
            Some((variable, value)) => parse(value).map(Some).map_err(|fault| ProxyError { variable, fault }),
            None => Ok(None),
        };
        let (https, http) = (of(&https), of(&http));
        let exceptions = no.map(|(variable, value)| NoProxy::parse(variable, &value, &mut warnings));
        Self { https, http, exceptions: exceptions.unwrap_or_default(), warnings }
    }

    /// No proxy at all.
    #[must_use]
    pub fn none() -> Self {
        Self::from_variables(&|_| None)
    }

    /// The proxy that a request to this address takes; none if it goes directly, as all do to this machine.
    ///
    /// # Errors
    /// When the variable that it goes by cannot be used: it may not go directly then.
    pub fn of(&self, uri: &Uri) -> Result<Option<&Proxy>, ProxyError> {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let choice = if is_https { &self.https } else { &self.http };
        if matches!(choice, Ok(None)) {
            return Ok(None);
        }
        let host = uri.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if is_this_machine(&host) || self.exceptions.contains(&host, port) {
            return Ok(None);
        }
        match choice {
            Ok(proxy) => Ok(proxy.as_ref()),
            Err(error) => Err(error.clone()),
        }
    }

    /// Proxies by the scheme of what is asked for, `https` and `http`, as far as they can be used.
    pub(super) fn by_scheme(&self) -> [Option<&Proxy>; 2] {
        [&self.https, &self.http].map(|choice| choice.as_ref().ok().and_then(Option::as_ref))
    }

    /// What is wrong or questionable, to be told at the start. Each names its variable and shows no value.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let errors = [&self.https, &self.http].map(|choice| choice.as_ref().err());
        let [first, second] = errors;
        let second = second.filter(|second| Some(*second) != first);
        let errors = first.into_iter().chain(second).map(ToString::to_string);
        errors.chain(self.warnings.iter().cloned())
    }
}

/// The first variable with a value that is not blank.
fn pick(names: [&'static str; 2], env: EnvLookup<'_>, warnings: &mut Vec<String>) -> Option<(&'static str, OsString)> {
    let is_blank = |value: &OsString| value.as_encoded_bytes().trim_ascii().is_empty();
    let [upper, lower] = names.map(|name| env(name).filter(|value| !is_blank(value)));
    if upper.is_some() && lower.is_some() && upper != lower {
        warnings.push(format!("{} and {} differ: {} counts; unset one of them", names[0], names[1], names[0]));
    }
    upper.map(|value| (names[0], value)).or_else(|| lower.map(|value| (names[1], value)))
}

fn parse(value: &OsString) -> Result<Proxy, ProxyFault> {
    let text = value.to_str().ok_or(ProxyFault::NotUtf8)?.trim();
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(ProxyFault::IllegalCharacter);
    }
    // Without a scheme it is spoken to by http, as with other programs.
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::HTTP,
        "https" => Scheme::HTTPS,
        socks if socks.starts_with("socks") => return Err(ProxyFault::Socks),
        _ => return Err(ProxyFault::Scheme),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if path.contains('@') {
        // A password with a slash in it: what stands before would be taken for the host.
        return Err(ProxyFault::NoAddress);
    }
    let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
    let address: Authority = address.parse().map_err(|_| ProxyFault::NoAddress)?;
    let port = address.as_str()[address.host().len()..].strip_prefix(':').map(str::parse::<u16>);
    if address.host().is_empty() || matches!(port, Some(Err(_) | Ok(0))) {
        return Err(ProxyFault::NoAddress);
    }
    let is_bracketed = address.host().starts_with('[');
    if is_bracketed != address.host().trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|it| it.is_ipv6()) {
        return Err(ProxyFault::NoAddress);
    }
    let builder = Uri::builder().scheme(scheme).authority(address).path_and_query(PathAndQuery::from_static("/"));
    let uri = builder.build().map_err(|_| ProxyFault::NoAddress)?;
    Ok(Proxy { uri, authorization: user.and_then(basic) })
}

/// User and password as `Proxy-Authorization` has them.
fn basic(user: &str) -> Option<HeaderValue> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded = [&percent_decoded(user)[..], b":", &percent_decoded(password)].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(decoded))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A `%` that begins no escape stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high * 16 + low);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    /// The proxy to this address, as text.
    fn of(proxies: &Proxies, uri: &str) -> Option<String> {
        proxies.of(&uri.parse().unwrap()).unwrap().map(|proxy| proxy.uri().to_string())
    }

    const CLERK: &str = "https://api.clerk.com/v1/users";

    #[test]
    fn the_scheme_of_the_address_chooses_and_empty_variables_are_none() {
        let [a, b] = ["http://a.test:1", "http://b.test:2"];
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>, Option<&'a str>);
        let cases: [Case<'_>; 9] = [
            (&[], None, None),
            (&[("HTTPS_PROXY", a)], Some(a), None),
            (&[("https_proxy", a)], Some(a), None),
            (&[("HTTP_PROXY", a)], None, Some(a)),
            (&[("ALL_PROXY", a)], Some(a), Some(a)),
            (&[("all_proxy", a), ("HTTPS_PROXY", b)], Some(b), Some(a)),
            (&[("HTTPS_PROXY", ""), ("https_proxy", b)], Some(b), None),
            (&[("HTTPS_PROXY", " \n"), ("ALL_PROXY", b), ("HTTP_PROXY", "")], Some(b), Some(b)),
            // CGI's variable makes other libraries ignore proxies.
            (&[("HTTPS_PROXY", a), ("REQUEST_METHOD", "GET")], Some(a), None),
        ];
        for (variables, https, http) in cases {
            let proxies = proxies(variables);
            let [https, http] = [https, http].map(|uri| uri.map(|uri| format!("{uri}/")));
            assert_eq!((of(&proxies, CLERK), of(&proxies, "http://clerk.test/")), (https, http), "{variables:?}");
            assert_eq!(proxies.warnings().count(), 0, "{variables:?}");
        }
        let both = proxies(&[("HTTPS_PROXY", a), ("https_proxy", b)]);
        assert_eq!(of(&both, CLERK).as_deref(), Some("http://a.test:1/"));
        assert!(both.warnings().next().unwrap().contains("HTTPS_PROXY and https_proxy differ"));
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let cases = [
            ("http://proxy.test:3128", "http://proxy.test:3128/"),
            ("http://proxy.test:3128/\n", "http://proxy.test:3128/"),
            ("\t http://proxy.test:3128\r\n\r\n", "http://proxy.test:3128/"),
            ("HTTP://proxy.test", "http://proxy.test/"),
            ("https://proxy.test:8443/", "https://proxy.test:8443/"),
            ("proxy.test:3128", "http://proxy.test:3128/"),
            ("proxy", "http://proxy/"),
            ("10.1.2.3:3128", "http://10.1.2.3:3128/"),
            ("[fd00::1]:3128", "http://[fd00::1]:3128/"),
            ("user:word@proxy.test:3128", "http://proxy.test:3128/"),
        ];
        for (value, expected) in cases {
            let proxies = proxies(&[("HTTPS_PROXY", value)]);
            assert_eq!(of(&proxies, CLERK).as_deref(), Some(expected), "{value:?}");
        }
        let with = |value| proxies(&[("HTTPS_PROXY", value)]);
        for (value, user) in [
            ("http://Aladdin:open%20sesame@proxy.test:1", "Aladdin:open sesame"),
            ("http://a:b@c:d@proxy.test:1", "a:b@c:d"),
            ("only@proxy.test", "only:"),
            ("http://a:100%@proxy.test:1", "a:100%"),
        ] {
            let proxies = with(value);
            let proxy = proxies.of(&CLERK.parse().unwrap()).unwrap().unwrap();
            let authorization = proxy.authorization().unwrap();
            assert_eq!(authorization, &format!("Basic {}", BASE64_STANDARD.encode(user)));
            assert!(authorization.is_sensitive() && !format!("{proxies:?} {proxy:?}").contains("sesame"));
        }
    }

    #[test]
    fn what_cannot_be_used_names_its_variable_and_is_not_passed_over() {
        for value in [
            "socks5://u:CANARY@proxy.test:1080",
            "socks5h://proxy.test",
            "socks4://proxy.test",
            "SOCKS5://CANARY@proxy.test",
            "ftp://proxy.test",
            "http://",
            "http://:3128",
            "http://proxy.test:CANARY",
            "http://proxy.test:0",
            "http://proxy.test:99999",
            "http://proxy.test:31 28",
            "http://u:CAN\nARY@proxy.test",
            "http://u:p\u{7f}@proxy.test",
            "http://u:CAN/ARY@proxy.test:1",
            "http://user:1/CANARY@proxy.test",
            "http:/proxy.test:3128",
            "fd00::1",
            "[10.0.0.1]:1",
            "http://präxy.test:1",
        ] {
            for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
                let proxies = proxies(&[(name, value)]);
                let error = proxies.of(&CLERK.parse().unwrap()).expect_err(value).to_string();
                assert!(error.starts_with(name) && error.contains("http://HOST:PORT"), "{error}");
                assert_eq!(proxies.warnings().collect::<Vec<_>>(), std::slice::from_ref(&error), "{value:?}");
                assert!(!format!("{error}{proxies:?}").contains("CAN"), "{error}");
                // This machine and exceptions are reached directly all the same.
                assert_eq!(of(&proxies, "https://localhost:1/"), None);
            }
        }
        // What is not for an address does not harm it.
        let mixed = proxies(&[("ALL_PROXY", "socks5://x.test"), ("HTTPS_PROXY", "http://a.test:1")]);
        assert_eq!(of(&mixed, CLERK).as_deref(), Some("http://a.test:1/"));
        assert!(mixed.of(&"http://clerk.test/".parse().unwrap()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf_8_is_not_passed_over() {
        use std::os::unix::ffi::OsStringExt;
        let proxies = Proxies::from_variables(&|name| {
            (name == "HTTPS_PROXY").then(|| OsString::from_vec(b"http://proxy\xff:1".to_vec()))
        });
        assert!(proxies.of(&CLERK.parse().unwrap()).is_err());
    }

    #[test]
    fn this_machine_is_reached_directly_however_it_is_written() {
        let proxies = proxies(&[("ALL_PROXY", "http://proxy.test:1")]);
        for host in ["localhost", "LOCALHOST.", "clerk.localhost:1", "127.0.0.1:10431", "127.9.9.9", "[::1]:1"] {
            assert_eq!(
                (of(&proxies, &format!("http://{host}/")), of(&proxies, &format!("https://{host}/"))),
                (None, None)
            );
        }
        assert!(of(&proxies, "https://localhost.test/").is_some());
    }
}
