//! Flags of `simulate`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::LogFlags;
use clerk_simulator::{HeaderProfile, KeyGrant, LimitOverride, LimiterKind, Plan};

/// Flags of `simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Address to listen on
    #[arg(long = "listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:10431")]
    pub(crate) listen_address: SocketAddr,

    /// How requests are counted: fixed, fixed-from-first, sliding, sliding-counter, token-bucket or token-bucket:BURST
    #[arg(long, value_name = "KIND", default_value = "fixed")]
    pub(crate) limiter: LimiterKind,

    /// Quota headers of responses: none (as Clerk's responses have), x-ratelimit, x-ratelimit-epoch or ietf
    #[arg(long, value_name = "PROFILE", default_value = "none")]
    pub(crate) headers: HeaderProfile,

    /// Limit of the instance: free, pro, development or production; by default that of the key's prefix
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Option<Plan>,

    /// Limit of a bucket, such as instance=50/10s; may be given several times
    #[arg(long = "limit", value_name = "BUCKET=QUOTA")]
    pub(crate) limits: Vec<LimitOverride>,

    /// Number of users
    #[arg(long, value_name = "N", default_value = "50000")]
    pub(crate) users: u32,

    /// Number of organizations
    #[arg(long, value_name = "N", default_value = "20")]
    pub(crate) organizations: u32,

    /// Seed of all data: the same seed gives the same users
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,

    /// File with the accepted keys, one per line, KEY or INSTANCE=KEY; by default any well-formed key is accepted
    #[arg(long = "keys-file", value_name = "PATH")]
    pub(crate) keys_file: Option<PathBuf>,

    /// Webhooks of changes.
    #[command(flatten)]
    pub(crate) webhooks: WebhookFlags,

    /// The log.
    #[command(flatten)]
    pub(crate) log: LogFlags,
}

/// Webhooks of changes.
#[derive(Debug, Args)]
pub(crate) struct WebhookFlags {
    /// Endpoint that gets a signed webhook for each change, as from Clerk
    #[arg(long = "webhook-url", value_name = "URL", help_heading = "Webhooks")]
    pub(crate) url: Option<String>,

    /// File with the secret that signs webhooks, whsec_...; by default CLERK_WEBHOOK_SIGNING_SECRET
    #[arg(long = "webhook-secret-file", value_name = "PATH", help_heading = "Webhooks")]
    pub(crate) secret_file: Option<PathBuf>,

    /// The secret itself, for made-up ones only: other users of the machine can read it
    #[arg(long = "webhook-secret", value_name = "SECRET", conflicts_with = "secret_file", hide_env_values = true)]
    #[arg(help_heading = "Webhooks")]
    pub(crate) secret: Option<String>,
}

impl SimulateArgs {
    pub(super) fn options(&self, keys: Vec<KeyGrant>) -> clerk_simulator::Options {
        clerk_simulator::Options::default()
            .users(self.users)
            .organizations(self.organizations)
            .seed(self.seed)
            .limiter(self.limiter)
            .headers(self.headers)
            .plan(self.plan)
            .limits(self.limits.clone())
            .keys(keys)
    }
}
