//! The keys of this shard that commands in slices work on, and the requests that wait for them.
//!
//! A command in slices holds its key from its first slice to its last. Requests on that key wait, copied from their
//! batch or input, and so do all that the same clients send to this shard after them: a client's requests are executed
//! in its order. They are executed when the key is released; one of them may hold it again. Other clients' requests on
//! other keys go on.

use super::batch::NO_KEY;
use super::remote::Origin;
use crate::command::{Administration, Args, Call, Request, Span};
use crate::engine::KeyHash;
use crate::execute::UploadTarget;
use std::collections::{HashMap, VecDeque};

/// Bytes of waiting requests at which no more are taken: connections and batches wait instead.
const BYTES_MAX: usize = 1 << 20;

/// Bytes that a waiting request counts beside its own.
const BYTES_BESIDE: usize = 128;

/// A request that waits.
pub(super) struct Waiting {
    pub(super) origin: Origin,
    /// The reply that the origin's connection expects from it.
    pub(super) sequence: u32,
    /// The hash of its key; for a part of a command on all keys, of the database.
    pub(super) hash: KeyHash,
    pub(super) work: Work,
    /// What the spans of `work` refer to.
    pub(super) bytes: Box<[u8]>,
}

/// What to do when its turn has come.
pub(super) enum Work {
    /// Execute a request.
    Request(Request<Span>),
    /// Execute a request's part for one key, or for this shard.
    Part { key: Span, call: Call<Span> },
    /// Change the engine.
    Administer(Administration),
    /// Store a long value that is complete, its line end right or not, followed by `count` arguments of RESP.
    Finish { target: UploadTarget, intact: bool, after: Span, count: u32 },
}

impl Waiting {
    pub(super) fn request(origin: Origin, sequence: u32, hash: KeyHash, request: &Request<&[u8]>) -> Self {
        let mut bytes = Vec::new();
        let work = Work::Request(request.map(|arg| Span::append(arg, &mut bytes)));
        Self { origin, sequence, hash, work, bytes: bytes.into() }
    }

    pub(super) fn part(origin: Origin, sequence: u32, hash: KeyHash, key: &[u8], call: &Call<&[u8]>) -> Self {
        let mut bytes = Vec::new();
        let key = Span::append(key, &mut bytes);
        let Call { command, count, args } = *call;
        let work = Work::Part { key, call: Call { command, count, args: Span::append(args, &mut bytes) } };
        Self { origin, sequence, hash, work, bytes: bytes.into() }
    }

    pub(super) fn administer(origin: Origin, sequence: u32, administration: Administration) -> Self {
        Self { origin, sequence, hash: NO_KEY, work: Work::Administer(administration), bytes: Box::default() }
    }

    pub(super) fn finish(origin: Origin, sequence: u32, target: UploadTarget, intact: bool, after: Args) -> Self {
        let (mut bytes, count) = (Vec::new(), after.len() as u32);
        let after = Span::append(after.bytes(), &mut bytes);
        let hash = target.hash();
        Self { origin, sequence, hash, work: Work::Finish { target, intact, after, count }, bytes: bytes.into() }
    }

    /// True for what concerns all keys.
    fn is_of_all_keys(&self) -> bool {
        match &self.work {
            Work::Part { key, .. } => key.range().is_empty(),
            Work::Administer(_) => true,
            Work::Request(_) | Work::Finish { .. } => false,
        }
    }

    fn counted_bytes(&self) -> usize {
        self.bytes.len() + BYTES_BESIDE
    }
}

/// A key that is held, or that requests wait for.
struct Held {
    hash: KeyHash,
    /// The client whose command works on it, and the reply that it expects from that.
    user: Option<(Origin, u32)>,
    waiting: VecDeque<Waiting>,
}

/// The keys that are held.
#[derive(Default)]
pub(super) struct Holds {
    held: VecDeque<Held>,
    /// How many commands each client has among those that hold or wait.
    clients: HashMap<Origin, u32>,
    /// What all waiting requests count.
    bytes: usize,
}

impl Holds {
    /// True if no key is held and no request waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// A client's command begins to work on a key in slices.
    pub(super) fn hold(&mut self, hash: KeyHash, user: Origin, sequence: u32) {
        self.queue(hash).user = Some((user, sequence));
        *self.clients.entry(user).or_default() += 1;
    }

    /// That command has ended.
    pub(super) fn release(&mut self, hash: KeyHash) {
        if let Some((user, _)) = self.queue(hash).user.take() {
            self.forget(user);
        }
        self.held.retain(|held| held.user.is_some() || !held.waiting.is_empty());
    }

    /// True if a client's next request has to wait: for its key, or for what the client has sent before.
    pub(super) fn must_wait(&self, origin: Origin, hash: KeyHash) -> bool {
        self.clients.contains_key(&origin) || self.held.iter().any(|held| held.hash == hash)
    }

    /// True if another request may wait.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }

    /// Has a request wait, behind those that wait for the same.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        let is_before = |held: &&Held| held.before(waiting.origin, waiting.sequence);
        let behind = match self.clients.contains_key(&waiting.origin) {
            true => self.held.iter().find(is_before).map_or(waiting.hash, |held| held.hash),
            false => waiting.hash,
        };
        self.bytes += waiting.counted_bytes();
        *self.clients.entry(waiting.origin).or_default() += 1;
        self.queue(behind).waiting.push_back(waiting);
    }

    /// Takes a request that need not wait any more and that `may_answer`, of each key in turn.
    pub(super) fn next(&mut self, may_answer: impl Fn(Origin) -> bool) -> Option<Waiting> {
        // Each either is taken or waits for another key, behind what has come earlier: this comes to an end.
        loop {
            let is_due =
                |held: &Held| held.user.is_none() && held.waiting.front().is_some_and(|w| may_answer(w.origin));
            let index = self.held.iter().position(is_due)?;
            let mut held = self.held.remove(index)?;
            let waiting = held.waiting.pop_front()?;
            let was_for = held.hash;
            if !held.waiting.is_empty() {
                self.held.push_back(held);
            }
            self.bytes -= waiting.counted_bytes();
            self.forget(waiting.origin);
            let Waiting { origin, sequence, hash, .. } = waiting;
            let its_key_is_held = hash != was_for && self.held.iter().any(|held| held.hash == hash);
            if its_key_is_held && !waiting.is_of_all_keys() || self.held.iter().any(|h| h.before(origin, sequence)) {
                self.wait(waiting);
                continue;
            }
            return Some(waiting);
        }
    }

    fn forget(&mut self, client: Origin) {
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// The entry of a key, made if there is none.
    fn queue(&mut self, hash: KeyHash) -> &mut Held {
        let index = self.held.iter().position(|held| held.hash == hash).unwrap_or_else(|| {
            self.held.push_back(Held { hash, user: None, waiting: VecDeque::new() });
            self.held.len() - 1
        });
        &mut self.held[index]
    }

    /// For a failing run of the simulator.
    #[cfg(feature = "sim")]
    pub(super) fn describe(&self) -> String {
        let keys = self.held.iter().map(|held| format!("{} ({:?})", held.waiting.len(), held.user));
        format!("requests waiting for keys: {:?}", keys.collect::<Vec<_>>())
    }
}

impl Held {
    /// True if one of the commands that hold this key or wait for it came from this client, before a certain one.
    fn before(&self, origin: Origin, sequence: u32) -> bool {
        // Sequence numbers wrap around.
        let is_earlier = |of: Origin, other: u32| of == origin && other.wrapping_sub(sequence) > u32::MAX / 2;
        self.user.is_some_and(|(of, other)| is_earlier(of, other))
            || self.waiting.iter().any(|waiting| is_earlier(waiting.origin, waiting.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, Operation, Session};
    use crate::reactor::Token;

    fn client(slot: u32) -> Origin {
        Origin { shard: 0, token: Token { slot, generation: 0 } }
    }

    fn waiting(slot: u32, hash: u64, sequence: u32) -> Waiting {
        let request = Request { key: &b"key"[..], operation: Operation::Delete, session: Session::default() };
        Waiting::request(client(slot), sequence, KeyHash(hash), &request)
    }

    /// A part of a command on all keys.
    fn part(slot: u32, sequence: u32) -> Waiting {
        let call = Call { command: Command::FlushDb, count: 0, args: &b""[..] };
        Waiting::part(client(slot), sequence, KeyHash(0), b"", &call)
    }

    fn next(holds: &mut Holds) -> Option<(u64, u32)> {
        holds.next(|_| true).map(|waiting| (waiting.hash.0, waiting.sequence))
    }

    #[test]
    fn requests_wait_in_their_order_and_keys_take_turns() {
        let mut holds = Holds::default();
        holds.hold(KeyHash(1), client(1), 0);
        holds.hold(KeyHash(2), client(2), 0);
        (0..3).for_each(|n| holds.wait(waiting(3, 1, n)));
        (3..5).for_each(|n| holds.wait(waiting(4, 2, n)));
        assert_eq!(next(&mut holds), None, "both are in use");
        assert!(holds.must_wait(client(9), KeyHash(1)) && !holds.must_wait(client(9), KeyHash(3)));
        holds.release(KeyHash(1));
        assert!(holds.must_wait(client(9), KeyHash(1)), "those that wait come first");
        assert_eq!(next(&mut holds), Some((1, 0)));
        holds.release(KeyHash(2));
        assert_eq!([next(&mut holds), next(&mut holds)], [Some((2, 3)), Some((1, 1))]);
        holds.hold(KeyHash(2), client(2), 1);
        assert_eq!([next(&mut holds), next(&mut holds)], [Some((1, 2)), None]);
        assert!(!holds.must_wait(client(9), KeyHash(1)) && holds.must_wait(client(9), KeyHash(2)));
        holds.release(KeyHash(2));
        assert_eq!(next(&mut holds), Some((2, 4)));
        assert!(holds.is_empty() && holds.bytes == 0 && holds.clients.is_empty());
    }

    /// A FLUSHDB overtook an SADD of the same client that waited for its key, and a DEL a DBSIZE that had to wait:
    /// found by the simulator (seeds 588 and 367).
    #[test]
    fn what_a_client_has_sent_is_executed_in_its_order() {
        let mut holds = Holds::default();
        holds.hold(KeyHash(1), client(1), 0);
        holds.hold(KeyHash(2), client(2), 0);
        assert!(holds.must_wait(client(1), KeyHash(7)) && !holds.must_wait(client(3), KeyHash(7)));
        holds.wait(waiting(3, 1, 5));
        assert!(holds.must_wait(client(3), KeyHash(7)));
        holds.wait(part(3, 6));
        holds.wait(waiting(3, 2, 7));
        holds.wait(part(3, 8));
        holds.wait(waiting(3, 7, 9));
        holds.release(KeyHash(1));
        assert_eq!([next(&mut holds), next(&mut holds)], [Some((1, 5)), Some((0, 6))]);
        assert_eq!(next(&mut holds), None, "the next one waits for its own key now, and the others for it");
        holds.release(KeyHash(2));
        assert_eq!([(); 3].map(|()| next(&mut holds)), [Some((2, 7)), Some((0, 8)), Some((7, 9))]);
        assert!(holds.is_empty() && holds.clients.is_empty());
    }

    #[test]
    fn waiting_requests_are_bounded_and_wait_for_room_to_answer() {
        let mut holds = Holds::default();
        holds.hold(KeyHash(1), client(1), 0);
        let mut count = 0;
        while holds.has_room() {
            holds.wait(waiting(2, 1, count));
            count += 1;
        }
        assert!(count < 10_000, "{count}");
        holds.release(KeyHash(1));
        assert!(holds.next(|_| false).is_none());
        assert_eq!((0..count).filter(|_| next(&mut holds).is_some()).count() as u32, count);
        assert!(holds.is_empty());
    }
}
