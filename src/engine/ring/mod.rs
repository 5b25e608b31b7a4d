//! One io_uring: direct descriptors, multishot polls, provided buffers, and borrowed sends that are
//! finished when [`Ring::transmit`] returns.
//!
//! Owns the ring, its receive buffers and the memory that system calls point to. Does not know
//! connections: it takes slots and tokens and returns completions. Sends carry
//! `MSG_DONTWAIT|MSG_WAITALL|MSG_NOSIGNAL` and skip the completion of a success, so only a short or
//! failed send posts one. Measurements selected these flags.

mod batch;
mod buffers;
mod client;
mod completion;
mod enter;
mod news;
mod operations;
mod peers;
mod sizes;
mod sockets;
mod token;
mod uring;

pub use self::batch::SendBatch;
pub use self::buffers::ReceivedBytes;
pub use self::completion::{Completion, Unsent};
pub use self::news::RingNews;
pub use self::operations::{Version, count as operations, least_kernel};
pub use self::sizes::RingSizes;
pub use self::token::{Op, Token};
pub use self::uring::{Refusal, Ring, RingHandle, try_out};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::sys;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn ring_of(submissions: u32, completions: u32, buffers: u16) -> Ring {
        let sizes = RingSizes { submissions, completions, slots: 64, buffers, buffer_bytes: 4096 };
        Ring::new(&sizes).expect("io_uring is there in tests")
    }

    fn ring() -> Ring {
        ring_of(64, 256, 8)
    }

    fn reap(ring: &mut Ring, into: &mut Vec<Completion>) {
        ring.reap();
        into.extend(std::iter::from_fn(|| ring.next_reaped()));
    }

    /// At least one completion.
    fn some(ring: &mut Ring) -> Vec<Completion> {
        let mut completions = Vec::new();
        while completions.is_empty() {
            ring.wait(Some(PATIENCE));
            reap(ring, &mut completions);
        }
        completions
    }

    fn next(ring: &mut Ring) -> Completion {
        let mut completions = some(ring);
        assert_eq!(completions.len(), 1, "{completions:?}");
        completions.remove(0)
    }

    /// Peers of so many slots of a ring, from slot 0.
    fn peers(ring: &mut Ring, count: u32) -> Vec<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        ring.listen([listener]);
        (0..count)
            .map(|slot| {
                let peer = TcpStream::connect(address).unwrap();
                peer.set_read_timeout(Some(PATIENCE)).unwrap();
                assert!(ring.accept(1, slot, 0, false));
                let accepted = next(ring);
                assert_eq!((accepted.token, accepted.result), (Token::new(Op::Accept, 1, slot), 0));
                peer
            })
            .collect()
    }

    /// Fills the sockets of so many slots until they take nothing more.
    fn fill(ring: &mut Ring, count: u32) {
        let block = vec![7u8; 1 << 20];
        for slot in 0..count {
            while ring.transmit(|batch| batch.send(1, slot, &block)).is_empty() {}
        }
    }

    #[test]
    fn a_borrowed_send_is_finished_when_transmit_returns() {
        let mut ring = ring();
        let mut peer = peers(&mut ring, 1).remove(0);
        let mut one = b"one ".to_vec();
        let (two, three) = (b"two ".to_vec(), b"three".to_vec());
        assert_eq!(ring.transmit(|batch| batch.send(1, 0, &one)), []);
        one.fill(b'x');
        let segments = [&two[..], &three[..]];
        assert_eq!(ring.transmit(|batch| batch.send_segments(1, 0, segments)), []);
        let mut bytes = [0; 13];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one two three");
        let mut completions = Vec::new();
        ring.poll();
        reap(&mut ring, &mut completions);
        assert!(completions.is_empty(), "success posts nothing: {completions:?}");
    }

    /// An iterator that announces too few items.
    struct Lying<I>(I);

    impl<I: Iterator> Iterator for Lying<I> {
        type Item = I::Item;

        fn next(&mut self) -> Option<I::Item> {
            self.0.next()
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (0, Some(0))
        }
    }

    impl<I: Iterator> ExactSizeIterator for Lying<I> {}

    #[test]
    fn a_send_can_have_more_ranges_than_its_iterator_announces() {
        for submissions in [2, 4, 64] {
            let mut ring = ring_of(submissions, 64, 2);
            let mut peers = peers(&mut ring, 9);
            for count in [1, 2, 3, 200, 255, 256, 257, 258, 1000, 5000] {
                let ranges: Vec<Vec<u8>> = (0..count).map(|nth| vec![nth as u8; 3]).collect();
                let expected = ranges.concat();
                // Plain sends between them, so that the queue fills up at each of them once.
                let unsent = ring.transmit(|batch| {
                    for slot in 0..9 {
                        if (slot + count) % 3 == 0 {
                            let ranges = Lying(ranges.iter().map(Vec::as_slice));
                            batch.send_segments(1, slot, ranges);
                        } else {
                            batch.send(1, slot, &expected);
                        }
                    }
                });
                assert_eq!(unsent, [], "{count} ranges");
                for peer in &mut peers {
                    let mut bytes = vec![0; expected.len()];
                    peer.read_exact(&mut bytes).unwrap();
                    assert!(bytes == expected, "{count} ranges, {submissions} submissions");
                }
            }
        }
    }

    #[test]
    fn a_short_send_is_reported_with_the_bytes_taken() {
        let mut ring = ring();
        let peer = peers(&mut ring, 1).remove(0);
        let block = vec![7u8; 1 << 20];
        let short = loop {
            if let [short] = ring.transmit(|batch| batch.send(1, 0, &block)) {
                break *short;
            }
        };
        assert_eq!((short.slot, short.generation), (0, 1));
        assert!(short.taken.is_some_and(|taken| taken < block.len()), "{short:?}");
        fill(&mut ring, 1);
        let again = ring.transmit(|batch| batch.send(1, 0, &block));
        assert!(matches!(again, [Unsent { taken: Some(_), .. }]), "{again:?}");
        drop(peer);
    }

    #[test]
    fn every_failed_send_is_reported_with_a_small_completion_queue() {
        for (submissions, completions) in [(2, 2), (4, 4), (8, 8), (4, 16), (16, 16)] {
            let mut ring = ring_of(submissions, completions, 2);
            let peers = peers(&mut ring, 50);
            fill(&mut ring, 50);
            // Completions of other operations share the queue.
            for slot in 0..50 {
                ring.watch_writable(1, slot);
                ring.receive(1, slot);
                ring.cancel(Token::new(Op::Writable, 1, slot));
            }
            // Sockets that are full may have room for a little by now.
            let bytes = vec![7; 4 << 20];
            let unsent =
                ring.transmit(|batch| (0..50).for_each(|slot| batch.send(1, slot, &bytes)));
            let slots: Vec<u32> = unsent.iter().map(|send| send.slot).collect();
            assert_eq!(slots, (0..50).collect::<Vec<u32>>(), "{completions} completions");
            assert!(
                unsent.iter().all(|send| send.taken.is_some_and(|taken| taken < bytes.len())),
                "{unsent:?}"
            );
            let mut others = Vec::new();
            reap(&mut ring, &mut others);
            ring.poll();
            reap(&mut ring, &mut others);
            let of = |op| others.iter().filter(|found| found.token.op == op).count();
            let counts = [Op::Send, Op::Receive, Op::Cancel, Op::Writable].map(of);
            assert_eq!(counts, [0, 50, 50, 50], "{completions} completions");
            assert!(completions == 16 || ring.overflows() > 0);
            drop(peers);
        }
    }

    #[test]
    fn a_send_to_a_broken_socket_is_reported_by_the_same_transmit() {
        let mut ring = ring_of(2, 2, 2);
        let peers = peers(&mut ring, 40);
        for peer in peers {
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let expected: Vec<_> =
            (0..40).map(|slot| Unsent { slot, generation: 1, taken: None }).collect();
        let unsent = ring.transmit(|batch| (0..40).for_each(|slot| batch.send(1, slot, b"x")));
        assert_eq!(unsent, expected);
    }

    #[test]
    fn more_completions_than_queue_entries_are_reaped_at_once() {
        let mut ring = ring_of(4, 4, 2);
        let mut peers = peers(&mut ring, 60);
        (0..60).for_each(|slot| ring.watch(1, slot));
        ring.submit();
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
        ring.poll();
        let mut completions = Vec::new();
        reap(&mut ring, &mut completions);
        let mut slots: Vec<u32> = completions.iter().map(|found| found.token.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots, (0..60).collect::<Vec<u32>>());
        assert!(ring.overflows() > 0);
        assert!(!ring.has_news(), "nothing is left");
    }

    #[test]
    fn a_buffer_is_returned_when_its_bytes_are_dropped() {
        let mut ring = ring_of(8, 8, 2);
        let mut peers = peers(&mut ring, 3);
        for round in 0..20u8 {
            peers.iter_mut().for_each(|peer| peer.write_all(&[round]).unwrap());
            (0..3).for_each(|slot| ring.receive(1, slot));
            let mut completions = Vec::new();
            while completions.len() < 3 {
                completions.extend(some(&mut ring));
            }
            let mut held = Vec::new();
            for completion in &mut completions {
                held.extend(completion.take_received());
                assert!(completion.take_received().is_none(), "one owner for each buffer");
            }
            assert_eq!(held.iter().map(|bytes| bytes[0]).collect::<Vec<_>>(), [round; 2]);
            let refused = completions.iter().find(|found| found.errno() == Some(libc::ENOBUFS));
            let slot = refused.expect("two buffers for three reads").token.slot;
            drop(held);
            // Bytes that are not taken return their buffer too.
            ring.receive(1, slot);
            assert_eq!(next(&mut ring).result, 1);
        }
        // They may outlive the ring.
        peers[0].write_all(b"last").unwrap();
        ring.receive(1, 0);
        let mut bytes = next(&mut ring).take_received().expect("the bytes");
        drop(ring);
        bytes[0] = b'L';
        assert_eq!(&bytes[..], b"Last");
    }

    #[test]
    fn an_installed_descriptor_has_one_owner() {
        let mut ring = ring();
        let mut peer = peers(&mut ring, 1).remove(0);
        for round in 0..2 {
            ring.install(1, 0);
            let mut completion = next(&mut ring);
            let descriptor = completion.take_descriptor().expect("a descriptor");
            assert!(completion.take_descriptor().is_none());
            if round == 0 {
                continue;
            }
            ring.shutdown(1, 0);
            next(&mut ring);
            ring.close(1, 0);
            next(&mut ring);
            drop(TcpStream::from(descriptor));
            assert_eq!(peer.read(&mut [0]).unwrap(), 0, "no copy is left");
        }
    }

    #[test]
    fn a_sent_socket_arrives_though_the_other_queue_is_full() {
        let (mut from, mut to) = (ring_of(8, 8, 2), ring_of(2, 2, 2));
        let mut peers = peers(&mut from, 20);
        let handle = to.handle().unwrap();
        for slot in 0..20 {
            from.send_socket(Token::new(Op::SendSocket, 1, slot), &handle, 5, slot);
        }
        let (mut passed, mut arrived) = (Vec::new(), Vec::new());
        while passed.len() < 20 {
            to.poll();
            from.wait(Some(Duration::from_millis(10)));
            reap(&mut from, &mut passed);
        }
        to.poll();
        reap(&mut to, &mut arrived);
        assert!(passed.iter().all(|found| found.result >= 0), "{passed:?}");
        assert_eq!(arrived.len(), 20);
        assert!(arrived.iter().all(|found| found.token.op == Op::SocketArrived));
        let unsent = to.transmit(|batch| (0..20).for_each(|slot| batch.send(5, slot, b"here")));
        assert_eq!(unsent, []);
        for peer in &mut peers {
            let mut bytes = [0; 4];
            peer.read_exact(&mut bytes).unwrap();
            peer.shutdown(Shutdown::Both).unwrap();
        }
    }

    #[test]
    fn an_empty_slot_can_be_closed() {
        let mut ring = ring();
        ring.close(1, 9);
        let closed = next(&mut ring);
        assert_eq!((closed.token.op, closed.errno()), (Op::Close, Some(libc::EBADF)));
    }

    #[test]
    fn a_slot_beyond_the_table_fails_the_operation() {
        let mut ring = ring();
        for slot in [64, 1 << 20, u32::MAX - 2, u32::MAX] {
            ring.socket(1, slot);
            let made = next(&mut ring);
            assert_eq!((made.token, made.result < 0), (Token::new(Op::Socket, 1, slot), true));
        }
    }

    #[test]
    fn an_armed_eventfd_ends_the_wait_from_any_writer() {
        let bell = sys::doorbell().unwrap();
        let (mut leader, mut follower) = (ring(), ring());
        follower.ring_doorbell_on_news(&bell).unwrap();
        leader.watch_doorbell(bell.try_clone().unwrap());
        let mut completions = Vec::new();
        for round in 0..50 {
            leader.arm_doorbell();
            let begun = std::time::Instant::now();
            if round % 2 == 0 {
                sys::ring_doorbell(&bell);
            } else {
                // A completion of the other ring rings too, and ends the watch.
                follower.cancel(Token::new(Op::Poll, 0, 0));
                follower.submit();
            }
            leader.wait(Some(PATIENCE));
            assert!(begun.elapsed() < PATIENCE / 2, "round {round}");
            reap(&mut leader, &mut completions);
            reap(&mut follower, &mut completions);
            // A write before the eventfd is armed again does not end the wait.
            sys::ring_doorbell(&bell);
        }
        assert!(completions.iter().all(|completion| completion.token.op == Op::Cancel));
    }
}
