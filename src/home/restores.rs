//! What a home gets back at a start: epochs, streams, publications and keys.
//!
//! Owns nothing. Never runs after the first message. The invariant: a stream that is not taken over
//! ends, so its channel begins a new epoch.

use crate::home::Home;
use crate::home::channels::Channels;
use crate::home::durable::stored::Times;
use crate::home::epochs::Epochs;
use crate::home::history::Stream;
use crate::model::snapshot::{RestoredHome, RestoredStream};

impl Home {
    /// Takes over what homes had before the restart. The budgets hold: what expires first is left
    /// out.
    pub fn restore(&mut self, restored: RestoredHome, times: Times) {
        self.begin_turn(times);
        let RestoredHome { epochs, generations, streams, keys } = restored;
        let mut epochs = Epochs::new(epochs, self.channels.names.shards());
        epochs.restore(&generations);
        self.channels.epochs = epochs;
        for stream in streams {
            self.channels.restore(stream, times);
        }
        for key in keys {
            let until = (times.moment_of(key.until), times.now);
            self.channels.idempotency_keys.restore(key.hash, &key.key, key.position, until);
        }
        self.channels.idempotency_keys.relieve();
    }
}

impl Channels {
    fn restore(&mut self, restored: RestoredStream, times: Times) {
        let RestoredStream { stream: saved, publications } = restored;
        let at = self.find_or_insert(saved.hash, &saved.channel);
        if self.stream_of(at).is_some() {
            return;
        }
        if let Some(channel) = self.channels.get_mut(at as usize) {
            channel.generation = saved.generation;
        }
        self.insert_stream(at, Stream::restored(&saved.record, times));
        let in_memory = publications.into_iter().filter(|one| one.expires > times.unix);
        let in_memory = in_memory.map(|one| (one.publication, times.moment_of(one.expires)));
        let newest: Vec<_> = in_memory.collect();
        if let Some(stream) = self.stream_of(at) {
            self.streams.change(stream, |stream| stream.prepend(newest));
            self.schedule(at);
        }
        self.make_room(Some(at));
    }
}
