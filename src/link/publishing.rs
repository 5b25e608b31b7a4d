//! Publishing from the control plane: a publication whose channels are known only to the caller,
//! sent to the home of each channel.
//!
//! Owns no state. The invariant: the format and the options of the channel apply, whoever
//! publishes.

use std::sync::Arc;

use crate::hub::publish::publication_kind;
use crate::link::{Link, Pending, Wake};
use crate::model::message::{DuplicateGuard, Publish};
use crate::model::namespaces::Options;
use crate::model::publication::PublicationExtra;
use crate::wire::protocol::{Error, Position};

/// A publication before its channel is known.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Data of the publication.
    pub data: Box<[u8]>,
    /// Whether the data is JSON text.
    pub is_json: bool,
    /// Tags and version.
    pub extra: Option<Arc<PublicationExtra>>,
    /// Idempotency key and version.
    pub guard: Option<Box<DuplicateGuard>>,
    /// Do not add the publication to the history.
    pub skip_history: bool,
    /// Send a delta to subscribers that negotiated deltas.
    pub delta: bool,
}

/// Sends a publication to the home of a channel that has these options.
///
/// # Errors
/// The channel does not accept the data, or the home has no room.
pub async fn post(
    link: &Link,
    channel: &Arc<str>,
    options: &Options,
    draft: &Draft,
    wake: Wake,
) -> Result<Pending, Error> {
    let kind = publication_kind(options.format, &draft.data, draft.is_json)?;
    let request = |reply_to, hash| Publish {
        channel: channel.clone(),
        hash,
        data: draft.data.clone(),
        kind,
        delta: draft.delta || options.delta_publish,
        extra: draft.extra.clone(),
        retention: options.retention.filter(|_| !draft.skip_history),
        guard: draft.guard.clone(),
        reply_to,
        accepted: link.stamp(),
    };
    Ok(link.publish(channel, request, wake).await?)
}

/// Waits until the home has answered. Returns the position, if the channel has a history.
///
/// # Errors
/// The home refused the publication, or there is no answer.
pub async fn settle(pending: Result<Pending, Error>) -> Result<Option<Position>, Error> {
    pending?.published().await?.outcome
}
