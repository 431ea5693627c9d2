//! Flags of `test`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::bounds::RouteBound;
use clerk_simulator::{HeaderProfile, LimitOverride, LimiterKind, Plan};

/// Flags of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Most requests that the command may send; above, the exit status is 1
    #[arg(long = "max-requests", value_name = "N", help_heading = "Bounds")]
    pub(crate) max_requests: Option<u64>,

    /// Most requests of one route, such as 'GET /v1/users/{user_id}=3'; may be given several times
    #[arg(long = "max-per-route", value_name = "ROUTE=N", help_heading = "Bounds")]
    pub(crate) max_per_route: Vec<RouteBound>,

    /// Number of users
    #[arg(long, value_name = "N", default_value = "1000", help_heading = "Simulator")]
    pub(crate) users: u32,

    /// Number of organizations
    #[arg(long, value_name = "N", default_value = "20", help_heading = "Simulator")]
    pub(crate) organizations: u32,

    /// Seed of all data: the same seed gives the same users
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Simulator")]
    pub(crate) seed: u64,

    /// How requests are counted, as in simulate
    #[arg(long, value_name = "KIND", default_value = "fixed", help_heading = "Simulator")]
    pub(crate) limiter: LimiterKind,

    /// Quota headers of responses, as in simulate
    #[arg(long, value_name = "PROFILE", default_value = "none", help_heading = "Simulator")]
    pub(crate) headers: HeaderProfile,

    /// Limit of the instance: free, pro, development or production
    #[arg(long, value_name = "PLAN", default_value = "development", help_heading = "Simulator")]
    pub(crate) plan: Plan,

    /// Limit of a bucket, such as instance=50/10s; may be given several times
    #[arg(long = "limit", value_name = "BUCKET=QUOTA", help_heading = "Simulator")]
    pub(crate) limits: Vec<LimitOverride>,

    /// Format of the report
    #[arg(long, value_name = "FORMAT", default_value = "table", help_heading = "Report")]
    pub(crate) format: ReportFormat,

    /// File for the report, instead of standard error
    #[arg(long, value_name = "PATH", help_heading = "Report")]
    pub(crate) output: Option<PathBuf>,

    /// The command that runs the tests, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

impl TestArgs {
    pub(super) fn options(&self) -> clerk_simulator::Options {
        clerk_simulator::Options::default()
            .users(self.users)
            .organizations(self.organizations)
            .seed(self.seed)
            .limiter(self.limiter)
            .headers(self.headers)
            .plan(self.plan)
            .limits(self.limits.clone())
    }
}
