//! The wake-ups of the bus in every interleaving of threads.
//!
//! Compiles the server's file with loom's atomics. Apart from the server, because the server with
//! loom would be a second build of everything.

#[cfg(test)]
#[expect(dead_code, reason = "the bus uses the rest of it")]
#[path = "../../src/engine/wakeups.rs"]
mod wakeups;

/// What the file imports.
#[cfg(test)]
mod engine {
    pub(crate) mod atomics {
        pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    }
}

#[cfg(test)]
mod model {
    pub(crate) mod message {
        pub(crate) type Endpoint = u8;
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use crate::engine::atomics::{AtomicBool, AtomicUsize, Ordering, fence};
    use crate::model::message::Endpoint;
    use crate::wakeups::{InboxRoom, KernelNews, SleepState, resume_writes};

    /// The endpoints whose bits are set.
    fn endpoints(mask: u64) -> impl Iterator<Item = Endpoint> {
        (0..64).filter(move |endpoint| mask & 1 << endpoint != 0)
    }

    fn model(check: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(check);
    }

    /// Two producers and a consumer that waits whenever it may, and clears earlier wake-ups before
    /// it looks for news: no message is left behind, and news is noted only after its message.
    #[test]
    fn no_wake_up_is_lost() {
        model(|| {
            let sleep = Arc::new(SleepState::default());
            let inboxes = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let wake_method = Arc::new(AtomicBool::new(true));
            let producers: Vec<_> = (0..2)
                .map(|endpoint| {
                    let (sleep, inboxes, wake_method) =
                        (sleep.clone(), inboxes.clone(), wake_method.clone());
                    thread::spawn(move || {
                        inboxes[endpoint].store(1, Ordering::Relaxed);
                        if sleep.notify(endpoint as Endpoint) {
                            wake_method.store(true, Ordering::Release);
                        }
                    })
                })
                .collect();
            wake_method.store(false, Ordering::SeqCst);
            let sleeps = sleep.prepare();
            for endpoint in endpoints(sleep.take_news()) {
                let inbox = &inboxes[usize::from(endpoint)];
                assert_eq!(inbox.load(Ordering::Relaxed), 1, "news of nothing");
            }
            for producer in producers {
                producer.join().unwrap();
            }
            assert!(!sleeps || wake_method.load(Ordering::Acquire), "asleep, and nobody rang");
        });
    }

    /// A ring of a model kernel: it publishes its news, and then writes to the eventfd if it may.
    #[derive(Clone, Default)]
    struct ModelRing(Arc<ModelWords>);

    #[derive(Default)]
    struct ModelWords {
        news: AtomicBool,
        may_write: AtomicBool,
        written: AtomicBool,
    }

    impl ModelRing {
        fn complete(&self) {
            self.0.news.store(true, Ordering::Release);
            fence(Ordering::SeqCst);
            if self.0.may_write.load(Ordering::Relaxed) {
                self.0.written.store(true, Ordering::Release);
            }
        }
    }

    impl KernelNews for ModelRing {
        fn has_news(&self) -> bool {
            self.0.news.load(Ordering::Acquire)
        }

        fn set_eventfd(&self, writes: bool) {
            self.0.may_write.store(writes, Ordering::Release);
        }
    }

    fn check_ring(resume_writes: fn(&ModelRing) -> bool) {
        model(move || {
            let ring = ModelRing::default();
            let kernel = ring.clone();
            let kernel = thread::spawn(move || kernel.complete());
            ring.set_eventfd(false);
            let has_news = resume_writes(&ring);
            kernel.join().unwrap();
            assert!(has_news || ring.0.written.load(Ordering::Acquire), "no news, and no write");
        });
    }

    /// A completion that comes at any time during or after a turn is seen or written.
    #[test]
    fn a_completion_around_a_turn_is_seen_or_written() {
        check_ring(resume_writes);
    }

    /// The planted fault: a worker that looks before it allows the writes misses a completion.
    #[test]
    #[should_panic = "no news, and no write"]
    fn a_look_before_the_writes_are_allowed_is_found() {
        check_ring(|ring| {
            let has_news = ring.has_news();
            ring.set_eventfd(true);
            has_news
        });
    }

    /// A producer that finds no room and sleeps is woken when room is freed.
    #[test]
    fn a_waiting_sender_is_woken_when_room_is_freed() {
        model(|| {
            let (room, sleep) = (Arc::new(InboxRoom::new(1)), Arc::new(SleepState::default()));
            assert!(room.reserve(0));
            let consumer = {
                let (room, sleep) = (room.clone(), sleep.clone());
                thread::spawn(move || room.free() & 1 << 1 != 0 && sleep.notify(1))
            };
            let waits = !room.reserve(1);
            let sleeps = waits && sleep.prepare();
            let wake_method = consumer.join().unwrap();
            assert!(!sleeps || wake_method, "asleep though there is room");
        });
    }

    /// A producer that finds no room is among the endpoints to wake, or finds room.
    #[test]
    fn a_sender_without_room_is_among_those_to_wake() {
        model(|| {
            let room = Arc::new(InboxRoom::new(1));
            assert!(room.reserve(0));
            let producer = {
                let room = room.clone();
                thread::spawn(move || room.reserve(1))
            };
            let woken = room.free();
            let reserved = producer.join().unwrap();
            let woken_later = if reserved { room.free() } else { 0 };
            assert!(reserved || (woken | woken_later) & 1 << 1 != 0, "nobody wakes endpoint 1");
        });
    }
}
