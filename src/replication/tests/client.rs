//! Client requests, and how a node of the tests executes them.

use super::*;

/// An operation of a client.
#[derive(Clone, Copy)]
pub(super) enum Op {
    Get,
    Put(&'static str),
    /// Put with a time to live, in milliseconds.
    PutFor(&'static str, u64),
    Append(&'static str),
    Delete,
}

/// The result of a read: a value, nothing, or why there was no answer.
pub(super) type Seen = Result<Option<String>, Fate>;

pub(super) fn value(value: &str) -> Seen {
    Ok(Some(value.to_string()))
}

pub(super) const NOTHING: Seen = Ok(None);

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Refused(Refusal),
    Parked,
    Unknown,
    Done,
}

/// A request: its outcome, the value it read, and the token of its answer.
pub(super) struct Asked {
    pub(super) fate: Fate,
    pub(super) seen: Option<String>,
    pub(super) token: Option<Position>,
}

impl Cluster {
    /// Sends a client's request to a node. The frames that the node sends in turn are on the wire afterwards.
    pub(super) fn ask(&mut self, node: usize, level: Level, letter: &str, op: Op) -> usize {
        self.ask_with(None, node, level, letter, op)
    }

    /// As [`Cluster::ask`], with a session's token.
    pub(super) fn ask_with(
        &mut self,
        token: Option<Position>,
        node: usize,
        level: Level,
        letter: &str,
        op: Op,
    ) -> usize {
        let (key, now) = (key(letter), self.clock(node));
        let writes = !matches!(op, Op::Get);
        let admitted = self.nodes[node].replication.admit(group(), &key, level, writes, token, now);
        let asked = match admitted {
            Err(refusal) => Asked { fate: Fate::Refused(refusal), seen: None, token: None },
            Ok(()) => self.execute(node, level, key, op),
        };
        self.asked.push(asked);
        let (Node { replication, store, .. }, mut actions) = (&mut self.nodes[node], Vec::new());
        replication.flush(now, store, &mut actions);
        self.dispatch(node, actions);
        self.asked.len() - 1
    }

    /// A node's store evicts a key on its own.
    pub(super) fn evict(&mut self, node: usize, letter: &str) {
        let (key, now) = (key(letter), self.clock(node));
        let Node { replication, store, .. } = &mut self.nodes[node];
        store.remove(group(), &key);
        replication.evicted(group(), &key, now, store);
    }

    fn execute(&mut self, node: usize, level: Level, key: Key, op: Op) -> Asked {
        let (now, wall_ms) = (self.clock(node), WALL_MS + self.now + self.nodes[node].wall_ahead_ms);
        let Node { replication, store, .. } = &mut self.nodes[node];
        let item = store.image(group(), &key);
        let is_expired = item.as_ref().is_some_and(|item| item.expires.is_some_and(|expires| expires <= wall_ms));
        let live = item.filter(|_| !is_expired);
        let mut effects = Vec::new();
        if is_expired && replication.leads_in(group()).is_some() && self.rules.hold(Rule::ExpiryInLog) {
            effects.push(Effect::Remove { key: key.clone() });
        }
        let put = |value: &str, expires| Effect::Put { key: key.clone(), value: value.as_bytes().into(), expires };
        match (op, &live) {
            (Op::Get, _) | (Op::Append(_), None) => {}
            (Op::Put(value), _) => effects.push(put(value, None)),
            (Op::PutFor(value, ttl_ms), _) => effects.push(put(value, Some(wall_ms + ttl_ms))),
            (Op::Append(value), Some(item)) => {
                let (key, change) = (key.clone(), value.as_bytes().into());
                effects.push(Effect::Change { key, before: item.at, change });
            }
            (Op::Delete, _) => effects.push(Effect::Remove { key: key.clone() }),
        }
        for effect in effects {
            let at = replication.next_position(group()).expect("the request was admitted, so the group is held");
            store.apply(group(), &effect, at);
            replication.record(group(), effect);
        }
        let (fate, token) = match replication.complete_request(group(), level, self.asked.len() as Ticket, now) {
            Completion::Now(token) => (Fate::Done, Some(token)),
            Completion::Parked(token) => (Fate::Parked, Some(token)),
        };
        let seen = live.map(|item| String::from_utf8_lossy(&item.value).into_owned());
        Asked { fate, seen, token }
    }

    /// Requests a write.
    pub(super) fn put(&mut self, node: usize, level: Level, letter: &str, value: &'static str) -> usize {
        self.ask(node, level, letter, Op::Put(value))
    }

    pub(super) fn is_done(&self, request: usize) -> bool {
        self.asked[request].fate == Fate::Done
    }

    /// Requests a read and delivers frames. Returns its result, if it was answered.
    pub(super) fn read(&mut self, node: usize, level: Level, letter: &str) -> Seen {
        let request = self.ask(node, level, letter, Op::Get);
        self.deliver();
        self.seen(request)
    }

    /// The result of a read, if it was answered.
    pub(super) fn seen(&self, request: usize) -> Seen {
        let Asked { fate, seen, .. } = &self.asked[request];
        if *fate == Fate::Done { Ok(seen.clone()) } else { Err(*fate) }
    }

    /// True if the stores of two nodes are equal.
    pub(super) fn stores_are_equal(&self, node: usize, other: usize) -> bool {
        self.nodes[node].store.0 == self.nodes[other].store.0
    }
}
