//! One core's worth of Pinion: the loop that ties engine, connections, mesh and reactor together.
//!
//! A turn: drain the mesh, reap completions, parse and execute what arrived in batches, resume who had to wait, then
//! settle every connection that was touched (one send each), hand the batches to the siblings, and enter the kernel once.
//!
//! | file | concept |
//! |---|---|
//! | `connection/` | one client: its socket's state, its output, the order of its replies |
//! | `read.rs`, `read_resp.rs` | bytes received → pending requests |
//! | `commands.rs`, `commands/` | commands of RESP that concern no key: clients, settings, INFO |
//! | `tunables.rs` | what can be changed while the node runs; the log of slow commands |
//! | `perform.rs` | pending requests → executed here, or sent to the owner |
//! | `route.rs`, `batch.rs` | the mesh from this shard's side |
//! | `settle.rs` | what a touched connection does next: send, receive, wait, move, close |
//! | `accept.rs`, `spread.rs` | new connections, and spreading them evenly |
//! | `incoming.rs`, `outgoing.rs` | long values on their way in and out, piece by piece |
//! | `slots.rs` | key → slot → shard |
//! | `node.rs`, `stats.rs` | what shards share, and its statistics |

#![forbid(unsafe_code)]

mod accept;
mod batch;
mod commands;
mod connection;
mod incoming;
mod node;
mod outgoing;
mod perform;
mod read;
mod read_resp;
mod route;
mod settle;
mod slots;
mod spread;
mod stats;
mod tunables;

pub use batch::Message;
pub use node::{Clock, Node};
pub use slots::SlotMap;

use crate::command::{DATABASES, UnixMs};
use crate::engine::{Engine, Next};
use crate::mesh::MeshEnd;
use crate::metrics::{Counter, Counters};
use crate::reactor::{Buffer, Event, Reactor, ReceiveBuffers, Token};
use accept::Listener;
pub use accept::Listening;
use connection::{Connections, OutputPool, Wait};
use incoming::Receiving;
use outgoing::Sent;
use perform::{Pending, recycle};
use read::PENDING_MAX;
use route::Route;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events of one turn that there is room for from the start.
const EVENTS_EXPECTED: usize = 1024;

/// Turns after which calls per command and the databases' sizes are published; and once per `TICK`.
const TURNS_PER_DETAIL: u64 = 64;

/// How often housekeeping runs: balance, stalled clients, failed accepts.
const TICK: Duration = Duration::from_secs(1);

/// While stopping, how often the deadlines below are looked at.
const STOP_TICK: Duration = Duration::from_millis(20);

/// While stopping, how long clients have to take their replies.
const DRAIN: Duration = Duration::from_secs(3);

/// While stopping, how long clients have to hang up once they have their replies.
const LINGER: Duration = Duration::from_millis(500);

/// One shard. It lives on its own thread.
pub struct Shard {
    id: usize,
    node: Arc<Node>,
    engine: Engine,
    reactor: Reactor,
    mesh: MeshEnd<Message>,
    /// One per shard; this shard's own is never used.
    routes: Vec<Route>,
    listeners: Vec<Listener>,
    connections: Connections,
    outputs: OutputPool,
    /// Long values that are arriving for this shard.
    receiving: Vec<Receiving>,
    /// Long values that siblings' clients are being sent.
    lent: Vec<Sent>,
    /// Number of the last of those.
    last_stream: u64,
    /// Slots of connections that something happened to in this turn, each once.
    touched: Vec<u32>,
    /// Slots of connections that may be able to go on.
    resumable: VecDeque<u32>,
    /// Another shard runs on the same core.
    shares_core: bool,
    /// Something was sent to a sibling in this turn.
    posted: bool,
    /// Sleeping siblings that were sent something in this turn.
    to_ring: Vec<usize>,
    /// Connections that wait for room in a batch to a sibling.
    mesh_waiters: Vec<Token>,
    /// Connections that go on in the next turn.
    turn_waiters: Vec<Token>,
    counters: Counters,
    /// Time of this turn.
    now: UnixMs,
    instant: Instant,
    /// When the engine has more to do by itself.
    next_work: Next,
    stopping: Option<Stopping>,
    /// A receive ended in this turn because the buffers ran out: there is more to receive.
    short_of_buffers: bool,
    /// Where pending requests are kept between turns, empty: their storage is used again.
    pending: Vec<Pending<'static>>,
    /// The same for input that was kept, which is read while the other list may be in use.
    pending_partial: Vec<Pending<'static>>,
}

/// The stages of a stop.
#[derive(Clone, Copy, Debug)]
struct Stopping {
    since: Instant,
    /// What had been received before is parsed; connections close as they are done.
    closing: bool,
    /// This shard has no connections left, and the siblings know.
    drained: bool,
}

impl Shard {
    /// Puts a shard together.
    pub fn new(
        id: usize,
        node: Arc<Node>,
        engine: Engine,
        mut reactor: Reactor,
        mesh: MeshEnd<Message>,
        listeners: Vec<Listening>,
    ) -> Self {
        reactor.start_timer(TICK);
        reactor.listen_for_wakes(node.wake_fd(id));
        let routes = (0..mesh.shards()).map(|to| Route::new(id, to)).collect();
        let now = node.clock.now();
        let mut shard = Self {
            id,
            engine,
            reactor,
            mesh,
            routes,
            listeners: Vec::new(),
            connections: Connections::new(),
            outputs: OutputPool::new(),
            receiving: Vec::new(),
            lent: Vec::new(),
            last_stream: 0,
            touched: Vec::with_capacity(EVENTS_EXPECTED),
            resumable: VecDeque::new(),
            shares_core: node.config.shares_core(),
            posted: false,
            to_ring: Vec::new(),
            mesh_waiters: Vec::new(),
            turn_waiters: Vec::new(),
            counters: Counters::new(),
            now,
            instant: Instant::now(),
            next_work: Next::Idle,
            stopping: None,
            short_of_buffers: false,
            pending: Vec::with_capacity(PENDING_MAX),
            pending_partial: Vec::with_capacity(PENDING_MAX),
            node,
        };
        shard.start_listening(listeners);
        shard
    }

    /// Runs until the node stops and every client has been answered, or has had the time for it.
    pub fn run(mut self, mut buffers: ReceiveBuffers) {
        let mut events = Vec::with_capacity(EVENTS_EXPECTED);
        let mut used = Vec::with_capacity(usize::from(self.node.config.receive_buffers));
        loop {
            self.turn(&mut events, &mut used, &mut buffers);
            if self.finished() {
                return;
            }
            self.enter();
        }
    }

    /// One turn, up to the system call.
    fn turn(&mut self, events: &mut Vec<Event>, used: &mut Vec<Buffer>, buffers: &mut ReceiveBuffers) {
        self.resume_turn_waiters();
        self.drain_mesh();
        self.reactor.reap(events);
        self.read_clock();
        self.process(events, used, buffers);
        self.check_stop();
        self.resume();
        self.next_work = self.engine.work(self.now);
        self.settle_touched();
        self.send_batches();
        self.ring_sleepers();
        self.counters.add(Counter::Turns);
        self.publish();
        buffers.give_back(used.drain(..));
    }

    /// Takes the time. After the requests that will be executed at that time have come: read before, an item would count
    /// its TTL from before its command was sent.
    fn read_clock(&mut self) {
        self.instant = Instant::now();
        self.now = self.node.clock.at(self.instant);
        self.engine.advance(self.now);
    }

    fn process(&mut self, events: &mut Vec<Event>, used: &mut Vec<Buffer>, buffers: &ReceiveBuffers) {
        let mut pending = recycle(std::mem::take(&mut self.pending));
        for event in events.drain(..) {
            match event {
                Event::Received { token, buffer, armed } => {
                    self.received(token, buffers.bytes(&buffer), armed, &mut pending);
                    used.push(buffer);
                }
                Event::Sent { token, bytes, result } => self.sent(token, bytes, result),
                Event::ReceiveEnded { token, errno } => {
                    self.perform(&mut pending);
                    self.receive_ended(token, errno);
                }
                Event::Accepted { listener, socket, armed } => self.accepted(listener, socket, armed),
                Event::AcceptFailed { listener, errno } => self.accept_failed(listener, errno),
                Event::Tick => self.tick(),
                Event::Woken => {}
                // The other way to wake it.
                Event::RingFailed { sibling } => self.node.wake(sibling as usize),
            }
        }
        self.perform(&mut pending);
        self.pending = recycle(pending);
    }

    /// Housekeeping, once per `TICK`.
    fn tick(&mut self) {
        self.retry_accepts();
        if self.stopping.is_none() {
            self.balance();
        }
        self.drop_stalled();
        self.counters.set(Counter::ExpiryLag, self.engine.expiry_lag_ms());
        self.publish_more();
    }

    /// Lets connections go on that had to wait, if they can.
    fn resume(&mut self) {
        while let Some(slot) = self.resumable.pop_front() {
            self.try_resume(slot);
        }
    }

    /// Lets those go on, once this turn's events have had their turn, that the last one has left something to do.
    fn resume_turn_waiters(&mut self) {
        let Self { turn_waiters, connections, resumable, .. } = self;
        for token in turn_waiters.drain(..) {
            if let Some(connection) = connections.get(token).filter(|c| c.blocked == Some(Wait::Turn) && !c.resuming) {
                connection.resuming = true;
                resumable.push_back(token.slot);
            }
        }
    }

    /// Copies the counters to where everyone can read them. Before any reply goes out, to a client or to a sibling, so that
    /// who has its reply sees it counted, whichever shard it asks.
    fn publish(&mut self) {
        let engine = self.engine.stats();
        let counters = &mut self.counters;
        counters.set(Counter::CurrConnections, self.connections.len() as u64);
        counters.set(Counter::CurrItems, engine.items);
        counters.set(Counter::TotalItems, engine.items_written);
        counters.set(Counter::Bytes, engine.item_bytes);
        counters.set(Counter::UserBytes, engine.user_bytes);
        counters.set(Counter::Evictions, engine.evictions);
        counters.set(Counter::Reclaimed, engine.expired);
        counters.set(Counter::MovedBytes, engine.moved_bytes);
        counters.set(Counter::ExpiredBytes, engine.expired_bytes);
        counters.set(Counter::HeldBytes, engine.held_bytes);
        counters.set(Counter::IndexBytes, engine.index_bytes);
        self.node.published(self.id).publish(counters);
        if counters.value(Counter::Turns).is_multiple_of(TURNS_PER_DETAIL) {
            self.publish_more();
        }
    }

    /// Publishes what is not needed after each turn.
    fn publish_more(&self) {
        let databases = (0..DATABASES as u8).map(|number| self.engine.database(number));
        let databases = databases.map(|held| [held.items, held.expiring]);
        self.node.published(self.id).publish_more(&self.counters, databases);
    }

    /// Submits what the turn queued, and waits for more to do: spinning first, where that is configured.
    fn enter(&mut self) {
        if std::mem::take(&mut self.posted) && self.shares_core {
            // The sibling needs this core to answer. Let it have it now: what arrives here meanwhile makes the next turn a
            // larger one (measured with two shards on one core: 1.2 instead of 1.4 times the CPU of one shard).
            self.reactor.poll();
            std::thread::yield_now();
        }
        let more_to_do = !self.resumable.is_empty() || !self.turn_waiters.is_empty() || self.next_work == Next::Now;
        if self.mesh.has_messages() || more_to_do || self.stopping.is_some_and(|s| !s.closing) {
            self.reactor.poll();
            return;
        }
        if !self.node.config.spin.is_zero() {
            self.reactor.poll();
            let until = self.instant + self.node.config.spin;
            while !self.reactor.has_events() {
                if self.mesh.has_messages() {
                    return;
                }
                if Instant::now() >= until {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        if self.mesh.fall_asleep() {
            let timeout = match self.next_work {
                Next::In(milliseconds) => Some(Duration::from_millis(milliseconds)),
                Next::Now | Next::Idle => None,
            };
            self.reactor.wait(timeout);
            self.mesh.wake_up();
        } else {
            self.reactor.poll();
        }
    }

    /// Follows the node's stop: accept nothing more, answer what was received, close.
    fn check_stop(&mut self) {
        let more_to_receive = std::mem::take(&mut self.short_of_buffers);
        if !self.node.is_stopping() {
            return;
        }
        let Some(stopping) = &mut self.stopping else {
            self.stop_listening();
            self.reactor.start_timer(STOP_TICK);
            // Turns without waiting parse what the kernel has received by now: one, or more if buffers are short.
            self.stopping = Some(Stopping { since: self.instant, closing: false, drained: false });
            return;
        };
        if !stopping.closing && !more_to_receive {
            stopping.closing = true;
            self.close_all();
        }
        let waited = self.instant - self.stopping.map_or(self.instant, |s| s.since);
        if waited > LINGER {
            self.hang_up(waited > DRAIN);
        }
    }

    /// True when this shard, and every other, has nothing left to answer.
    fn finished(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        if stopping.closing && self.connections.is_empty() && !stopping.drained {
            stopping.drained = true;
            self.node.shard_drained();
        }
        stopping.drained && (self.node.all_drained() || stopping.since.elapsed() > DRAIN + TICK)
    }

    fn touch(&mut self, slot: u32) {
        if let Some(connection) = self.connections.at(slot)
            && !connection.touched
        {
            connection.touched = true;
            self.touched.push(slot);
        }
    }
}
