//! The order of publications: of each channel, one message is published at a time.
//!
//! Owns, per channel with messages, the message that is being published and those behind it. Never
//! publishes. The invariants: messages of one channel are published in the order of their arrival,
//! and a message that waits delays no other channel. Messages with several channels cannot wait for
//! each other in a circle, because all of them take their places in the order of their arrival.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A message of a feed, numbered in the order of arrival.
pub type MessageNumber = u64;

/// The messages of a channel.
struct Turn {
    /// The message whose turn it is.
    first: MessageNumber,
    behind: VecDeque<MessageNumber>,
}

/// The order of the messages of all channels.
#[derive(Default)]
pub struct Order {
    turns: HashMap<Arc<str>, Turn>,
    /// Number of channels that a waiting message is not yet first in.
    waiting: HashMap<MessageNumber, usize>,
}

impl Order {
    /// Adds a message with its channels, each once. Returns whether it may be published now.
    pub fn enter(&mut self, message: MessageNumber, channels: &[Arc<str>]) -> bool {
        let mut behind = 0;
        for channel in channels {
            match self.turns.get_mut(channel) {
                Some(turn) => {
                    turn.behind.push_back(message);
                    behind += 1;
                }
                None => {
                    let turn = Turn { first: message, behind: VecDeque::new() };
                    self.turns.insert(channel.clone(), turn);
                }
            }
        }
        if behind > 0 {
            self.waiting.insert(message, behind);
        }
        behind == 0
    }

    /// Removes a message that is first in all its channels. Adds the messages that may be published
    /// now to `ready`.
    pub fn leave(
        &mut self,
        message: MessageNumber,
        channels: &[Arc<str>],
        ready: &mut Vec<MessageNumber>,
    ) {
        for channel in channels {
            let Some(turn) = self.turns.get_mut(channel).filter(|turn| turn.first == message)
            else {
                continue;
            };
            match turn.behind.pop_front() {
                Some(next) => {
                    turn.first = next;
                    if self.advance(next) {
                        ready.push(next);
                    }
                }
                None => _ = self.turns.remove(channel),
            }
        }
    }

    /// Notes that a message became first in one more channel. Returns whether it is first in all.
    fn advance(&mut self, message: MessageNumber) -> bool {
        let Some(behind) = self.waiting.get_mut(&message) else { return false };
        *behind -= 1;
        let is_first = *behind == 0;
        if is_first {
            self.waiting.remove(&message);
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &str) -> Vec<Arc<str>> {
        names.split(' ').map(Arc::from).collect()
    }

    #[test]
    fn messages_of_a_channel_take_turns_and_other_channels_do_not_wait() {
        let mut order = Order::default();
        assert!(order.enter(1, &channels("a")));
        assert!(!order.enter(2, &channels("a b")));
        assert!(!order.enter(3, &channels("b")));
        assert!(order.enter(4, &channels("c")));
        let mut ready = Vec::new();
        order.leave(4, &channels("c"), &mut ready);
        assert!(ready.is_empty());
        order.leave(1, &channels("a"), &mut ready);
        assert_eq!(std::mem::take(&mut ready), [2]);
        order.leave(2, &channels("a b"), &mut ready);
        assert_eq!(std::mem::take(&mut ready), [3]);
        order.leave(3, &channels("b"), &mut ready);
        assert!(ready.is_empty() && order.turns.is_empty() && order.waiting.is_empty());
    }

    #[test]
    fn every_message_gets_its_turn_in_the_order_of_each_channel() {
        // 300 messages, each with one to three of five channels, finished in another order.
        let sets: Vec<Vec<Arc<str>>> = (0..300_usize)
            .map(|n| {
                let mut names: Vec<usize> = vec![n * 7 % 5, n * 3 % 5, n % 4];
                names.truncate(1 + n % 3);
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(|name| Arc::from(name.to_string())).collect()
            })
            .collect();
        let (mut order, mut running, mut finished) = (Order::default(), Vec::new(), Vec::new());
        for (number, set) in sets.iter().enumerate() {
            if order.enter(number as u64, set) {
                running.push(number as u64);
            }
        }
        while !running.is_empty() {
            let message = running.swap_remove(running.len() / 2);
            finished.push(message);
            order.leave(message, &sets[message as usize], &mut running);
        }
        assert_eq!(finished.len(), sets.len());
        for channel in ["0", "1", "2", "3", "4"] {
            let of = |number: &&u64| sets[**number as usize].iter().any(|name| &**name == channel);
            let seen: Vec<&u64> = finished.iter().filter(of).collect();
            assert!(seen.is_sorted(), "{channel}");
        }
        assert!(order.turns.is_empty() && order.waiting.is_empty());
    }
}
