//! `users export` and `users get`: many users, paced, without a 429 of our own doing.

pub(super) mod args;
mod checkpoint;
mod finished;
mod format;
mod output;
mod progress;

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

use crate::app::{Instances, settings};
use crate::config::Config;
use args::{ExportArgs, GetArgs};
use clerk_client::clerk::{Clerk, LookupOutcome, MAX_PAGE, UserFilter};
use clerk_quota::Bucket;
use clerk_quota::clock::Clock;
use clerk_quota::ledger::Ledger;
use clerk_quota::snapshot::Basis;
use output::{Output, OutputTarget, WriteError};
use progress::ProgressLine;

/// Ids that a request asks for.
const IDS_IN_REQUEST: u32 = 100;

/// Ids that are looked up before their users are written: a few requests at once.
const IDS_AT_ONCE: usize = 4 * IDS_IN_REQUEST as usize;

/// Exit status of `get` when it was done and some users do not exist.
const SOME_MISSING: u8 = 3;

/// Writes all users, until `stop`.
///
/// # Errors
/// When not all could be written.
pub(super) async fn export(config: &Config, args: &ExportArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let target = &args.target;
    let clerk = client(config, target.instance.as_deref())?;
    // What cannot end well is refused before Clerk is asked.
    let plan = OutputTarget::of(target, args.resume)?;
    if let OutputTarget::Finished(path, finished) = plan {
        stop.run_until_cancelled(finished.check(&clerk, &path)).await.context("interrupted")??;
        let path = path.display();
        ProgressLine::hidden().say(&format!("{path}: the export is complete; --force instead of --resume begins anew"));
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
    let how_to_go_on = || match &target.output {
        Some(output) => format!("; --output {} --resume goes on there", output.display()),
        None => String::new(),
    };
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => {
                progress.end();
                bail!("interrupted after {done} users{}", how_to_go_on());
            }
            next = pages.try_next() => next,
        };
        let page = next.with_context(|| {
            progress.end();
            format!("stopped after {done} users{}", how_to_go_on())
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

/// Writes the users whose ids are in a file, until `stop`.
///
/// # Errors
/// When it cannot be done.
pub(super) async fn get(config: &Config, args: &GetArgs, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let target = &args.target;
    let clerk = client(config, target.instance.as_deref())?;
    let plan = OutputTarget::of(target, false)?;
    let ids = read_ids(&clerk, &args.ids_file)?;
    let mut output = Output::open(plan, target.format)?;
    let progress = if ProgressLine::is_visible(target) {
        ProgressLine::start(Some(ids.len() as u64), 0, IDS_IN_REQUEST, clerk.outbound())
    } else {
        ProgressLine::hidden()
    };
    let (mut written, mut missing) = (0, 0);
    let users_of = clerk.users();
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
                LookupOutcome::Missing => progress.say(&format!("{}: there is no such user", found.id)),
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

/// The status to end with if the reader has gone away, which is no failure: it has what it wanted.
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

/// How many users there are. Not knowing it is no reason not to begin.
async fn total(clerk: &Clerk) -> Option<u64> {
    clerk.users().count(&UserFilter::default()).await.ok().map(|count| count.total_count)
}

/// Waits until Clerk has forgotten what an earlier run used a moment ago. Our own record does not hold it; Clerk's headers
/// tell of it, but not every instance gets any.
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

/// A client for bulk work of the instance that is meant.
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
    let mut ways = Instances::new(Arc::new(Clock::new())).probes(&config, &ledger)?;
    let way = ways.pop().context("the instance has no way to Clerk")?;
    Ok(Clerk::with_transport(way.outbound).low_priority())
}

/// The ids of a file in their order, each once.
fn read_ids(clerk: &Clerk, path: &Path) -> anyhow::Result<Vec<String>> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("standard input")?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("--ids-file {}", path.display()))?
    };
    let (mut known, mut ids) = (HashSet::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let id = line.trim();
        if id.is_empty() || id.starts_with('#') {
            continue;
        }
        clerk.users().lookup([id]).with_context(|| format!("{}:{}", path.display(), index + 1))?;
        if known.insert(id) {
            ids.push(id.to_owned());
        }
    }
    Ok(ids)
}
