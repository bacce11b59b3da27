//! Clients: their requests, and how they handle the answers; and how a host executes a request.

use crate::check::What;
use crate::random::Random;
use crate::world::{Event, MS, SECOND, Us, World};
use pinion::replication::{Completion, Effect, Key, Level, Position, Refusal, Rule};
use pinion::slots::Group;
use std::collections::{BTreeMap, BTreeSet};

/// How long a client waits for an answer.
const PATIENCE_US: Us = 4 * SECOND;
/// How often a refused request is retried.
const TRIES_MAX: u32 = 60;

/// A client.
pub struct Client {
    level: Level,
    keys: Vec<Key>,
    random: Random,
    id: u64,
    next_value: u32,
    pending: Option<Pending>,
    /// The host that it believes to be a group's primary.
    believed: BTreeMap<Group, usize>,
    tokens: BTreeMap<Group, Position>,
    /// By key of its own: no read may return an older value.
    floors: BTreeMap<Key, u32>,
    /// Values written without an answer: these writes may take effect at any time, even after later ones.
    belated: BTreeSet<u32>,
    pub stops: bool,
}

struct Pending {
    request: Request,
    called: Us,
    tries: u32,
}

/// What a client is waiting for.
#[derive(Debug)]
pub enum Wake {
    Next,
    Again { id: u64 },
    Timeout { id: u64 },
    Reply(Reply),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub client: usize,
    pub id: u64,
    pub key: Key,
    pub op: Op,
    pub level: Level,
    pub token: Option<Position>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Get,
    Put {
        value: u32,
        ttl_ms: Option<u64>,
    },
    Delete,
    /// Appends to the value, if the key exists.
    Append {
        value: u32,
    },
    /// Puts a value, if the key does not exist.
    Add {
        value: u32,
    },
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub client: usize,
    pub id: u64,
    pub outcome: Outcome,
    pub token: Option<Position>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Value(Vec<u32>),
    /// Whether the operation found the key as it needs it.
    Done(bool),
    Refused(Refusal),
    Unknown,
}

/// The clients of a run, with their keys: strong clients share theirs, sessions have their own.
pub fn all(seed: u64) -> Vec<Client> {
    let names = |names: &[&str]| names.iter().map(|name| Key::from(name.as_bytes())).collect::<Vec<Key>>();
    let strong = names(&["{a}s0", "{b}s1", "{a}s2"]);
    let shared = names(&["{a}e0", "{b}e1", "{b}e2"]);
    let own = |number: usize| names(&[&format!("{{a}}p{number}"), &format!("{{b}}p{number}")]);
    let of = |level: Level, keys: Vec<Key>, number: usize| Client {
        level,
        keys,
        random: Random::new(seed.wrapping_mul(31).wrapping_add(number as u64)),
        id: 0,
        next_value: number as u32 * 100_000,
        pending: None,
        believed: BTreeMap::new(),
        tokens: BTreeMap::new(),
        floors: BTreeMap::new(),
        belated: BTreeSet::new(),
        stops: false,
    };
    let mut clients: Vec<Client> = (0..3).map(|number| of(Level::Strong, strong.clone(), number)).collect();
    clients.extend((3..5).map(|number| of(Level::Session, own(number), number)));
    clients.push(of(Level::Eventual, shared, 5));
    clients
}

/// The groups of all keys.
pub fn groups() -> Vec<Group> {
    vec![Group::of(b"{a}"), Group::of(b"{b}")]
}

/// Handles an event of a client.
pub fn wake(world: &mut World, clients: &mut [Client], number: usize, what: Wake) {
    let client = &mut clients[number];
    match what {
        Wake::Next => {
            if client.stops || client.pending.is_some() {
                return;
            }
            let request = client.choose(number);
            client.pending = Some(Pending { request, called: world.now, tries: 0 });
            world.counts.operations += 1;
            send(world, client, number);
        }
        Wake::Again { id } => {
            if client.pending.as_ref().is_some_and(|pending| pending.request.id == id) {
                send(world, client, number);
            }
        }
        Wake::Timeout { id } => {
            if client.pending.as_ref().is_some_and(|pending| pending.request.id == id) {
                finish(world, client, number, Outcome::Unknown, None);
            }
        }
        Wake::Reply(reply) => {
            let Some(pending) = &mut client.pending else { return };
            if pending.request.id != reply.id {
                return;
            }
            match reply.outcome {
                Outcome::Refused(refusal) => refused(world, client, number, refusal),
                outcome => finish(world, client, number, outcome, reply.token),
            }
        }
    }
}

impl Client {
    fn choose(&mut self, client: usize) -> Request {
        self.id += 1;
        let key = self.random.pick(&self.keys).clone();
        let mut value = || {
            self.next_value += 1;
            self.next_value
        };
        let op = match (self.level, self.random.below(100)) {
            (_, 0..45) => Op::Get,
            (Level::Session, _) => Op::Put { value: value(), ttl_ms: None },
            (_, 45..68) => Op::Put { value: value(), ttl_ms: None },
            (_, 68..74) => Op::Put { value: value(), ttl_ms: Some(200 + self.random.below(1500)) },
            (_, 74..88) => Op::Append { value: value() },
            (_, 88..95) => Op::Delete,
            _ => Op::Add { value: value() },
        };
        let token = if self.level == Level::Session { self.tokens.get(&Group::of(&key)).copied() } else { None };
        Request { client, id: self.id, key, op, level: self.level, token }
    }
}

fn send(world: &mut World, client: &mut Client, number: usize) {
    let Some(pending) = &mut client.pending else { return };
    pending.tries += 1;
    let request = pending.request.clone();
    let group = Group::of(&request.key);
    let anywhere = request.op == Op::Get && request.level != Level::Strong && pending.tries == 1;
    let random = client.random.below(world.hosts.len() as u64) as usize;
    let host = if anywhere { random } else { client.believed.get(&group).copied().unwrap_or(random) };
    let delay = 50 + world.random.below(400) + world.hosts[host].slow_us;
    world.trace(|| format!("client {number} asks host {host}: {request:?}"));
    let id = request.id;
    world.after(delay, Event::Request { host, request });
    // One timeout per try: a host that is down does not answer.
    let patience = if pending.tries == 1 { PATIENCE_US } else { PATIENCE_US + SECOND };
    world.after(patience, Event::Client { client: number, what: Wake::Timeout { id } });
}

fn refused(world: &mut World, client: &mut Client, number: usize, refusal: Refusal) {
    let Some(pending) = &mut client.pending else { return };
    let group = Group::of(&pending.request.key);
    world.trace(|| format!("client {number} is refused: {refusal}"));
    match refusal {
        Refusal::Elsewhere(Some(node)) => _ = client.believed.insert(group, world.host_of(node)),
        Refusal::Elsewhere(None) => _ = client.believed.remove(&group),
        Refusal::SessionLost => {
            world.counts.session_losses += 1;
            client.tokens.remove(&group);
            client.floors.retain(|key, _| Group::of(key) != group);
            return finish_refused(world, client, number);
        }
        // Another host may know better.
        _ if client.random.permille(200) => _ = client.believed.remove(&group),
        _ => {}
    }
    if pending.tries >= TRIES_MAX {
        return finish_refused(world, client, number);
    }
    let id = pending.request.id;
    let wait = 2 * MS + client.random.below(40 * MS);
    world.after(wait, Event::Client { client: number, what: Wake::Again { id } });
}

/// Gives up a refused request, which had no effect.
fn finish_refused(world: &mut World, client: &mut Client, number: usize) {
    client.pending = None;
    next(world, client, number);
}

fn next(world: &mut World, client: &mut Client, number: usize) {
    let think = 15 * MS + client.random.below(120 * MS);
    world.after(think, Event::Client { client: number, what: Wake::Next });
}

fn finish(world: &mut World, client: &mut Client, number: usize, outcome: Outcome, token: Option<Position>) {
    let Some(pending) = client.pending.take() else { return };
    let Request { key, op, level, .. } = &pending.request;
    world.trace(|| format!("client {number}: {op:?} of {} is {outcome:?}", String::from_utf8_lossy(key)));
    let ended = if outcome == Outcome::Unknown { None } else { Some(world.now) };
    match level {
        Level::Strong => note_strong(world, &pending, &outcome, ended),
        Level::Session => note_session(world, client, &pending, &outcome, token),
        Level::Eventual => {
            if let Op::Put { value, .. } | Op::Append { value } | Op::Add { value } = op {
                world.history.eventual.insert(*value);
            }
        }
    }
    if outcome == Outcome::Unknown {
        client.believed.remove(&Group::of(key));
    }
    next(world, client, number);
}

fn note_strong(world: &mut World, pending: &Pending, outcome: &Outcome, ended: Option<Us>) {
    let done = if let Outcome::Done(done) = outcome { Some(*done) } else { None };
    let what = match (&pending.request.op, outcome) {
        (Op::Get, Outcome::Value(values)) => What::Get(values.clone()),
        // A read without an answer says nothing.
        (Op::Get, _) => return,
        (Op::Put { value, .. }, _) => What::Put(*value),
        (Op::Delete, _) => What::Delete,
        (Op::Append { value }, _) => What::Append(*value, done),
        (Op::Add { value }, _) => What::Add(*value, done),
    };
    if let Op::Put { value, ttl_ms: Some(ttl_ms) } = pending.request.op {
        let earliest = (pending.called + ttl_ms * MS).saturating_sub((2 * world.options.skew_ms + 5) * MS);
        world.history.add(&pending.request.key, earliest.max(pending.called), None, What::Expire(value));
    }
    world.history.add(&pending.request.key, pending.called, ended, what);
}

fn note_session(world: &mut World, client: &mut Client, pending: &Pending, outcome: &Outcome, token: Option<Position>) {
    let Request { key, op, .. } = &pending.request;
    if let Some(token) = token {
        let known = client.tokens.entry(Group::of(key)).or_insert(token);
        *known = token.max(*known);
    }
    let floor = client.floors.entry(key.clone()).or_insert(0);
    match (op, outcome) {
        (Op::Put { value, .. }, Outcome::Done(_)) => *floor = *value,
        (Op::Put { value, .. }, _) => _ = client.belated.insert(*value),
        (Op::Get, Outcome::Value(values)) => {
            let seen = values.last().copied().unwrap_or(0);
            let vanished = seen == 0 && world.history.may_have_vanished(key);
            if seen < *floor && client.belated.contains(&seen) {
                return;
            }
            if seen < *floor && !vanished {
                let name = String::from_utf8_lossy(key).into_owned();
                let floor = *floor;
                world.violation(format!("a session read {seen} of {name} after {floor}"));
            } else {
                *floor = seen;
            }
        }
        _ => {}
    }
}

// Hosts.

/// Executes a request on a host.
pub fn execute(world: &mut World, host: usize, request: Request) {
    let (now_ms, wall_ms) = (world.clock_ms(host), world.wall_ms(host));
    let rules = world.options.broken;
    let this = &mut world.hosts[host];
    let Some(node) = &mut this.node else { return };
    let incarnation = node.identity().incarnation;
    let Request { client, id, key, op, level, token } = request;
    let group = Group::of(&key);
    let reply = |outcome, token| Reply { client, id, outcome, token };
    if let Err(refusal) = node.replication().admit(group, &key, level, op != Op::Get, token, now_ms) {
        return world.reply(host, reply(Outcome::Refused(refusal), None));
    }
    let item = this.store.item(group, &key).cloned();
    let is_expired = item.as_ref().is_some_and(|item| item.expires.is_some_and(|expires| expires <= wall_ms));
    let live = item.filter(|_| !is_expired);
    let mut effects = Vec::new();
    let leads = node.replication().leads_in(group).is_some();
    if is_expired && leads && rules != Some(Rule::ExpiryInLog) {
        effects.push(Effect::Remove { key: key.clone() });
    }
    let bytes = |value: u32| value.to_le_bytes().to_vec().into_boxed_slice();
    let outcome = match (&op, &live) {
        (Op::Get, live) => Outcome::Value(live.as_ref().map_or(Vec::new(), |item| values(&item.value))),
        (Op::Put { value, ttl_ms }, _) => {
            let expires = ttl_ms.map(|ttl_ms| wall_ms + ttl_ms);
            effects.push(Effect::Put { key: key.clone(), value: bytes(*value), expires });
            Outcome::Done(true)
        }
        (Op::Delete, _) => {
            effects.push(Effect::Remove { key: key.clone() });
            Outcome::Done(true)
        }
        (Op::Append { value }, Some(item)) => {
            effects.push(Effect::Change { key: key.clone(), before: item.at, change: bytes(*value) });
            Outcome::Done(true)
        }
        (Op::Add { value }, None) => {
            effects.push(Effect::Put { key: key.clone(), value: bytes(*value), expires: None });
            Outcome::Done(true)
        }
        (Op::Append { .. }, None) | (Op::Add { .. }, Some(_)) => Outcome::Done(false),
    };
    let writes = op != Op::Get && !effects.is_empty();
    for effect in effects {
        let at = node.replication().next_position(group).expect("the request was admitted, so the group is held");
        pinion::replication::Store::apply(&mut this.store, group, &effect, at);
        node.replication_mut().record(group, effect);
    }
    let ticket = id << 8 | client as u64;
    let completion = node.replication_mut().complete_request(group, level, ticket, now_ms);
    let mut actions = Vec::new();
    match completion {
        Completion::Now(token) => {
            let isolated = this.isolated_since;
            world.reply(host, reply(outcome, Some(token)));
            if writes && level == Level::Eventual {
                check_doubt(world, host, isolated);
            }
        }
        Completion::Parked(token) => {
            world.parked.insert((host, incarnation, ticket), reply(outcome, Some(token)));
        }
    }
    let this = &mut world.hosts[host];
    if let Some(node) = &mut this.node {
        node.flush(now_ms, &mut this.store, &mut actions);
    }
    world.dispatch(host, actions);
}

/// Checks that a host that has been isolated for long admits no writes.
fn check_doubt(world: &mut World, host: usize, isolated_since: Option<Us>) {
    let longest = (pinion::replication::DOUBT_MS + pinion::replication::LEASE_MS + 300) * MS;
    let alone = world.hosts.len() > 1 && isolated_since.is_some_and(|since| world.now > since + longest);
    if alone {
        world.violation(format!("host {host} admitted a write although it had been isolated for long"));
    }
}

fn values(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four"))).collect()
}

/// A host's store evicts a key of its own choice; on a primary, the log carries the removal.
pub fn evict(world: &mut World, host: usize, random: &mut Random) {
    let group = *random.pick(&world.options.groups);
    let (now, now_ms) = (world.now, world.clock_ms(host));
    let this = &mut world.hosts[host];
    let Some(node) = &mut this.node else { return };
    let Some(key) = this.store.any_key(group, random.next()) else { return };
    world.history.vanish(&key, now);
    pinion::replication::Store::remove(&mut this.store, group, &key);
    node.replication_mut().evicted(group, &key, now_ms, &mut this.store);
    world.trace(|| format!("host {host} evicts {}", String::from_utf8_lossy(&key)));
}
