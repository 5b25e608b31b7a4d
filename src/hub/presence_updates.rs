//! New information about a client, which the homes of its channels keep for presence.
//!
//! The invariant: a connection is queued once, and a home gets the information at the time of
//! sending.

use crate::base::work_budget::cost;
use crate::hub::bounded_walks::StaleMember;
use crate::hub::connections::NONE;
use crate::hub::shard_state::Hub;
use crate::model::ids::Address;
use crate::model::message::{MemberUpdate, Message, Post, Rank};

impl Hub {
    /// Queues new information about a connection or one of its subscriptions for presence.
    pub(super) fn info_changed(&mut self, slot: u32) {
        let address = self.address(slot);
        if self.connections[slot].flags.info_changed() {
            // Homes that have an earlier information get it again. Only the first of the queue can
            // have such homes.
            let first = self.stale_members.front_mut();
            if let Some(stale) = first.filter(|stale| stale.address == address) {
                stale.done = 0;
            }
            return;
        }
        self.connections[slot].flags.set_info_changed(true);
        self.stale_members.push_back(StaleMember { address, done: 0 });
    }

    /// Sends new information to homes while their inboxes have room.
    pub(super) fn send_member_updates(&mut self, post: &mut impl Post) {
        while !self.is_spent() {
            let Some(mut stale) = self.stale_members.pop_front() else { return };
            let Address { slot, generation, .. } = stale.address;
            if self.connection(slot, generation).is_none() {
                continue;
            }
            if !self.update_member(post, slot, &mut stale.done) {
                return self.stale_members.push_front(stale);
            }
            self.connections[slot].flags.set_info_changed(false);
        }
    }

    /// Sends the information of a connection to the homes of its channels after the first `done`;
    /// returns whether all have it.
    fn update_member(&mut self, post: &mut impl Post, slot: u32, done: &mut usize) -> bool {
        let mut position = 0;
        let mut key = self.connections[slot].subscriptions;
        while key != NONE {
            position += 1;
            if position > *done {
                let (channel, hash) = self.locals.channel(key);
                let channel = channel.clone();
                if self.locals.visibility(key).is_any() {
                    let grant = self.connections.grants.get(&key);
                    let info = self.client_info(slot, grant);
                    let home = self.names.home(hash);
                    if !post.reserve(home, Rank::Request) {
                        return false;
                    }
                    let address = self.address(slot);
                    let update = MemberUpdate { channel, hash, address, info };
                    post.send(home, Message::MemberUpdate(Box::new(update)));
                    self.budget.charge(cost::JOIN);
                }
                *done = position;
            }
            key = self.locals.next_subscription(key);
        }
        true
    }
}
