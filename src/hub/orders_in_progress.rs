//! Orders of the API that are not answered yet: a subscribe is answered when the homes have
//! answered all its subscriptions, so a publication that follows the answer reaches the new
//! subscribers.
//!
//! Owns the orders that are not applied yet, and the counts. Never looks up a connection. The
//! invariant: each order is answered once, after it was applied and its last subscription was
//! answered. The control plane bounds the orders: it reserves room for each answer.

use std::collections::{HashMap, VecDeque};

use crate::model::message::OrderRequest;

/// A pending subscription: its index and the serial of that index.
pub(super) type PendingSubscription = (u32, u32);

#[derive(Default)]
struct Progress {
    /// Subscriptions that wait for their home.
    pending: usize,
    /// Whether the order was applied to all its connections.
    applied: bool,
}

/// Orders in progress.
#[derive(Default)]
pub(super) struct OrdersInProgress {
    /// Orders to apply, oldest first.
    queued: VecDeque<OrderRequest>,
    by_tag: HashMap<u64, Progress>,
    /// Tags of the orders by their pending subscriptions.
    by_subscription: HashMap<PendingSubscription, u64>,
    /// Tags of the orders to answer.
    done: Vec<u64>,
}

impl OrdersInProgress {
    /// Number of orders.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.by_tag.len() + self.done.len()
    }

    /// Whether an order can be answered.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether an order waits to be applied.
    pub(super) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether an order waits to be applied or can be answered.
    pub(super) fn has_work(&self) -> bool {
        self.has_queued() || self.has_done()
    }

    /// Queues an order.
    pub(super) fn queue(&mut self, request: OrderRequest) {
        self.queued.push_back(request);
    }

    /// Takes the oldest order that is not applied.
    pub(super) fn take_queued(&mut self) -> Option<OrderRequest> {
        self.queued.pop_front()
    }

    /// Puts an order that was not applied to all its connections back.
    pub(super) fn put_back(&mut self, request: OrderRequest) {
        self.queued.push_front(request);
    }

    /// Notes a subscription that an order has begun.
    pub(super) fn begin(&mut self, tag: u64, subscription: PendingSubscription) {
        self.by_tag.entry(tag).or_default().pending += 1;
        self.by_subscription.insert(subscription, tag);
    }

    /// Notes that an order was applied to all its connections.
    pub(super) fn applied(&mut self, tag: u64) {
        self.by_tag.entry(tag).or_default().applied = true;
        self.finish(tag);
    }

    /// Notes that a home has answered a subscription.
    pub(super) fn answered(&mut self, subscription: PendingSubscription) {
        let Some(tag) = self.by_subscription.remove(&subscription) else { return };
        if let Some(progress) = self.by_tag.get_mut(&tag) {
            progress.pending -= 1;
        }
        self.finish(tag);
    }

    fn finish(&mut self, tag: u64) {
        let ends = |progress: &Progress| progress.applied && progress.pending == 0;
        if self.by_tag.get(&tag).is_some_and(ends) {
            self.by_tag.remove(&tag);
            self.done.push(tag);
        }
    }

    /// Takes the tag of an order to answer.
    pub(super) fn take_done(&mut self) -> Option<u64> {
        self.done.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_answered_once_after_its_last_subscription() {
        let mut orders = OrdersInProgress::default();
        orders.applied(1);
        assert_eq!((orders.take_done(), orders.len()), (Some(1), 0), "it has no subscription");

        orders.begin(2, (5, 1));
        orders.answered((5, 1));
        assert!(!orders.has_done(), "an inbox was full: the order is tried again");
        orders.begin(2, (5, 2));
        orders.begin(3, (6, 3));
        orders.applied(2);
        orders.answered((5, 9));
        assert!(!orders.has_done());
        orders.answered((5, 2));
        assert_eq!((orders.take_done(), orders.len()), (Some(2), 1));
        orders.applied(3);
        orders.answered((6, 3));
        orders.answered((6, 3));
        assert_eq!((orders.take_done(), orders.take_done(), orders.len()), (Some(3), None, 0));
    }
}
