//! Proxies of the environment, with the same rules for every HTTP client.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::api_url::is_this_machine;
use super::no_proxy::NoProxy;
use crate::secret::{EnvLookup, process_env};

/// The proxies of the environment.
///
/// `HTTPS_PROXY` or `HTTP_PROXY` by the scheme of the URL, otherwise `ALL_PROXY`; `NO_PROXY` lists hosts to reach
/// directly. Lower-case names are equivalent; if both are set, the upper-case one wins. White space around a value is
/// ignored, and an empty value counts as unset.
///
/// An invalid value is not ignored: requests that need it fail with an error that names the variable.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxies {
    https: Choice,
    http: Choice,
    exceptions: NoProxy,
    warnings: Vec<String>,
}

type Choice = Result<Option<Proxy>, ProxyError>;

/// A proxy, reached over HTTP or TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    variable: &'static str,
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Returns the name of the variable that names the proxy.
    #[must_use]
    pub const fn variable(&self) -> &'static str {
        self.variable
    }

    /// Returns the URL, without user and password.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the value of `Proxy-Authorization`, if any, marked as sensitive.
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

/// A variable with an invalid proxy. The message does not show the value, which may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {fault}; set {variable} to http://HOST:PORT, or unset it")]
pub struct ProxyError {
    variable: &'static str,
    fault: ProxyFault,
}

/// Why a proxy's URL is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ProxyFault {
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("contains white space or a control character")]
    IllegalCharacter,
    #[error("names a SOCKS proxy, but only http and https proxies are supported")]
    Socks,
    #[error("has a scheme other than http and https")]
    Scheme,
    #[error("is not a valid URL (percent-encode special characters in the password)")]
    NoAddress,
}

impl Proxies {
    /// Reads the proxies of this process's environment.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(&process_env)
    }

    /// Reads the proxies of the given environment.
    #[must_use]
    pub fn from_variables(env: EnvLookup<'_>) -> Self {
        let mut warnings = Vec::new();
        let mut pick = |names| pick(names, env, &mut warnings);
        let (https, http) = (pick(["HTTPS_PROXY", "https_proxy"]), pick(["HTTP_PROXY", "http_proxy"]));
        let (all, no) = (pick(["ALL_PROXY", "all_proxy"]), pick(["NO_PROXY", "no_proxy"]));
        let of = |own: &Option<(&'static str, OsString)>| match own.as_ref().or(all.as_ref()) {
            Some((variable, value)) => parse(variable, value).map(Some).map_err(|fault| ProxyError { variable, fault }),
            None => Ok(None),
        };
        let (https, http) = (of(&https), of(&http));
        let exceptions = no.map(|(variable, value)| NoProxy::parse(variable, &value, &mut warnings));
        Self { https, http, exceptions: exceptions.unwrap_or_default(), warnings }
    }

    /// No proxies.
    #[must_use]
    pub fn none() -> Self {
        Self::from_variables(&|_| None)
    }

    /// Returns the proxy for a URL; `None` for a direct connection, which this machine always gets.
    ///
    /// # Errors
    /// Returns an error if the variable for this URL is invalid. The request must not go directly then.
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

    /// Returns the valid proxies for `https` and `http` URLs.
    pub(super) fn by_scheme(&self) -> [Option<&Proxy>; 2] {
        [&self.https, &self.http].map(|choice| choice.as_ref().ok().and_then(Option::as_ref))
    }

    /// Returns warnings to log at startup. Each names its variable and shows no value.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let errors = [&self.https, &self.http].map(|choice| choice.as_ref().err());
        let [first, second] = errors;
        let second = second.filter(|second| Some(*second) != first);
        let errors = first.into_iter().chain(second).map(ToString::to_string);
        errors.chain(self.warnings.iter().cloned())
    }
}

/// Returns the first variable whose value is not blank.
fn pick(names: [&'static str; 2], env: EnvLookup<'_>, warnings: &mut Vec<String>) -> Option<(&'static str, OsString)> {
    let is_blank = |value: &OsString| value.as_encoded_bytes().trim_ascii().is_empty();
    let [upper, lower] = names.map(|name| env(name).filter(|value| !is_blank(value)));
    if upper.is_some() && lower.is_some() && upper != lower {
        warnings.push(format!("{} and {} differ: {} is used; unset one of them", names[0], names[1], names[0]));
    }
    upper.map(|value| (names[0], value)).or_else(|| lower.map(|value| (names[1], value)))
}

fn parse(variable: &'static str, value: &OsString) -> Result<Proxy, ProxyFault> {
    let text = value.to_str().ok_or(ProxyFault::NotUtf8)?.trim();
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(ProxyFault::IllegalCharacter);
    }
    // Default to http, like other programs.
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::HTTP,
        "https" => Scheme::HTTPS,
        socks if socks.starts_with("socks") => return Err(ProxyFault::Socks),
        _ => return Err(ProxyFault::Scheme),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if path.contains('@') {
        // A slash in the password: the part before it would be taken for the host.
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
    Ok(Proxy { variable, uri, authorization: user.and_then(basic) })
}

/// Builds the value of `Proxy-Authorization`.
fn basic(user: &str) -> Option<HeaderValue> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded: Vec<u8> = percent_decode_str(user).chain([b':']).chain(percent_decode_str(password)).collect();
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(decoded))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    /// The proxy for this URL, as text.
    fn of(proxies: &Proxies, uri: &str) -> Option<String> {
        proxies.of(&uri.parse().unwrap()).unwrap().map(|proxy| proxy.uri().to_string())
    }

    const CLERK: &str = "https://api.clerk.com/v1/users";

    #[test]
    fn scheme_selects_the_proxy_and_empty_counts_as_unset() {
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
            // This CGI variable makes other libraries ignore proxies.
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
    fn common_spellings_of_proxy_urls_are_accepted() {
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
    fn invalid_proxy_names_its_variable_and_is_not_ignored() {
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
                // This machine is still reached directly.
                assert_eq!(of(&proxies, "https://localhost:1/"), None);
            }
        }
        // An invalid proxy does not affect URLs of the other scheme.
        let mixed = proxies(&[("ALL_PROXY", "socks5://x.test"), ("HTTPS_PROXY", "http://a.test:1")]);
        assert_eq!(of(&mixed, CLERK).as_deref(), Some("http://a.test:1/"));
        assert!(mixed.of(&"http://clerk.test/".parse().unwrap()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn invalid_utf8_is_not_ignored() {
        use std::os::unix::ffi::OsStringExt;
        let proxies = Proxies::from_variables(&|name| {
            (name == "HTTPS_PROXY").then(|| OsString::from_vec(b"http://proxy\xff:1".to_vec()))
        });
        assert!(proxies.of(&CLERK.parse().unwrap()).is_err());
    }

    #[test]
    fn this_machine_is_reached_directly_in_every_spelling() {
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
