//! The mesh: the channels between shards, and the protocol for waking a sleeping shard.
//!
//! Each shard has one inbox, a bounded lock-free channel (crossbeam) that its siblings send to. A message is a whole
//! batch, so a turn costs one send per sibling, however many requests it carries. Each sender keeps at most
//! [`OUTSTANDING_MAX`] messages in an inbox. The inbox has room for that many from every sibling, so it is never full
//! and no sender ever blocks; two shards blocked on each other's full inboxes would deadlock.
//!
//! A shard that is about to sleep sets a flag and then checks its inbox again; a sender sends and then checks the flag.
//! Both sides have a sequentially consistent fence between their write and their read, so at least one sees the other's
//! write, and no message is left with a sleeping shard.

#![forbid(unsafe_code)]

use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Messages that one shard may have in another's inbox: its own batch, and the other's batch with the replies.
pub const OUTSTANDING_MAX: usize = 2;

/// On cache lines of its own (two, because processors fetch pairs), since any sender may write to it.
#[repr(align(128))]
struct Asleep(AtomicBool);

/// One shard's end of the mesh.
pub struct MeshEnd<M> {
    shard: usize,
    inbox: Receiver<M>,
    outboxes: Vec<Sender<M>>,
    asleep: Arc<[Asleep]>,
}

/// The mesh of `shards` shards: one end for each, in order.
pub fn mesh<M>(shards: usize) -> Vec<MeshEnd<M>> {
    let asleep: Arc<[Asleep]> = (0..shards).map(|_| Asleep(AtomicBool::new(false))).collect();
    let capacity = (OUTSTANDING_MAX * shards.saturating_sub(1)).max(1);
    let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| bounded(capacity)).unzip();
    let end = |(shard, inbox)| MeshEnd { shard, inbox, outboxes: outboxes.clone(), asleep: Arc::clone(&asleep) };
    inboxes.into_iter().enumerate().map(end).collect()
}

impl<M> MeshEnd<M> {
    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.outboxes.len()
    }

    /// Sends a message to a sibling's inbox. True if the sibling sleeps and this caller must ring it; only one sender
    /// is told so.
    ///
    /// # Panics
    /// If the inbox is full: the caller broke the bound of [`OUTSTANDING_MAX`].
    pub fn send(&self, to: usize, message: M) -> bool {
        match self.outboxes[to].try_send(message) {
            Ok(()) => {}
            // The sibling has stopped, so nothing waits for its answer.
            Err(crossbeam_channel::TrySendError::Disconnected(_)) => return false,
            Err(crossbeam_channel::TrySendError::Full(_)) => panic!("an inbox has room for all that may be sent to it"),
        }
        fence(Ordering::SeqCst);
        let asleep = &self.asleep[to].0;
        asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::Relaxed)
    }

    /// The next message of this shard's inbox.
    pub fn receive(&self) -> Option<M> {
        self.inbox.try_recv().ok()
    }

    /// True if there is a message.
    pub fn has_messages(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Announces that this shard is going to sleep. False if it must not, because a message has come.
    pub fn fall_asleep(&self) -> bool {
        if self.shards() == 1 {
            return true;
        }
        self.asleep[self.shard].0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.has_messages() {
            self.wake_up();
            return false;
        }
        true
    }

    /// Takes the announcement back.
    pub fn wake_up(&self) {
        if self.shards() > 1 {
            self.asleep[self.shard].0.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_rung_and_only_once() {
        let ends = mesh(3);
        assert!(!ends[0].send(1, 'a'), "awake");
        assert!(!ends[1].fall_asleep(), "there is a message");
        assert_eq!(ends[1].receive(), Some('a'));
        assert!(ends[1].fall_asleep());
        assert!(ends[0].send(1, 'b'), "asleep");
        assert!(!ends[2].send(1, 'c'), "has been rung");
        assert_eq!((ends[1].receive(), ends[1].receive(), ends[1].receive()), (Some('b'), Some('c'), None));
    }

    /// Two threads pass a token back and forth, sleeping (parked) in between: a lost wake-up would hang the test.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u32 = 20_000;
        let mut ends = mesh(2).into_iter();
        let (a, b) = (ends.next().expect("two"), ends.next().expect("two"));
        let main = std::thread::current();
        let next = |end: &MeshEnd<u32>| loop {
            if let Some(n) = end.receive() {
                return n;
            }
            if end.fall_asleep() {
                std::thread::park();
                end.wake_up();
            }
        };
        let echo = std::thread::spawn(move || {
            loop {
                let n = next(&b);
                if b.send(0, n) {
                    main.unpark();
                }
                if n == ROUNDS {
                    return;
                }
            }
        });
        for n in 0..=ROUNDS {
            if a.send(1, n) {
                echo.thread().unpark();
            }
            assert_eq!(next(&a), n);
        }
        echo.join().expect("the echo ends");
    }
}
