//! The keys of the Redis that several processes share. They may stand at the top of the file, or in `gateway.cache`.

use super::error::Position;
use super::file::Context;
use super::model::{RedisConfig, RedisPasswordConfig};
use super::reader::{Field, Report, Section};
use super::validate;
use clerk_client::redis::{DEFAULT_PREFIX, RedisClient};
use clerk_client::secret::SecretSource;

/// Most words of a command, and the longest.
const MAX_WORDS: usize = 100;
const MAX_WORD_LENGTH: usize = 4096;
/// It is part of every key.
const MAX_PREFIX_LENGTH: usize = 128;

/// What was read, with the name and the position of the URL's key.
pub(super) struct ReadRedis {
    /// `None` if a problem was reported.
    config: Option<RedisConfig>,
    path: String,
    place: Position,
}

/// Reads the keys from a section that has them.
pub(super) fn take(section: &mut Section, context: &Context<'_>, report: &mut Report) -> Option<ReadRedis> {
    let url = section.take("redis_url_file");
    let file = section.take("redis_password_file");
    let command = section.take("redis_password_command");
    let prefix = section.take("redis_prefix");
    let Some(field) = url else {
        for field in file.iter().chain(&command).chain(&prefix) {
            let message = "no effect without a `redis_url_file` in the same section; move it there";
            report.problem(Some(field.place()), &field.path, message);
        }
        return None;
    };
    if let (Some(file), Some(command)) = (&file, &command) {
        let message = format!("`{}` says where the password is already; remove one of them", file.path);
        report.problem(Some(command.place()), &command.path, message);
    }
    let is_complete = |read: Option<Option<RedisPasswordConfig>>| match read {
        Some(None) => None,
        Some(Some(password)) => Some(Some(password)),
        None => Some(None),
    };
    let file = file.map(|field| Some(RedisPasswordConfig::File(readable(&field, context, report)?)));
    let command = command.map(|field| words(field, report).map(RedisPasswordConfig::Command));
    let url = secret_file(&field, context, report);
    let prefix = match prefix {
        Some(field) => field.check_text(report, prefix_text),
        None => Some(DEFAULT_PREFIX.to_owned()),
    };
    let config = is_complete(file.or(command)).and_then(|password| {
        let config = RedisConfig { url: url?, password, prefix: prefix? };
        field.check(report, |_| usable(&config))?;
        Some(config)
    });
    Some(ReadRedis { config, path: field.path, place: field.node.place })
}

/// The one of both places that is used.
pub(super) fn only(top: Option<ReadRedis>, cache: Option<ReadRedis>, report: &mut Report) -> Option<RedisConfig> {
    if let (Some(top), Some(cache)) = (&top, &cache) {
        let message = format!("the process has one Redis, and `{}` names it already; remove one of them", top.path);
        report.problem(Some(cache.place), &cache.path, message);
    }
    top.or(cache).and_then(|read| read.config)
}

fn secret_file(field: &Field, context: &Context<'_>, report: &mut Report) -> Option<SecretSource> {
    field.check_text(report, |text| validate::secret_file(text).map(|()| SecretSource::File(context.path(text))))
}

fn readable(field: &Field, context: &Context<'_>, report: &mut Report) -> Option<SecretSource> {
    let file = secret_file(field, context, report)?;
    field.check(report, |_| file.read().map(drop).map_err(|error| error.to_string()))?;
    Some(file)
}

fn words(field: Field, report: &mut Report) -> Option<Vec<String>> {
    let (path, place) = (field.path.clone(), field.place());
    let words = field.into_list(report)?;
    if !(1..=MAX_WORDS).contains(&words.len()) {
        let message =
            format!("a list of {} words; write a program and its arguments, at most {MAX_WORDS}", words.len());
        report.problem(Some(place), &path, message);
        return None;
    }
    let word = |(index, field): (usize, Field)| {
        field.check_text(report, |text| match text {
            "" if index == 0 => Err("empty; write the program to run".to_owned()),
            _ if text.len() > MAX_WORD_LENGTH => {
                Err(format!("longer than {MAX_WORD_LENGTH} bytes; write a shorter one"))
            }
            _ if text.contains('\0') => Err("contains a NUL; remove it".to_owned()),
            _ => Ok(text.to_owned()),
        })
    };
    // All of them are checked, so that all problems are found.
    let words: Vec<_> = words.into_iter().enumerate().map(word).collect();
    words.into_iter().collect()
}

fn prefix_text(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{');
    if is_plain && (1..=MAX_PREFIX_LENGTH).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "not 1 to {MAX_PREFIX_LENGTH} printable characters without spaces and `{{`; write one such as `clerk-exporter:team-a:`"
    ))
}

fn usable(config: &RedisConfig) -> Result<(), String> {
    let options = config.options().map_err(|error| error.to_string())?;
    RedisClient::new(options).map(drop).map_err(|error| error.to_string())
}
