//! The simulated bus: capacities, ranks and wake-ups of `drumline::engine::bus`, without threads.
//!
//! A message with a reservation has room, and arrives once and in order. Planted faults break this.

use std::collections::VecDeque;

use drumline::model::message::{Endpoint, Message, Post, RANKS, Rank};
use drumline::model::own_queues::OwnQueues;

use crate::faults::Fault;

struct Inbox {
    queue: VecDeque<Message>,
    /// Messages and reservations.
    taken: usize,
    capacity: usize,
    waiting: u64,
}

/// All inboxes, and the endpoints to wake.
pub struct Bus {
    stations: Vec<[Inbox; RANKS]>,
    /// Messages of each shard to itself.
    own: Vec<OwnQueues>,
    /// Endpoints with a new message or new room. Each must look at its inboxes before it sleeps.
    news: Vec<bool>,
    pub asleep: Vec<bool>,
    fault: Option<Fault>,
    /// Occasions of a fault so far: the fault hits every nth.
    count: usize,
}

impl Bus {
    /// A bus of shards, control plane and store.
    pub fn new(shards: usize, capacities: [usize; RANKS], fault: Option<Fault>) -> Self {
        let inbox = |capacity| Inbox { queue: VecDeque::new(), taken: 0, capacity, waiting: 0 };
        let own = capacities.into_iter().min().unwrap_or(1);
        Bus {
            own: (0..shards).map(|_| OwnQueues::new(own)).collect(),
            stations: (0..shards + 2).map(|_| capacities.map(inbox)).collect(),
            news: vec![false; shards + 2],
            asleep: vec![false; shards + 2],
            fault,
            count: 0,
        }
    }

    pub fn line<'a>(&'a mut self, endpoint: Endpoint, bells: &'a mut Bells) -> Line<'a> {
        Line { bus: self, endpoint, bells }
    }

    /// Takes the oldest message of a rank.
    pub fn take(&mut self, endpoint: Endpoint, rank: Rank, bells: &mut Bells) -> Option<Message> {
        let message = self.stations[usize::from(endpoint)][rank as usize].queue.pop_front()?;
        self.free(endpoint, rank, bells);
        Some(message)
    }

    fn free(&mut self, endpoint: Endpoint, rank: Rank, bells: &mut Bells) {
        let inbox = &mut self.stations[usize::from(endpoint)][rank as usize];
        inbox.taken -= 1;
        if inbox.taken <= inbox.capacity / 2 && self.fault != Some(Fault::WaiterForgotten) {
            bells.room |= std::mem::take(&mut inbox.waiting);
        }
    }

    /// Wakes the endpoints that one endpoint noted.
    pub fn ring(&mut self, bells: &mut Bells) {
        let Bells { sent, room } = std::mem::take(bells);
        for endpoint in 0..self.asleep.len() {
            let of_room = room >> endpoint & 1 != 0
                && (self.fault != Some(Fault::RoomToldOnlyToSleepers) || self.asleep[endpoint]);
            if sent >> endpoint & 1 != 0 || of_room {
                self.news[endpoint] = true;
                self.asleep[endpoint] = false;
            }
        }
    }

    /// An endpoint is about to look at its inboxes.
    pub fn take_news(&mut self, endpoint: Endpoint) {
        self.news[usize::from(endpoint)] = false;
    }

    /// Puts an endpoint to sleep, unless it has news.
    pub fn sleep(&mut self, endpoint: Endpoint) {
        self.asleep[usize::from(endpoint)] = !self.news[usize::from(endpoint)];
    }

    /// Whether a shard sleeps although an inbox that it must send to has so much room that senders
    /// which wait are woken.
    pub fn oversleeps(&self, endpoint: Endpoint, (to, rank): (Endpoint, Rank)) -> bool {
        let inbox = &self.stations[usize::from(to)][rank as usize];
        self.asleep[usize::from(endpoint)] && inbox.taken <= inbox.capacity / 2
    }

    /// Messages in all queues, and reservations.
    pub fn taken(&self) -> usize {
        let own: usize = self.own.iter().map(OwnQueues::taken).sum();
        own + self.stations.iter().flatten().map(|inbox| inbox.taken).sum::<usize>()
    }

    fn hits(&mut self, fault: Fault, every: usize) -> bool {
        if self.fault != Some(fault) {
            return false;
        }
        self.count += 1;
        self.count.is_multiple_of(every)
    }
}

/// The endpoints that an endpoint wakes at the end of its turn.
#[derive(Default)]
pub struct Bells {
    sent: u64,
    room: u64,
}

/// The bus as one endpoint sees it.
pub struct Line<'a> {
    bus: &'a mut Bus,
    endpoint: Endpoint,
    bells: &'a mut Bells,
}

impl Line<'_> {
    /// The queues of the endpoint itself, if `to` is that endpoint and a shard.
    fn own(&mut self, to: Endpoint) -> Option<&mut OwnQueues> {
        if to != self.endpoint {
            return None;
        }
        self.bus.own.get_mut(usize::from(to))
    }
}

impl Post for Line<'_> {
    fn reserve(&mut self, to: Endpoint, rank: Rank) -> bool {
        if let Some(own) = self.own(to) {
            return own.reserve(rank);
        }
        let lies = matches!(
            (self.bus.fault, rank),
            (Some(Fault::PublicationLostWhenFull), Rank::Delivery)
                | (Some(Fault::ReleaseNotRetried), Rank::Request)
        );
        let inbox = &mut self.bus.stations[usize::from(to)][rank as usize];
        let room = inbox.taken < inbox.capacity;
        if room || lies {
            inbox.taken += 1;
        } else {
            inbox.waiting |= 1 << self.endpoint;
        }
        room || lies
    }

    fn take_own(&mut self, rank: Rank) -> Option<Message> {
        self.own(self.endpoint)?.take(rank)
    }

    fn put_back(&mut self, message: Message) {
        if let Some(own) = self.own(self.endpoint) {
            own.put_back(message);
        }
    }

    fn was_full(&mut self) -> bool {
        self.own(self.endpoint).is_some_and(OwnQueues::was_full)
    }

    fn cancel(&mut self, to: Endpoint, rank: Rank) {
        if let Some(own) = self.own(to) {
            return own.cancel(rank);
        }
        if !self.bus.hits(Fault::ReservationLeaked, 3) {
            self.bus.free(to, rank, self.bells);
        }
    }

    fn wake(&mut self, to: Endpoint) {
        self.bells.sent |= 1 << to;
    }

    fn send(&mut self, to: Endpoint, message: Message) {
        if let Some(own) = self.own(to) {
            return own.send(message);
        }
        let rank = message.rank();
        let is_publication = matches!(message, Message::Publication(_));
        let full = {
            let inbox = &self.bus.stations[usize::from(to)][rank as usize];
            inbox.taken > inbox.capacity
        };
        let lost = full
            && match self.bus.fault {
                Some(Fault::PublicationLostWhenFull) => is_publication,
                Some(Fault::ReleaseNotRetried) => matches!(message, Message::Release(_)),
                _ => false,
            };
        if lost {
            self.bus.stations[usize::from(to)][rank as usize].taken -= 1;
            return;
        }
        let twice = is_publication && self.bus.hits(Fault::PublicationTwice, 5);
        let overtakes = match rank {
            Rank::Delivery => self.bus.hits(Fault::DeliveryOvertakes, 2),
            Rank::Store => self.bus.hits(Fault::StoreMessageOvertakes, 2),
            Rank::Ingress | Rank::Request => false,
        };
        let inbox = &mut self.bus.stations[usize::from(to)][rank as usize];
        if twice && let Message::Publication(publication) = &message {
            inbox.queue.push_back(Message::Publication(publication.clone()));
            inbox.taken += 1;
        }
        match inbox.queue.pop_back() {
            Some(last) if overtakes => inbox.queue.extend([message, last]),
            last => inbox.queue.extend(last.into_iter().chain([message])),
        }
        self.bells.sent |= 1 << to;
    }
}
