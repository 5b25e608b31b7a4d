//! Publishing: what a client's publish command does, and how a publication goes to its channel's
//! home.

use std::sync::Arc;

use crate::hub::command_failure::{CommandFailure, InboxFull};
use crate::hub::shard_state::Hub;
use crate::model::backend::{ProxyAnswer, PublishAnswer};
use crate::model::message::{DuplicateGuard, LookupOutcome, Message, Post, Publish, Rank, ReplyTo};
use crate::model::namespaces::{Options, PublicationFormat};
use crate::model::publication::{PublicationExtra, PublicationKind};
use crate::wire::protocol::command::PublishRequest;
use crate::wire::protocol::reply::Reply;
use crate::wire::protocol::{Disconnect, Error, Wire, json};

/// Type of a publication that sets a key of a map, which this server does not have.
const MAP: i32 = 1;

/// Options that only few publications have.
#[derive(Debug, Default)]
pub(super) struct PublishOptions {
    /// Keep the publication out of the history.
    pub(super) skip_history: bool,
    /// Send the publication as a delta where possible.
    pub(super) delta: bool,
    /// Idempotency key and version.
    pub(super) guard: Option<Box<DuplicateGuard>>,
}

impl From<&PublishAnswer> for PublishOptions {
    fn from(permission: &PublishAnswer) -> Self {
        let PublishAnswer { idempotency_key, version, version_epoch, .. } = permission;
        let guard = DuplicateGuard {
            key: idempotency_key.clone(),
            version: *version,
            version_epoch: version_epoch.clone(),
        };
        PublishOptions {
            skip_history: permission.skip_history,
            delta: permission.delta,
            guard: (guard != DuplicateGuard::default()).then(|| Box::new(guard)),
        }
    }
}

impl Hub {
    pub(super) fn publish(
        &mut self,
        post: &mut impl Post,
        slot: u32,
        command: u32,
        request: &PublishRequest<'_>,
    ) -> Result<(), CommandFailure> {
        let channel = &*request.channel;
        if channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let Some(data) = &request.data else { return Err(Error::BAD_REQUEST.into()) };
        let settings = self.settings.clone();
        let options = settings.namespaces.of_client(channel)?;
        if request.kind == MAP {
            return Err(Error::PERMISSION_DENIED.into());
        }
        let hash = self.names.hash(channel);
        let subscription = self.find_subscription(slot, hash, channel)?;
        let wire = self.connections[slot].wire;
        let is_json = |data: &[u8]| json::is_json(data);
        let mut kind = publication_kind(options.format, data, wire == Wire::Json || is_json(data))?;
        let (mut data, mut tags, mut publish_options) =
            (&**data, Box::default(), PublishOptions::default());
        let outcome;
        if let Some(upstream) = options.publish_proxy {
            outcome = self.ask_publish(post, (slot, command), upstream, (channel, data))?;
            if let LookupOutcome::Command(Ok(ProxyAnswer::Publish(permission))) = &*outcome {
                (data, publish_options) =
                    (permission.data.as_deref().unwrap_or(data), (&**permission).into());
                tags = permission.tags.clone().into_iter().collect();
                kind = publication_kind(options.format, data, is_json(data))?;
            }
        } else {
            let user = self.connections[slot].user();
            let allowed = options.publish.allows(user, subscription.is_some());
            if !allowed && !settings.rules.insecure {
                return Err(Error::PERMISSION_DENIED.into());
            }
        }
        let grant = subscription.and_then(|key| self.connections.grants.get(&key));
        let info = Some(self.client_info(slot, grant));
        let extra = Some(Arc::new(PublicationExtra { info, tags, version: 0 }));
        let draft = (data, kind, extra);
        // A publication of a durable channel is acknowledged when it is on disk.
        let waits = options.is_durable() && !publish_options.skip_history;
        let reply_to = match waits {
            true => ReplyTo::Client { address: self.address(slot), command, asked: self.answering },
            false => ReplyTo::None,
        };
        self.send_home(post, (channel, hash), options, draft, publish_options, reply_to)?;
        if !waits {
            self.reply(slot, command, &Reply::Publish);
        }
        Ok(())
    }

    /// Sends a publication to the home of its channel. `Err`: its inbox is full, and nothing has
    /// changed.
    pub(super) fn send_home(
        &mut self,
        post: &mut impl Post,
        (channel, hash): (&str, u64),
        options: &Options,
        (data, kind, extra): (&[u8], PublicationKind, Option<Arc<PublicationExtra>>),
        publish_options: PublishOptions,
        reply_to: ReplyTo,
    ) -> Result<(), InboxFull> {
        let home = self.names.home(hash);
        if !post.reserve(home, Rank::Request) {
            return Err(InboxFull);
        }
        let request = Publish {
            channel: self.shared_name(hash, channel),
            hash,
            data: data.into(),
            kind,
            delta: publish_options.delta || options.delta_publish,
            extra,
            retention: options.retention.filter(|_| !publish_options.skip_history),
            guard: publish_options.guard,
            reply_to,
            accepted: self.stamp(),
        };
        post.send(home, Message::Publish(Box::new(request)));
        Ok(())
    }
}

/// Kind of a publication with this data; an error if the format of the channel does not accept it.
pub fn publication_kind(
    format: PublicationFormat,
    data: &[u8],
    is_json: bool,
) -> Result<PublicationKind, Error> {
    let fits = match format {
        PublicationFormat::NotEmpty => !data.is_empty(),
        PublicationFormat::Json => is_json,
        PublicationFormat::Object => is_json && data.trim_ascii_start().starts_with(b"{"),
        PublicationFormat::Binary => true,
    };
    match (fits, is_json) {
        (false, false) if !data.is_empty() => Err(Error::NOT_JSON),
        (false, _) => Err(Error::BAD_REQUEST),
        (true, true) if json::is_too_deep(data) => Err(Error::BAD_REQUEST),
        (true, true) => Ok(PublicationKind::Data),
        (true, false) if format == PublicationFormat::Binary => Ok(PublicationKind::Binary),
        (true, false) => Err(Error::NOT_JSON),
    }
}
