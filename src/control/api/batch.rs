//! Several commands in one request.
//!
//! Owns nothing. Carries out nothing unless all commands can be read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::methods::Command;
use super::node::Api;
use super::reading::{raw_text, read_object};
use super::reply::{ApiError, RequestError};
use super::schema::{BatchCommand, BatchReply};

/// Commands of one batch.
pub(super) const BATCH_MAX: usize = 10_000;

/// Several commands in one request.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Batch {
    /// Each under its method's name.
    #[schemars(with = "Option<Vec<BatchCommand>>", length(max = BATCH_MAX))]
    commands: Option<Vec<BTreeMap<String, Box<RawValue>>>>,
    /// Whether they are carried out at the same time rather than one behind the other.
    parallel: Option<bool>,
}

/// The answers to a batch, in the order of its commands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct BatchResult {
    /// Each result under its method's name, or an error.
    #[schemars(with = "Vec<BatchReply>")]
    replies: Vec<BTreeMap<String, Box<RawValue>>>,
}

/// A command of a batch under its method's name, or why there is none.
pub(super) type BatchedCommand = (String, Result<Command, ApiError>);

/// The commands of a batch, and whether they are carried out in parallel.
pub(super) fn read_batch(body: &[u8]) -> Result<(Vec<BatchedCommand>, bool), RequestError> {
    let Batch { commands, parallel } = read_object(body)?;
    let commands = commands.unwrap_or_default();
    if commands.len() > BATCH_MAX {
        let cause = format!("more than {BATCH_MAX} commands: send them in parts");
        return Err(serde_json::Error::custom(cause).into());
    }
    let commands = commands.into_iter().map(only_one).collect::<Result<_, _>>()?;
    Ok((commands, parallel.unwrap_or_default()))
}

/// The one command that an object of a batch holds, and its method. What is known must be read;
/// what is unknown is told in its place.
pub(super) fn only_one(
    commands: BTreeMap<String, Box<RawValue>>,
) -> Result<BatchedCommand, RequestError> {
    let mut known = Vec::new();
    for (method, params) in commands {
        match Command::read(&method, params.get().as_bytes()) {
            Ok(command) => known.push((method, Ok(command))),
            Err(RequestError::Unknown) => {}
            Err(malformed) => return Err(malformed),
        }
    }
    let unnamed = |error| (String::new(), Err(error));
    Ok(match known.len() {
        0 => unnamed(ApiError::NOT_FOUND),
        1 => known.remove(0),
        _ => unnamed(ApiError::bad_request()),
    })
}

/// Whether a body is a request of `method`: what the fuzzers ask.
pub fn reads(method: &str, body: &[u8]) -> bool {
    match method {
        "batch" => read_batch(body).is_ok(),
        _ => Command::read(method, body).is_ok(),
    }
}

impl Api {
    /// Carries several out, in order or at the same time; none unless all can be read.
    pub(super) async fn batch(&self, body: &[u8]) -> Result<BatchResult, RequestError> {
        let (commands, parallel) = read_batch(body)?;
        let one = async |(method, command): BatchedCommand| {
            let result = match command {
                Ok(command) => self.run(command).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(result) => BTreeMap::from([(method, result)]),
                Err(error) => BTreeMap::from([("error".to_owned(), raw_text(&error))]),
            }
        };
        if parallel {
            let replies = futures_util::future::join_all(commands.into_iter().map(one)).await;
            return Ok(BatchResult { replies });
        }
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            replies.push(one(command).await);
        }
        Ok(BatchResult { replies })
    }
}
