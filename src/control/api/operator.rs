//! API commands that the admin page runs.
//!
//! Owns no state. The invariant: only the methods in the list can be called.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::methods::Command;
use super::node::{Api, NodeState};
use super::reply::{ApiError, RequestError};
use crate::config::Config;
use crate::link::Link;

/// Methods that the admin page calls.
const METHODS: [&str; 5] = ["publish", "disconnect", "presence", "presence_stats", "history"];

/// The API of a node for its admin page, without a key.
pub struct Operator(Api);

/// Why a call of the admin page failed: the code of the API, and a text.
pub type CallFailure = (u32, String);

impl Operator {
    /// The API of the node that `link` leads to.
    pub fn new(config: &Arc<Config>, link: &Arc<Link>, node: &Arc<NodeState>) -> Self {
        Operator(Api::new(config, link, node, node.calls().clone()))
    }

    /// Name of the node.
    pub fn node_name(&self) -> &str {
        &self.0.name
    }

    /// Runs a method with this request; returns its result.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &str,
    ) -> Result<T, CallFailure> {
        let command = match Command::read(method, request.as_bytes()) {
            Ok(command) if METHODS.contains(&method) => command,
            Err(RequestError::Malformed(cause)) => {
                return Err((ApiError::bad_request().parts().0, format!("bad request: {cause}")));
            }
            _ => return Err((ApiError::NOT_FOUND.parts().0, format!("no method {method}"))),
        };
        let told = |error: ApiError| {
            let (code, message) = error.parts();
            (code, message.to_owned())
        };
        let result = self.0.run(command).await.map_err(told)?;
        serde_json::from_str(result.get()).map_err(|error| (100, error.to_string()))
    }
}
