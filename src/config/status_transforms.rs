//! HTTP statuses of the backend that become an error or a disconnect for the client.
//!
//! Owns the type of a transform and its rules. Never sends a request.

use serde::{Deserialize, Serialize};

use crate::model::backend::ProxyFailure;

/// Maximum length of a message or reason in bytes: a close frame holds no more.
const TEXT_BYTES_MAX: usize = 123;

/// A status of the backend's answer and what the client gets instead of error 100.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusTransform {
    /// HTTP status.
    pub status_code: u16,
    /// Error for the client; code 0: none.
    pub to_error: ErrorTransform,
    /// Disconnect of the client; code 0: none.
    pub to_disconnect: DisconnectTransform,
}

/// The error of a transform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorTransform {
    /// Error code.
    pub code: u32,
    /// Message for people.
    pub message: String,
    /// Whether the client may try again.
    pub temporary: bool,
}

/// The disconnect of a transform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DisconnectTransform {
    /// Close code.
    pub code: u16,
    /// Close reason.
    pub reason: String,
}

impl StatusTransform {
    /// Whether the transform has a status and either an error or a disconnect.
    pub(super) fn is_valid(&self) -> bool {
        let fits = |text: &str| text.is_ascii() && text.len() <= TEXT_BYTES_MAX;
        let (error, disconnect) = (&self.to_error, &self.to_disconnect);
        let one = match (error.code, disconnect.code) {
            (0, code) => (3000..5000).contains(&code),
            (_, code) => code == 0,
        };
        self.status_code != 0 && one && fits(&error.message) && fits(&disconnect.reason)
    }

    /// The failure of a request that the backend answers with the status.
    pub fn failure(&self) -> ProxyFailure {
        let (error, disconnect) = (&self.to_error, &self.to_disconnect);
        match error.code {
            0 => ProxyFailure::Disconnect {
                code: disconnect.code,
                reason: disconnect.reason.as_str().into(),
            },
            code => ProxyFailure::Error {
                code,
                message: error.message.as_str().into(),
                temporary: error.temporary,
            },
        }
    }
}
