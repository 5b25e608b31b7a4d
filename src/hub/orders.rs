//! Orders of the API about the connections of a user: disconnect, subscribe, unsubscribe, refresh.

use std::num::NonZeroU64;

use crate::base::work_budget::cost;
use crate::hub::command_failure::InboxFull;
use crate::hub::connections::{Phase, ServerSubscription};
use crate::hub::shard_state::Hub;
use crate::model::message::{Action, Message, OrderRequest, Post, Target};
use crate::wire::protocol::Disconnect;
use crate::wire::protocol::reply::Push;

/// Unsubscribe code: the server ended the subscription, and the client must not resubscribe.
pub(super) const SERVER_UNSUBSCRIBE: u32 = 2000;

impl Hub {
    /// Applies the queued orders. They wait while publications that arrived before them do.
    pub(super) fn apply_orders(&mut self, post: &mut impl Post) {
        while self.own_cost.is_none() && self.orders.has_queued() {
            if !self.takes_deliveries() {
                // Nobody wakes this shard when its own backlog is sent.
                self.awaits_backlog = true;
                return;
            }
            if let Some(request) = self.orders.take_queued()
                && let Err(InboxFull) = self.apply_order(post, &request)
            {
                return self.orders.put_back(request);
            }
        }
    }

    /// Applies an order. `Err`: an inbox or the budget is full, and the order must be tried again;
    /// what was done is not repeated.
    fn apply_order(
        &mut self,
        post: &mut impl Post,
        request: &OrderRequest,
    ) -> Result<(), InboxFull> {
        let OrderRequest { tag, order } = request;
        let mut begun = false;
        for slot in self.selected(&order.target) {
            // The output of another connection may have closed this one, to free memory.
            let is_open = self.connections[slot].takes_output();
            if !is_open || !self.order_applies(slot, &order.action) {
                continue;
            }
            // Each try serves at least one connection, so the order makes progress. A refresh only
            // sets a time.
            if begun && !matches!(order.action, Action::Refresh { .. }) && self.is_spent() {
                self.unfinished = true;
                return Err(InboxFull);
            }
            begun = true;
            self.budget.charge(cost::LOOK);
            match &order.action {
                Action::Disconnect { code, reason, .. } => {
                    self.write_owed_of_all(slot);
                    // What it was owed may have closed it as slow.
                    if self.connections[slot].takes_output() {
                        self.disconnect_with(slot, *code, reason);
                    }
                }
                Action::Unsubscribe { channel } => {
                    if let Some(key) = self.subscription_to(slot, channel) {
                        let reason = "server unsubscribe";
                        self.end_subscription(slot, key, SERVER_UNSUBSCRIBE, reason);
                    }
                }
                Action::Subscribe { channel, grant, since } => {
                    let server_sub = ServerSubscription {
                        channel: channel.clone(),
                        since: *since,
                        delta: false,
                        grant: grant.clone(),
                    };
                    self.join_unasked(post, slot, server_sub).map_err(|_| InboxFull)?;
                    if let Some(key) = self.subscription_to(slot, channel)
                        && let Some(serial) = self.locals.pending_serial(key)
                    {
                        self.orders.begin(*tag, (key, serial));
                    }
                }
                Action::Refresh { expires, info } => {
                    self.set_expiry(slot, *expires, info.as_deref())
                }
            }
        }
        self.orders.applied(*tag);
        Ok(())
    }

    /// Answers the orders that are done. The control plane has reserved room for the answers.
    pub(super) fn answer_orders(&mut self, post: &mut impl Post) {
        while let Some(tag) = self.orders.take_done() {
            post.send(self.control, Message::Ordered(tag));
        }
    }

    /// The connected clients of this shard that a target selects.
    fn selected(&mut self, target: &Target) -> Vec<u32> {
        let Target { user, client, session } = target;
        let of_client = (!client.is_empty()).then(|| self.ids.find_client(client));
        let of_session = (!session.is_empty()).then(|| self.ids.find(session));
        let address = match (of_client, of_session) {
            (None, None) => return self.connections.of_user(user),
            (Some(client), Some(session)) if client != session => None,
            (client, session) => client.or(session).flatten(),
        };
        let here = address.filter(|address| address.shard == self.shard);
        let found = here.filter(|address| {
            self.connection(address.slot, address.generation).is_some_and(|connection| {
                connection.phase == Phase::Connected && connection.user() == &**user
            })
        });
        found.map(|address| address.slot).into_iter().collect()
    }

    /// Whether an order changes a connection. It does not if the connection is excepted, may not do
    /// what is ordered, or an earlier try has applied the order.
    fn order_applies(&self, slot: u32, action: &Action) -> bool {
        match action {
            Action::Disconnect { except, .. } => {
                except.is_empty() || {
                    let client = self.client_id(slot);
                    !except.iter().any(|stays| **stays == *client)
                }
            }
            Action::Unsubscribe { channel } => self.subscription_to(slot, channel).is_some(),
            Action::Subscribe { channel, grant, .. } => {
                let options = self.settings.namespaces.of(channel);
                let reads = options.is_ok_and(|options| self.check_readable(slot, options).is_ok());
                reads
                    && !self.is_expired(grant.expires)
                    && self.subscription_to(slot, channel).is_none()
            }
            Action::Refresh { .. } => true,
        }
    }

    /// The subscription of a connection to a channel.
    fn subscription_to(&self, slot: u32, channel: &str) -> Option<u32> {
        let head = self.connections[slot].subscriptions;
        self.locals.find_subscription(head, self.names.hash(channel), channel)
    }

    /// Sets the expiry of a connection, and its info if one is given.
    fn set_expiry(&mut self, slot: u32, expires: Option<u64>, info: Option<&[u8]>) {
        if self.is_expired(expires) {
            return self.disconnect(slot, Disconnect::EXPIRED);
        }
        let identity = self.connections[slot].identity.get_or_insert_default();
        identity.expires = expires.and_then(NonZeroU64::new);
        if let Some(info) = info {
            identity.info = Some(info.into());
        }
        self.info_changed(slot);
        self.watch_expiry(slot);
        self.push(slot, &Push::Refresh(self.lease(expires)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::sys::Now;
    use crate::base::work_budget::Stage;
    use crate::hub::connections::{Identity, NONE};
    use crate::hub::tests::{LoneShardBus, ROOMY, hub, publish, say, subscriber, transmit};
    use crate::model::message::tests::Recorder;
    use crate::model::message::{Grant, Order, Publish, ReplyTo};
    use crate::model::names::Names;
    use crate::model::publication::PublicationKind;

    #[test]
    fn ending_a_pending_subscription_lets_its_command_continue() {
        let (mut hub, mut post) = (hub(1 << 20, 1 << 20, 1 << 20), Recorder::default());
        hub.names = Names::new([0; 16], 2);
        let elsewhere = |name: &&str| hub.names.home(hub.names.hash(name)) == 1;
        let channel = ["a", "b", "c", "d", "e", "f"].into_iter().find(elsewhere).unwrap();
        let (slot, _) = hub.reserve().unwrap();
        hub.socket_opened(slot);
        let body = format!(
            "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}\n\
             {{\"id\":3,\"publish\":{{\"channel\":\"{channel}\",\"data\":1}}}}"
        );
        let head = format!("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        hub.receive(&mut post, slot, &mut [head.as_bytes(), body.as_bytes()].concat());
        let Some((1, Message::Subscribe(subscribe))) = post.sent.pop() else {
            panic!("the home is asked")
        };
        let key = hub.connections[slot].subscriptions;
        hub.end_subscription(slot, key, SERVER_UNSUBSCRIBE, "server unsubscribe");
        let answer = subscribe.confirmed();
        hub.handle(&mut post, Message::Subscribed(Box::new(answer))).unwrap();
        hub.resume_paused(&mut post);
        assert!(matches!(post.sent.as_slice(), [(1, Message::Publish(_))]), "{:?}", post.sent);
        let sent = String::from_utf8(transmit(&mut hub, &[]).remove(0).1).unwrap();
        assert!(sent.contains("{\"id\":2,\"error\":{\"code\":103,"), "{sent}");
        assert!(sent.ends_with("{\"id\":3,\"publish\":{}}\n"), "{sent}");
    }

    #[test]
    fn publications_before_an_order_reach_the_client_before_its_end() {
        let unsubscribe = Action::Unsubscribe { channel: "c".into() };
        let disconnect = Action::Disconnect { code: 3503, reason: "told".into(), except: vec![] };
        for action in [unsubscribe, disconnect] {
            let (mut hub, mut post) = (hub(1 << 20, 1 << 20, 1 << 20), Recorder::default());
            let (slot, other) = (subscriber(&mut hub), subscriber(&mut hub));
            transmit(&mut hub, &[]);
            let target = Target { client: hub.client_id(slot).into(), ..Target::default() };
            let request = OrderRequest { tag: 1, order: Arc::new(Order { target, action }) };
            publish(&mut hub, other, 3);
            hub.handle(&mut post, Message::Order(request)).unwrap();
            hub.send_waiting(&mut post);
            publish(&mut hub, other, 5);
            hub.fan_out();
            let sent = transmit(&mut hub, &[]).into_iter().find(|(to, _)| *to == slot).unwrap().1;
            let sent = String::from_utf8_lossy(&sent);
            let before = sent.find("\"xxx\"").expect("the publication before the order");
            let end = sent.find("unsubscribe").or(sent.find("told")).expect("the end");
            assert!(before < end && !sent.contains("xxxxx"), "{sent}");
        }
    }

    fn disconnect(hub: &Hub, slot: u32) -> Message {
        let action = Action::Disconnect { code: 3503, reason: "told".into(), except: vec![] };
        let target = Target { client: hub.client_id(slot).into(), ..Target::default() };
        Message::Order(OrderRequest { tag: 1, order: Arc::new(Order { target, action }) })
    }

    #[test]
    fn an_order_that_waits_for_the_own_backlog_keeps_the_shard_busy() {
        let (mut hub, mut bus) = (hub(ROOMY, ROOMY, 0), LoneShardBus::default());
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[]);
        let order = disconnect(&hub, slot);
        hub.handle(&mut bus, order).unwrap();
        publish(&mut hub, slot, 3);
        hub.send_waiting(&mut bus);
        assert!(hub.connections[slot].takes_output(), "the publication comes first");
        hub.fan_out();
        transmit(&mut hub, &[]);
        assert!(hub.is_busy(), "the order can be applied now");
        hub.begin_turn(Now::default());
        hub.send_waiting(&mut bus);
        assert!(!hub.connections[slot].takes_output());
        hub.fan_out();
        transmit(&mut hub, &[]);
        assert!(!hub.is_busy());
    }

    #[test]
    fn an_order_is_applied_while_large_publications_take_the_whole_share() {
        let (mut hub, mut bus) = (hub(ROOMY, ROOMY, ROOMY), LoneShardBus::default());
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[]);
        let order = disconnect(&hub, slot);
        hub.handle(&mut bus, order).unwrap();
        let (hash, mut turns) = (hub.names.hash("c"), 0);
        while hub.connections[slot].takes_output() {
            turns += 1;
            assert!(turns < 9, "the order starves");
            hub.set_share(64_000, false);
            hub.begin_turn(Now::default());
            hub.begin(Stage::Deliveries);
            hub.serve_own(&mut bus);
            hub.begin(Stage::Requests);
            let publish = Message::Publish(Box::new(Publish {
                channel: "c".into(),
                hash,
                data: vec![b'1'; 22_950].into(),
                kind: PublicationKind::Data,
                delta: false,
                extra: None,
                retention: None,
                guard: None,
                reply_to: ReplyTo::None,
                accepted: 0,
            }));
            assert!(hub.affords(&publish));
            hub.handle(&mut bus, publish).unwrap();
            hub.resume_paused(&mut bus);
            hub.send_waiting(&mut bus);
            hub.fan_out();
            transmit(&mut hub, &[]);
        }
    }

    #[test]
    fn an_order_subscribes_no_connection_that_it_has_closed_for_the_budget() {
        let behind = |budget| {
            let mut hub = hub(ROOMY, budget, ROOMY);
            let other = subscriber(&mut hub);
            say(&mut hub, other, r#"{"id":3,"subscribe":{"channel":"d"}}"#);
            for _ in 0..2 {
                let slot = subscriber(&mut hub);
                let identity = Identity { user: "u".into(), ..Identity::default() };
                hub.connections[slot].identity = Some(Box::new(identity));
                hub.connections.index_user(slot);
            }
            transmit(&mut hub, &[]);
            let slots = hub.connections.of_user("u");
            publish(&mut hub, other, 10);
            hub.fan_out();
            hub.write(slots[1], |out| out.extend_from_slice(&[b'x'; 2_000]));
            transmit(&mut hub, &slots);
            (hub, slots[1])
        };
        let budget = behind(ROOMY).0.resource_counts().outbox_bytes;
        let (mut hub, largest) = behind(budget);
        assert!(hub.connections[largest].takes_output());
        let grant = Grant { server_side: true, ..Grant::default() };
        let action = Action::Subscribe { channel: "d".into(), grant, since: None };
        let target = Target { user: "u".into(), ..Target::default() };
        let order = OrderRequest { tag: 1, order: Arc::new(Order { target, action }) };
        hub.handle(&mut Recorder::default(), Message::Order(order)).unwrap();
        hub.send_waiting(&mut Recorder::default());
        assert!(!hub.connections[largest].takes_output());
        assert_eq!(hub.connections[largest].subscriptions, NONE);
    }

    #[test]
    fn an_order_to_subscribe_is_answered_after_the_home() {
        let (mut hub, mut post) = (hub(1 << 20, 1 << 20, 1 << 20), Recorder::default());
        let slot = subscriber(&mut hub);
        transmit(&mut hub, &[]);
        hub.names = Names::new([0; 16], 2);
        let elsewhere = |name: &&str| hub.names.home(hub.names.hash(name)) == 1;
        let channel = ["a", "b", "d", "e", "f", "g"].into_iter().find(elsewhere).unwrap();
        let mut order = |hub: &mut Hub, tag, action| {
            let target = Target { client: hub.client_id(slot).into(), ..Target::default() };
            let request = OrderRequest { tag, order: Arc::new(Order { target, action }) };
            hub.handle(&mut post, Message::Order(request)).unwrap();
            hub.send_waiting(&mut post);
            std::mem::take(&mut post.sent)
        };
        let grant = Grant { server_side: true, ..Grant::default() };
        let action = Action::Subscribe { channel: channel.into(), grant, since: None };
        let Ok([(1, Message::Subscribe(subscribe))]) =
            <[_; 1]>::try_from(order(&mut hub, 7, action))
        else {
            panic!("the home is asked, and the order is not answered")
        };
        let answer = subscribe.confirmed();
        hub.handle(&mut Recorder::default(), Message::Subscribed(Box::new(answer))).unwrap();
        let action = Action::Unsubscribe { channel: channel.into() };
        let mut answered: Vec<u64> = order(&mut hub, 8, action)
            .into_iter()
            .filter_map(|(_, sent)| if let Message::Ordered(tag) = sent { Some(tag) } else { None })
            .collect();
        answered.sort_unstable();
        assert_eq!(answered, [7, 8]);
    }
}
