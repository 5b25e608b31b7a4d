//! Codes of refused connects that become HTTP responses.
//!
//! Owns the type of a transform and its rules. Never writes a response.

use serde::{Deserialize, Serialize};

use crate::hub::ConnectRefusalResponse;

/// Statuses of a final response.
const FINAL: std::ops::Range<u16> = 200..600;

/// A code of a refused connect and the response to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResponseTransform {
    /// Code of the error or of the disconnect.
    pub code: u32,
    /// The response.
    pub to: Response,
}

/// The response of a transform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Response {
    /// HTTP status.
    pub status_code: u16,
    /// Body; empty: the message of the error or the reason of the disconnect.
    pub body: String,
}

impl ResponseTransform {
    /// Whether the transform has a code and the status of a final response.
    pub(super) fn is_valid(&self) -> bool {
        self.code != 0 && FINAL.contains(&self.to.status_code)
    }

    /// The transform as the data plane needs it.
    pub(super) fn response(&self) -> ConnectRefusalResponse {
        let Response { status_code: status, body } = &self.to;
        ConnectRefusalResponse { code: self.code, status: *status, body: body.as_str().into() }
    }
}
