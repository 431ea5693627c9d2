//! Go's names of TLS versions, cipher suites and curves, mapped to rustls.

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::error::Problem;

/// Returns the versions from `min_version` to `max_version`.
pub(super) fn versions(
    min: Option<&str>,
    max: Option<&str>,
) -> Result<Vec<&'static SupportedProtocolVersion>, Problem> {
    let number = |key: &str, name: Option<&str>, default: u8| match name {
        None => Ok(default),
        Some("TLS12") => Ok(2),
        Some("TLS13") => Ok(3),
        Some("TLS10" | "TLS11") => {
            Err(Problem::key(key, "TLS 1.0 and 1.1 are broken and not supported (RFC 8996); write TLS12 or TLS13"))
        }
        Some(_) => Err(Problem::key(key, "write TLS12 or TLS13")),
    };
    let min = number("tls_server_config.min_version", min, 2)?;
    let max = number("tls_server_config.max_version", max, 3)?;
    if min > max {
        return Err(Problem::key("tls_server_config.min_version", "is above max_version"));
    }
    Ok([(2, &TLS12), (3, &TLS13)]
        .into_iter()
        .filter(|(number, _)| (min..=max).contains(number))
        .map(|(_, version)| version)
        .collect())
}

/// Returns the cipher suites of the list, in its order.
///
/// In Go the list applies to TLS 1.2 only. A list without a TLS 1.3 suite therefore keeps all TLS 1.3 suites; a list
/// with one also selects among them.
pub(super) fn cipher_suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, Problem> {
    let mut suites = Vec::with_capacity(names.len());
    for name in names {
        let Some(suite) = ALL_CIPHER_SUITES.iter().find(|suite| go_name(suite) == *name) else {
            let known = ALL_CIPHER_SUITES.iter().map(go_name).collect::<Vec<_>>().join(", ");
            return Err(Problem::key(
                "tls_server_config.cipher_suites",
                format!("{name} is unknown or not safe enough to be supported; choose from {known}"),
            ));
        };
        suites.push(*suite);
    }
    if !suites.iter().any(|suite| suite.tls13().is_some()) {
        suites.extend(ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some()));
    }
    Ok(suites)
}

/// Returns the name in Go's `crypto/tls`, which is IANA's.
fn go_name(suite: &SupportedCipherSuite) -> String {
    // rustls' names differ from IANA's only for TLS 1.3 suites, by their prefix.
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

/// Returns the key exchange groups of the list, in its order.
pub(super) fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, Problem> {
    names
        .iter()
        .map(|name| match name.as_str() {
            "X25519" => Ok(kx_group::X25519),
            "CurveP256" => Ok(kx_group::SECP256R1),
            "CurveP384" => Ok(kx_group::SECP384R1),
            "X25519MLKEM768" => Ok(kx_group::X25519MLKEM768),
            _ => Err(Problem::key(
                "tls_server_config.curve_preferences",
                format!("{name} is not supported; choose from X25519, CurveP256, CurveP384, X25519MLKEM768"),
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::ProtocolVersion;

    fn version_names(min: Option<&str>, max: Option<&str>) -> Result<Vec<ProtocolVersion>, String> {
        let versions = versions(min, max).map_err(|problem| problem.to_string())?;
        Ok(versions.into_iter().map(|version| version.version).collect())
    }

    #[test]
    fn versions_are_a_range_of_safe_ones() {
        use ProtocolVersion::{TLSv1_2, TLSv1_3};
        assert_eq!(version_names(None, None), Ok(vec![TLSv1_2, TLSv1_3]));
        assert_eq!(version_names(Some("TLS13"), None), Ok(vec![TLSv1_3]));
        assert_eq!(version_names(None, Some("TLS12")), Ok(vec![TLSv1_2]));
        for (min, max, expected) in [
            (Some("TLS10"), None, "min_version: TLS 1.0 and 1.1 are broken"),
            (None, Some("TLS11"), "max_version: TLS 1.0 and 1.1 are broken"),
            (Some("tls12"), None, "min_version: write TLS12 or TLS13"),
            (Some("TLS13"), Some("TLS12"), "is above max_version"),
        ] {
            let message = version_names(min, max).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn cipher_suites_are_selected_by_go_name() {
        let names = |list: &[&str]| {
            cipher_suites(&list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
                .map(|suites| suites.iter().map(go_name).collect::<Vec<_>>())
                .map_err(|problem| problem.to_string())
        };
        let chosen = names(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]).unwrap();
        assert_eq!(chosen[0], "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        assert_eq!(chosen.len(), 4, "{chosen:?}");
        let only = names(&["TLS_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]).unwrap();
        assert_eq!(only, ["TLS_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]);
        for refused in ["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "nonsense"] {
            let message = names(&[refused]).unwrap_err();
            assert!(message.contains(refused) && message.contains("TLS_CHACHA20_POLY1305_SHA256"), "{message}");
        }
    }

    #[test]
    fn unsupported_curve_error_lists_the_supported_ones() {
        assert_eq!(curves(&["CurveP256".to_owned(), "X25519".to_owned()]).unwrap().len(), 2);
        let message = curves(&["CurveP521".to_owned()]).unwrap_err().to_string();
        assert!(message.contains("CurveP521 is not supported; choose from X25519"), "{message}");
    }
}
