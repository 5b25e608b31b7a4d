//! API commands that feeds run: the methods that Centrifugo's consumers run.
//!
//! Owns no state. The invariant: commands that publish become publications of the feed, so its
//! order, its repetitions and its idempotency keys apply to them.

use std::sync::Arc;

use super::methods::Command;
use super::node::{Api, NodeState};
use super::publish::{Broadcast, Publish};
use super::reading::read_object;
use super::reply::{ApiError, RequestError};
use crate::config::Config;
use crate::control::metrics::api_calls::ApiCalls;
use crate::feeds::decode::{CommandResult, Commands, Work};
use crate::feeds::message::Refusal;
use crate::link::Link;

/// Methods that do not publish.
static METHODS: [&str; 5] = ["subscribe", "unsubscribe", "disconnect", "history_remove", "refresh"];

/// The API commands of a node, for its feeds.
pub fn feed_commands(
    config: &Arc<Config>,
    link: &Arc<Link>,
    node: &Arc<NodeState>,
) -> Arc<dyn Commands> {
    Arc::new(Api::new(config, link, node, Arc::new(ApiCalls::new(&METHODS))))
}

fn unreadable(method: &str, refused: &RequestError) -> Refusal {
    match refused {
        RequestError::Unknown => Refusal::unreadable(format!("there is no method {method:?}")),
        RequestError::Malformed(cause) => {
            Refusal::unreadable(format!("invalid request of the method {method}: {cause}"))
        }
    }
}

fn refused(error: ApiError) -> Refusal {
    let (code, message) = error.parts();
    Refusal::of_code(code, format!("error {code} ({message})"))
}

/// Reads a command that does not publish.
fn read(method: &str, request: &[u8]) -> Result<Command, Refusal> {
    let command = Command::read(method, request).map_err(|cause| unreadable(method, &cause))?;
    match &command {
        // Its error 100 would be repeated for ever.
        Command::Subscribe(request) if request.has_expired() => {
            Err(Refusal::unreadable("subscribe: expire_at is in the past"))
        }
        _ => Ok(command),
    }
}

impl Commands for Api {
    fn read(&self, method: &str, request: &[u8]) -> Result<Work, Refusal> {
        let malformed = |cause: serde_json::Error| unreadable(method, &cause.into());
        let max = self.config.client.queue_max_size;
        match method {
            "publish" => {
                let request: Publish = read_object(request).map_err(malformed)?;
                let (channel, draft) = request.split(max).map_err(refused)?;
                Ok(Work::Publish { channels: vec![channel], draft })
            }
            "broadcast" => {
                let request: Broadcast = read_object(request).map_err(malformed)?;
                let (channels, draft) = request.split(max).map_err(refused)?;
                if channels.is_empty() {
                    return Err(refused(ApiError::bad_request()));
                }
                Ok(Work::Publish { channels, draft })
            }
            _ if METHODS.contains(&method) => {
                read(method, request)?;
                Ok(Work::Command { method: method.to_owned(), request: request.to_vec() })
            }
            _ => Err(Refusal::unreadable(format!("consumers cannot run the method {method:?}"))),
        }
    }

    fn run<'a>(&'a self, method: &'a str, request: &'a [u8]) -> CommandResult<'a> {
        Box::pin(
            async move { Api::run(self, read(method, request)?).await.map(drop).map_err(refused) },
        )
    }
}
