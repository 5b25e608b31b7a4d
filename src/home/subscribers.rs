//! Joins and leaves of subscribers at the home of a channel.
//!
//! Owns nothing. The invariant: a shard gets the join of its own subscriber together with the
//! answer to the subscribe, not before it.

use std::sync::Arc;

use crate::base::metrics::Action;
use crate::home::durable::requests::Found;
use crate::home::{Home, cancel_all, reserve_all};
use crate::model::message::{Leave, Message, Post, Rank, Subscribe, endpoints};
use crate::model::publication::{NewPublication, Publication, PublicationExtra, PublicationKind};
use crate::wire::protocol::reply::ClientInfo;

impl Home {
    /// Handles a subscribe: sends the answer to the shard of the subscriber and, where joins are
    /// announced, the join to the interested shards. `found` is what the store has of the missed
    /// publications.
    pub(super) fn subscribe(
        &mut self,
        post: &mut impl Post,
        request: Box<Subscribe>,
        found: Option<&Found>,
    ) -> Result<(), Message> {
        let shard = request.subscriber.shard;
        if !post.reserve(shard, Rank::Delivery) {
            return Err(Message::Subscribe(request));
        }
        let announced = request.visibility.announced;
        // The shard of the subscriber gets the join with the answer.
        let others = match announced {
            true => self.channels.interested(request.hash, &request.channel) & !(1 << shard),
            false => 0,
        };
        if reserve_all(post, others).is_err() {
            post.cancel(shard, Rank::Delivery);
            return Err(Message::Subscribe(request));
        }
        let mut answer = self.channels.subscribe(&request, self.now, Found::older(found));
        let info = request.info.as_ref().filter(|_| !answer.is_refused());
        if let Some(info) = info {
            self.metrics.by.actions[Action::AddPresence as usize].add(1);
            self.channels.add_member(&request, info);
        }
        let named = (&*request.channel, request.hash);
        let joins = info.filter(|_| announced);
        let news =
            joins.map(|info| presence_change(PublicationKind::Join, named, (**info).clone()));
        answer.news = news.clone();
        self.metrics.by.joins_and_leaves[0].add(u64::from(news.is_some()));
        post.send(shard, Message::Subscribed(Box::new(answer)));
        match news {
            Some(news) => spread(post, others, &news),
            None => cancel_all(post, others),
        }
        Ok(())
    }

    /// Handles the leave of a subscriber: where leaves are announced, the interested shards get the
    /// leave.
    pub(super) fn leave(&mut self, post: &mut impl Post, leave: Box<Leave>) -> Result<(), Message> {
        let receivers = match leave.announced {
            true => self.channels.interested(leave.hash, &leave.channel),
            false => 0,
        };
        if reserve_all(post, receivers).is_err() {
            return Err(Message::Leave(leave));
        }
        let left = self.channels.remove_member(&leave);
        self.metrics.by.actions[Action::RemovePresence as usize].add(u64::from(left.is_some()));
        self.metrics.by.joins_and_leaves[1].add(u64::from(left.is_some() && leave.announced));
        match left {
            Some(info) if receivers != 0 => {
                let news =
                    presence_change(PublicationKind::Leave, (&leave.channel, leave.hash), info);
                spread(post, receivers, &news);
            }
            _ => cancel_all(post, receivers),
        }
        Ok(())
    }
}

/// Sends a publication to shards for which room is reserved.
fn spread(post: &mut impl Post, shards: u64, publication: &Publication) {
    for shard in endpoints(shards) {
        post.send(shard, Message::Publication(publication.clone()));
    }
}

/// The join or leave message of a subscriber.
fn presence_change(
    kind: PublicationKind,
    (channel, hash): (&str, u64),
    info: ClientInfo,
) -> Publication {
    let extra =
        Some(Arc::new(PublicationExtra { info: Some(info), ..PublicationExtra::default() }));
    Publication::new(NewPublication { channel, hash, kind, extra, ..NewPublication::default() })
}
