//! The method `batch`: several commands in one request.
//!
//! Owns no state. Runs no command unless every command can be read.

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

/// Maximum number of commands per batch.
pub(super) const BATCH_MAX: usize = 10_000;

/// Several commands in one request. If a command cannot be read, none is run.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Batch {
    /// Commands, each an object whose property name is the method.
    #[schemars(with = "Option<Vec<BatchCommand>>", length(max = BATCH_MAX))]
    commands: Option<Vec<Option<Fields>>>,
    /// Run the commands concurrently, instead of one after the other.
    parallel: Option<bool>,
}

/// Replies to a batch.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct BatchResult {
    /// One reply per command, in the order of the commands.
    #[schemars(with = "Vec<BatchReply>")]
    replies: Vec<BTreeMap<String, Box<RawValue>>>,
}

/// An object of a batch: requests by method.
type Fields = BTreeMap<String, Option<Box<RawValue>>>;

/// Method and command, or the error that is the command's reply.
pub(super) type BatchedCommand = (String, Result<Command, ApiError>);

/// Reads a batch: its commands, and whether they run concurrently.
pub(super) fn read_batch(body: &[u8]) -> Result<(Vec<BatchedCommand>, bool), RequestError> {
    let Batch { commands, parallel } = read_object(body)?;
    let commands = commands.unwrap_or_default();
    if commands.len() > BATCH_MAX {
        let cause = format!("more than {BATCH_MAX} commands; split the batch");
        return Err(serde_json::Error::custom(cause).into());
    }
    let commands = commands.into_iter().map(only_command).collect::<Result<_, _>>()?;
    Ok((commands, parallel.unwrap_or_default()))
}

/// The command of an object of a batch, and its method. A known method with an unreadable request
/// is an error of the whole batch; null, or an object without a known method, is an error in its
/// reply.
fn only_command(commands: Option<Fields>) -> Result<BatchedCommand, RequestError> {
    let unnamed = |error| (String::new(), Err(error));
    let Some(commands) = commands else { return Ok(unnamed(ApiError::bad_request())) };
    let mut known = Vec::new();
    for (method, params) in commands {
        let Some(params) = params else { continue };
        match Command::read(&method, params.get().as_bytes()) {
            Ok(command) => known.push((method, Ok(command))),
            Err(RequestError::Unknown) => {}
            Err(malformed) => return Err(malformed),
        }
    }
    Ok(match known.len() {
        0 => unnamed(ApiError::NOT_FOUND),
        1 => known.remove(0),
        _ => unnamed(ApiError::bad_request()),
    })
}

/// Whether a body is a valid request of `method`. The fuzzers call it.
pub fn reads(method: &str, body: &[u8]) -> bool {
    match method {
        "batch" => read_batch(body).is_ok(),
        _ => Command::read(method, body).is_ok(),
    }
}

impl Api {
    /// Runs a batch, one command after the other or concurrently.
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
