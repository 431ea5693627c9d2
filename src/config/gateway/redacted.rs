//! The section as text. Names of files are shown, what is in them is not.

use std::fmt::{self, Write};

use super::super::redacted::{quoted, quoted_path};
use super::model::{GatewayConfig, PolicyConfig, UnknownKeyMode};
use clerk_client::limiter::Priority;
use clerk_client::secret::{REDACTED, SecretSource};

pub(in super::super) fn write(out: &mut String, gateway: &GatewayConfig) -> fmt::Result {
    writeln!(out, "gateway:\n  listen_address: {}", quoted(&gateway.listen.to_string()))?;
    match &gateway.web_config_file {
        Some(path) => writeln!(out, "  web_config_file: {}", quoted_path(path))?,
        None if !gateway.listen.is_local() => writeln!(out, "  allow_clear_text: true")?,
        None => {}
    }
    let unknown_keys = match gateway.unknown_keys {
        UnknownKeyMode::Forward => "forward",
        UnknownKeyMode::Reject => "reject",
    };
    writeln!(out, "  unknown_keys: {unknown_keys}")?;
    writeln!(out, "  upstream_http2: {}", gateway.upstream_http2)?;
    writeln!(out, "  sole: {}", gateway.sole)?;
    writeln!(out, "  max_wait: {}", humantime::format_duration(gateway.max_wait))?;
    writeln!(out, "  max_in_flight: {}", gateway.max_in_flight)?;
    if !gateway.callers.is_empty() {
        writeln!(out, "  callers:")?;
    }
    for caller in &gateway.callers {
        writeln!(out, "    - name: {}", quoted(&caller.name))?;
        writeln!(out, "      token_file: {}", file(&caller.token))?;
        writeln!(out, "      instance: {}", quoted(&caller.instance))?;
        let priority = match caller.priority {
            Priority::High => "high",
            Priority::Low => "low",
        };
        writeln!(out, "      priority: {priority}")?;
    }
    writeln!(out, "  policies:")?;
    write_policies(out, &gateway.policies, "    ", true)?;
    if !gateway.routes.is_empty() {
        writeln!(out, "    routes:")?;
    }
    for ((method, template), policies) in &gateway.routes {
        writeln!(out, "      {}:", quoted(&format!("{method} {template}")))?;
        write_policies(out, policies, "        ", *method == "GET")?;
    }
    writeln!(out, "  cache:\n    memory: {}", size(gateway.cache.memory_bytes))?;
    if let Some(source) = &gateway.cache.redis_url {
        writeln!(out, "    redis_url_file: {}", file(source))?;
    }
    if let Some(source) = &gateway.cache.encryption_key {
        writeln!(out, "    encryption_key_file: {}", file(source))?;
    }
    if let Some(webhooks) = &gateway.webhooks {
        writeln!(out, "  webhooks:\n    path: {}", quoted(&webhooks.path))?;
        let files: Vec<_> = webhooks.signing_secrets.iter().map(file).collect();
        writeln!(out, "    signing_secret_files: [{}]", files.join(", "))?;
    }
    Ok(())
}

fn write_policies(out: &mut String, policies: &PolicyConfig, indent: &str, reads: bool) -> fmt::Result {
    writeln!(out, "{indent}retry: {}", policies.retry.as_str())?;
    if reads {
        writeln!(out, "{indent}coalesce: {}", policies.coalesce.as_str())?;
        let ttl = humantime::format_duration(policies.cache.ttl);
        writeln!(out, "{indent}cache: {{ mode: {}, ttl: {ttl} }}", policies.cache.mode.as_str())?;
        writeln!(out, "{indent}batch: {}", policies.batch.as_str())?;
    }
    let pace = policies.pace;
    writeln!(out, "{indent}pace: {{ mode: {}, reserve: {} }}", pace.mode.as_str(), pace.reserve)
}

/// The largest unit that loses nothing.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(factor, _)| bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(factor, unit)| format!("{}{unit}", bytes / factor))
}

fn file(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => quoted_path(path),
        SecretSource::Env(_) | SecretSource::Inline(_) => quoted(REDACTED),
    }
}
