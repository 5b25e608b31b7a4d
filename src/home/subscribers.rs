//! Subscribers that come to a channel and leave it, as the channel's home sees them.
//!
//! Owns nothing. The invariant: a shard hears of a subscriber of its own behind the answer to the
//! subscriber's request.

use std::sync::Arc;

use crate::home::{Home, cancel_all, reserve_all};
use crate::model::message::{Leave, Message, Post, Rank, Subscribe, endpoints};
use crate::model::publication::{Draft, Extra, Publication, PublicationKind};
use crate::wire::protocol::reply::ClientInfo;

impl Home {
    /// A subscriber arrives: its shard gets the answer, and interested shards get the news of it
    /// where arrivals are announced.
    pub(super) fn subscribe(
        &mut self,
        post: &mut impl Post,
        request: Box<Subscribe>,
    ) -> Result<(), Message> {
        let shard = request.subscriber.shard;
        if !post.reserve(shard, Rank::Delivery) {
            return Err(Message::Subscribe(request));
        }
        let announced = request.visibility.announced;
        // Its own shard hears of it by the answer.
        let others = match announced {
            true => self.channels.interested(request.hash, &request.channel) & !(1 << shard),
            false => 0,
        };
        if reserve_all(post, others).is_err() {
            post.cancel(shard, Rank::Delivery);
            return Err(Message::Subscribe(request));
        }
        let mut answer = self.channels.subscribe(&request, self.now);
        let info = request.info.as_ref().filter(|_| !answer.is_refused());
        if let Some(info) = info {
            self.channels.add_member(&request, info);
        }
        let named = (&*request.channel, request.hash);
        let joins = info.filter(|_| announced);
        let news =
            joins.map(|info| presence_change(PublicationKind::Join, named, (**info).clone()));
        answer.news = news.clone();
        post.send(shard, Message::Subscribed(Box::new(answer)));
        match news {
            Some(news) => spread(post, others, &news),
            None => cancel_all(post, others),
        }
        Ok(())
    }

    /// A subscriber has left: interested shards get the news where that is announced.
    pub(super) fn leave(&mut self, post: &mut impl Post, leave: Box<Leave>) -> Result<(), Message> {
        let told = match leave.announced {
            true => self.channels.interested(leave.hash, &leave.channel),
            false => 0,
        };
        if reserve_all(post, told).is_err() {
            return Err(Message::Leave(leave));
        }
        match self.channels.remove_member(&leave) {
            Some(info) if told != 0 => {
                let news =
                    presence_change(PublicationKind::Leave, (&leave.channel, leave.hash), info);
                spread(post, told, &news);
            }
            _ => cancel_all(post, told),
        }
        Ok(())
    }
}

/// Sends a publication to shards for which room was reserved.
fn spread(post: &mut impl Post, shards: u64, publication: &Publication) {
    for shard in endpoints(shards) {
        post.send(shard, Message::Publication(publication.clone()));
    }
}

/// The news of a subscriber that has come or gone.
fn presence_change(
    event: PublicationKind,
    (channel, hash): (&str, u64),
    info: ClientInfo,
) -> Publication {
    let extra = Some(Arc::new(Extra { info: Some(info), ..Extra::default() }));
    Publication::new(Draft { channel, hash, event, extra, ..Draft::default() })
}
