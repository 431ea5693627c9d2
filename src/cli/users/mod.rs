//! `users export` and `users get`: many users, within the rate limit.

pub(super) mod args;
mod checkpoint;
mod finished;
mod format;
mod ids;
mod output;
mod progress;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{config_source, report};
use crate::app::{Instances, on_termination, settings};
use crate::config::Config;
use args::{ExportArgs, GetArgs, UsersArgs, UsersCommand};
use clerk_client::clerk::{Clerk, LookupOutcome, MAX_PAGE, UserFilter};
use clerk_quota::Bucket;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::Basis;
use ids::UniqueIds;
use output::{Output, OutputTarget, WriteError};
use progress::ProgressLine;

/// Ids per request.
const IDS_IN_REQUEST: u32 = 100;

/// Ids that are looked up before their users are written: a few parallel requests.
const IDS_AT_ONCE: usize = 4 * IDS_IN_REQUEST as usize;

/// Exit status of `get` when some users do not exist.
const SOME_MISSING: u8 = 3;

/// Exit status when the command line is wrong, as clap has it.
const WRONG_COMMAND_LINE: u8 = 2;

/// Runs the command until it ends or a signal stops it.
pub(super) async fn run(args: &UsersArgs) -> anyhow::Result<ExitCode> {
    let config = config_source(&args.config).load()?;
    let stop = CancellationToken::new();
    let mut signals = JoinSet::new();
    signals.spawn(on_termination(stop.clone()).context("cannot listen for signals")?);
    match &args.command {
        UsersCommand::Export(args) => export(&config, args, stop).await,
        UsersCommand::Get(args) => get(&config, args, stop).await,
    }
}

/// Writes all users, until `stop`.
///
/// # Errors
/// Returns an error if some could not be written.
async fn export(config: &Config, args: &ExportArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let target = &args.target;
    let clerk = client(config, target.instance.as_deref())?;
    // Checked before the first request.
    let plan = OutputTarget::of(target, args.resume)?;
    if let OutputTarget::Finished(path, finished) = plan {
        stop.run_until_cancelled(finished.check(&clerk, &path)).await.context("interrupted")??;
        let path = path.display();
        ProgressLine::hidden()
            .say(&format!("{path}: the export is complete; --force instead of --resume starts again"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut output = match plan {
        OutputTarget::Stdout => Output::open(plan, target.format)?,
        plan => {
            let instance = stop.run_until_cancelled(clerk.instance()).await.context("interrupted")??;
            Output::open_journaled(plan, target.format, &instance.id)?
        }
    };
    let (mut done, cursor) = output.place();
    let progress = if ProgressLine::is_visible(target) {
        let total = stop.run_until_cancelled(total(&clerk)).await.flatten();
        ProgressLine::start(total, done, MAX_PAGE.into(), clerk.outbound())
    } else {
        ProgressLine::hidden()
    };
    let mut pages = clerk.users().list_all().raw();
    if let Some(cursor) = cursor {
        pages = pages.resume_from(cursor);
        stop.run_until_cancelled(settle(&clerk)).await;
    }
    let remedy = || match &target.output {
        Some(output) => format!("; continue with --output {} --resume", output.display()),
        None => String::new(),
    };
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => {
                progress.end();
                bail!("interrupted after {done} users{}", remedy());
            }
            next = pages.try_next() => next,
        };
        let page = next.with_context(|| {
            progress.end();
            format!("stopped after {done} users{}", remedy())
        })?;
        let written = match &page {
            Some(page) => output.write(page.users.iter(), Some(&page.cursor)),
            None => break,
        };
        if let Some(status) = gone(written, &progress)? {
            return Ok(status);
        }
        let users = page.map_or(0, |page| page.users.len() as u64);
        done += users;
        progress.advance(users);
    }
    if let Some(status) = gone(output.finish(), &progress)? {
        return Ok(status);
    }
    progress.end();
    progress.say(&format!("{done} users"));
    Ok(ExitCode::SUCCESS)
}

/// Writes the users with the given ids, until `stop`.
///
/// # Errors
/// Returns an error if an id of the file is invalid or not all could be looked up.
async fn get(config: &Config, args: &GetArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let target = &args.target;
    let clerk = client(config, target.instance.as_deref())?;
    let plan = OutputTarget::of(target, false)?;
    let users_of = clerk.users();
    let is_valid = |id: &str| users_of.lookup([id]).map(drop);
    let mut ids = UniqueIds::default();
    if let Err(error) = ids.extend(ids::of_arguments(&args.ids), is_valid) {
        report(&error);
        return Ok(ExitCode::from(WRONG_COMMAND_LINE));
    }
    if let Some(path) = &args.ids_file {
        ids.extend(ids::of_file(path)?, is_valid)?;
    }
    let ids = ids.into_vec();
    let mut output = Output::open(plan, target.format)?;
    let progress = if ProgressLine::is_visible(target) {
        ProgressLine::start(Some(ids.len() as u64), 0, IDS_IN_REQUEST, clerk.outbound())
    } else {
        ProgressLine::hidden()
    };
    let (mut written, mut missing) = (0, 0);
    for ids in ids.chunks(IDS_AT_ONCE) {
        let found = tokio::select! {
            biased;
            () = stop.cancelled() => {
                progress.end();
                bail!("interrupted after {written} users");
            }
            found = users_of.get_many_raw(ids) => found,
        };
        let found = found.with_context(|| {
            progress.end();
            format!("stopped after {written} users")
        })?;
        let mut users = Vec::with_capacity(found.len());
        for found in found {
            match found.outcome {
                LookupOutcome::User(user) => users.push(*user),
                LookupOutcome::Missing => progress.say(&format!("{}: no such user", found.id)),
                LookupOutcome::Refused(error) => progress.say(&format!("{}: {error}", found.id)),
            }
        }
        if let Some(status) = gone(output.write(users.iter(), None), &progress)? {
            return Ok(status);
        }
        written += users.len();
        missing += ids.len() - users.len();
        progress.advance(ids.len() as u64);
    }
    if let Some(status) = gone(output.finish(), &progress)? {
        return Ok(status);
    }
    progress.end();
    progress.say(&format!("{written} users, {missing} missing"));
    Ok(if missing > 0 { ExitCode::from(SOME_MISSING) } else { ExitCode::SUCCESS })
}

/// The exit status if the reader closed the pipe, which is not a failure.
fn gone(written: Result<(), WriteError>, progress: &ProgressLine) -> anyhow::Result<Option<ExitCode>> {
    if written.is_err() {
        progress.end();
    }
    match written {
        Ok(()) => Ok(None),
        Err(WriteError::ReaderGone) => Ok(Some(ExitCode::SUCCESS)),
        Err(WriteError::Other(error)) => Err(error),
    }
}

/// Number of users, for progress only.
async fn total(clerk: &Clerk) -> Option<u64> {
    clerk.users().count(&UserFilter::default()).await.ok().map(|count| count.total_count)
}

/// Waits a window, since an earlier run may have used the quota. Only quota headers show that, and not every instance
/// gets them.
async fn settle(clerk: &Clerk) {
    let outbound = clerk.outbound();
    let now = outbound.clock.now();
    let snapshot = outbound.ledger.lock().snapshot(now);
    if let Some(bucket) = snapshot.bucket(Bucket::Instance).filter(|bucket| bucket.basis != Some(Basis::Headers)) {
        tracing::info!(
            window_seconds = bucket.window.as_secs(),
            "waiting for a window, since an earlier run may have used it"
        );
        tokio::time::sleep(bucket.window).await;
    }
}

/// A low-priority client of the chosen instance.
fn client(config: &Config, name: Option<&str>) -> anyhow::Result<Clerk> {
    let names = || config.instances.iter().map(|instance| &*instance.name).collect::<Vec<_>>().join(", ");
    let instance = match (name, &*config.instances) {
        (Some(name), all) => all
            .iter()
            .find(|instance| &*instance.name == name)
            .with_context(|| format!("--instance: the configuration has no such instance, but {}", names()))?,
        (None, [only]) => only,
        (None, _) => bail!("the configuration has several instances: choose one with --instance: {}", names()),
    };
    let config = Config { instances: vec![instance.clone()], ..config.clone() };
    let ledger = Ledger::new([settings(instance, config.low_threshold)]);
    let mut probes = Instances::new(Arc::new(Clock::new())).probes(&config, &ledger)?;
    let probe = probes.pop().context("the instance has no transport")?;
    Ok(Clerk::with_transport(probe.outbound).low_priority())
}
