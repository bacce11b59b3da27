//! One core's worth of Pinion: a turn over connections, router and executor.
//!
//! ```text
//!                       ┌───────────── Shard: the turn ─────────────┐
//!  socket ⇄ Io ⇄ Transport ⇄ Connections ──Task──► Router ──► Executor ⇄ Engine
//!                               │  ▲                 │ mesh
//!                               │  └──── replies ◄───┘
//! ```
//!
//! A turn: drain the mesh, take the events, parse and execute what arrived in batches, resume connections that had to
//! wait, then carry out the actions of every connection that was touched (one send each), and hand the batches to the
//! siblings. Nothing here does I/O: an [`Io`] does, which the node and the simulator implement.
//!
//! | file | concept |
//! |---|---|
//! | `io.rs`, `driver.rs`, `transport.rs` | the boundary; the node's implementation of it; plain bytes or TLS |
//! | `connection/` | one client as a state machine: its input, the order of its replies, its long values |
//! | `read.rs`, `read_resp.rs` | received bytes → pending requests |
//! | `pending.rs` | the list of pending requests |
//! | `dispatch.rs` | pending requests → executed here, or sent to the owner |
//! | `commands.rs`, `commands/` | commands of RESP without a key: clients, settings, INFO |
//! | `router.rs`, `batch.rs`, `serve.rs` | the mesh: batches filled, executed for siblings, and their replies taken |
//! | `transfer.rs`, `remote.rs` | long values between connections and the owners of their keys; the owner's half |
//! | `pieces.rs` | long values between sockets and this shard's memory, without a copy |
//! | `drive.rs` | what a touched connection does next: send, receive, move, close |
//! | `limits.rs` | what clients may hold, and for how long |
//! | `accept.rs`, `balancer.rs` | new connections, and how they are balanced over the shards |
//! | `complaints.rs` | log lines that clients can cause |
//! | `slices.rs`, `holds.rs` | commands that take long, slice by slice; the keys that they hold meanwhile |
//! | `slots.rs` | key → slot → shard |
//! | `shared.rs`, `stats.rs`, `rates.rs`, `tunables.rs` | what shards share: settings, statistics, the log of slow commands |

#![forbid(unsafe_code)]

mod accept;
mod balancer;
mod batch;
mod commands;
mod complaints;
mod connection;
mod dispatch;
mod drive;
pub mod driver;
#[cfg(feature = "sim")]
pub mod faults;
#[cfg(not(feature = "sim"))]
mod faults;
mod holds;
mod io;
mod limits;
mod pending;
mod pieces;
mod rates;
mod read;
mod read_resp;
mod remote;
mod router;
mod serve;
mod shared;
mod slices;
mod slots;
mod stats;
#[cfg(test)]
mod tests;
mod transfer;
mod transport;
mod tunables;

pub use batch::Message;
pub use io::{Io, Listener, ReceiveMemory};
pub use shared::{Clock, SharedState};
pub use slots::SlotMap;

use crate::command::DATABASES;
use crate::engine::{Engine, Next};
use crate::execute::Executor;
use crate::metrics::Counter;
use crate::reactor::Event;
use complaints::Complaints;
use connection::Connections;
use holds::Holds;
use pending::{PENDING_MAX, Pending, recycle};
use remote::LongValues;
use router::Router;
use slices::Sliced;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Turns after which calls per command and the databases' sizes are published; and once per `TICK`.
const TURNS_PER_DETAIL: u64 = 64;

/// How often housekeeping runs: balance, stalled clients, failed accepts.
const TICK: Duration = Duration::from_secs(1);

/// How often the wall clock is read.
const WALL_CLOCK_PERIOD: Duration = Duration::from_millis(1);

/// A deviation of the wall clock that is no step of it, in milliseconds: both clocks are read in whole milliseconds.
const WALL_CLOCK_SLACK_MS: u64 = 2;

/// How long a turn parses and executes what was received in it, and again how long it resumes connections that had to
/// wait. What is left then is first in the next turn.
const STAGE_TIME: Duration = Duration::from_millis(4);

/// While stopping, how often the deadlines below are checked.
const STOP_TICK: Duration = Duration::from_millis(20);

/// While stopping, how long clients have to take their replies.
const DRAIN: Duration = Duration::from_secs(3);

/// While stopping, how long clients have to hang up once they have their replies.
const LINGER: Duration = Duration::from_millis(500);

/// One shard. It lives on its own thread.
pub struct Shard<I: Io> {
    id: usize,
    shared: Arc<SharedState>,
    io: I,
    connections: Connections<I::Socket>,
    router: Router<I::Socket>,
    executor: Executor,
    /// Long values of this shard's keys that are on their way.
    long_values: LongValues,
    /// Commands that are executed in slices.
    sliced: VecDeque<Sliced>,
    /// The keys that they hold.
    holds: Holds,
    listeners: Vec<Listener>,
    /// Time of this turn.
    instant: Instant,
    /// When the wall clock was read last.
    wall_clock_read: Instant,
    /// The number of this turn.
    turns: u64,
    /// When this stage of the turn is to end, and whether that time has come.
    stage_ends: Instant,
    stage_is_over: bool,
    /// The last turn had no time for some of the connections that had waited: what comes now queues behind them.
    has_backlog: bool,
    stage_time: Duration,
    /// Bytes of long values that may still be moved in this turn.
    piece_bytes_left: usize,
    /// Connections that something happened to in the last turn: they share this one.
    active: usize,
    /// Sends and receives of pieces that are in flight.
    values_in_flight: usize,
    /// When connections were last searched for one that makes way.
    relieved: Instant,
    /// The most memory that clients have held since free memory was last returned to the system.
    client_bytes_peak: usize,
    /// The last turn in which a receive found no buffer.
    last_shortage: u64,
    /// When the engine has more background work.
    next_work: Next,
    /// The log lines that clients have caused of late.
    complaints: Complaints,
    stopping: Option<Stopping>,
    /// Where the bytes of a part are written before they are merged.
    part: Vec<u8>,
    /// Where pending requests are kept between turns, empty: their storage is used again.
    pending: Vec<Pending<'static>>,
    /// A second such list, for input that was kept: it is read while the first may be in use.
    pending_kept: Vec<Pending<'static>>,
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

/// What a shard does when its turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is more to do at once.
    None,
    /// Wait for events or messages, for this long at most.
    Wait(Option<Duration>),
}

/// A monotonic clock in nanoseconds, to measure commands by.
fn stopwatch() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl<I: Io> Shard<I> {
    /// Puts a shard together. Its listeners are armed.
    pub fn new(id: usize, shared: Arc<SharedState>, engine: Engine, mut io: I, listeners: Vec<Listener>) -> Self {
        io.set_tick(TICK);
        shared.add_startup_bytes(engine.stats().held_bytes);
        let instant = io.instant();
        let shards = shared.shards();
        let mut shard = Self {
            id,
            io,
            connections: Connections::new(),
            router: Router::new(id, shards),
            executor: Executor::new(engine, shards, shared.clock.at(instant), stopwatch),
            long_values: LongValues::default(),
            sliced: VecDeque::new(),
            holds: Holds::default(),
            listeners,
            instant,
            wall_clock_read: instant,
            turns: TURNS_PER_DETAIL,
            stage_ends: instant,
            stage_is_over: false,
            has_backlog: false,
            stage_time: STAGE_TIME,
            piece_bytes_left: 0,
            active: 0,
            values_in_flight: 0,
            relieved: instant,
            client_bytes_peak: 0,
            last_shortage: 0,
            next_work: Next::Idle,
            complaints: Complaints::default(),
            stopping: None,
            part: Vec::new(),
            pending: Vec::with_capacity(PENDING_MAX),
            pending_kept: Vec::with_capacity(PENDING_MAX),
            shared,
        };
        shard.executor.reply_bytes_max = shard.client_bytes_max();
        shard.retry_accepts();
        shard
    }

    /// What drives it.
    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// One turn: takes `events`, whose bytes lie in `memory`, and moves the buffers that it is done with to `used`.
    pub fn turn<M: ReceiveMemory>(
        &mut self,
        events: &mut Vec<Event<I::Socket, M::Buffer>>,
        used: &mut Vec<M::Buffer>,
        memory: &M,
    ) {
        self.turns += 1;
        self.connections.resume_turn_waiters();
        self.resume_values();
        self.drain_mesh();
        self.read_clock();
        self.begin_stage(self.instant);
        self.process(events, used, memory);
        self.check_stop();
        self.execute_slices();
        self.resume();
        self.note_refused_upload();
        self.next_work = self.executor.work();
        self.drive_touched();
        self.send_batches();
        self.executor.counters.add(Counter::Turns);
        self.publish();
    }

    fn begin_stage(&mut self, now: Instant) {
        (self.stage_ends, self.stage_is_over) = (now + self.stage_time, false);
    }

    /// Notes whether the stage's time has passed.
    #[inline]
    fn check_stage(&mut self) {
        self.stage_is_over |= self.io.instant() >= self.stage_ends;
    }

    /// Makes slices of long commands shorter, batches smaller (tasks, bytes) and stages of a turn shorter, so that the
    /// simulator's few keys take several slices, and its few clients fill batches and turns.
    #[cfg(feature = "sim")]
    pub fn set_limits(&mut self, elements_per_slice: usize, batch: (usize, usize), stage_time: Option<Duration>) {
        self.executor.elements_per_slice = elements_per_slice;
        self.router.set_batch_limits(batch);
        self.stage_time = stage_time.unwrap_or(STAGE_TIME);
    }

    /// What is left over once all clients are gone: nothing, unless something leaks. For the simulator.
    #[cfg(feature = "sim")]
    pub fn leftovers(&self) -> Vec<&'static str> {
        let checks = [
            ("connections", self.connections.is_empty()),
            ("long values in flight", self.values_in_flight == 0),
            ("connections to attend to", !self.connections.have_work()),
            ("uploads or remote reads", self.long_values.is_empty()),
            ("commands in slices", !self.has_slices()),
            ("readers or uploads in the engine", self.executor.engine.open_long_values() == 0),
            ("batches", self.router.is_idle()),
            ("pending requests", self.pending.is_empty() && self.pending_kept.is_empty()),
        ];
        checks.into_iter().filter(|(_, is_clean)| !is_clean).map(|(what, _)| what).collect()
    }

    /// The state of the connections, for a failing run of the simulator.
    #[cfg(feature = "sim")]
    pub fn describe(&mut self) -> Vec<String> {
        let ids = self.connections.ids();
        let connections = ids.filter_map(|id| self.connections.at(id).map(|c| format!("{id}: {}", c.describe())));
        let mut lines: Vec<String> = connections.collect();
        lines.push(format!("{} commands in slices, {}", self.sliced.len(), self.holds.describe()));
        lines
    }

    /// What to do after a turn.
    pub fn rest(&self) -> Rest {
        let must_parse_on = self.stopping.is_some_and(|s| !s.closing);
        match self.next_work {
            _ if self.connections.have_work() || self.has_slices() || must_parse_on => Rest::None,
            Next::Now => Rest::None,
            Next::In(milliseconds) => Rest::Wait(Some(Duration::from_millis(milliseconds))),
            Next::Idle => Rest::Wait(None),
        }
    }

    /// When the turn began, or its last message from a sibling was taken.
    pub fn instant(&self) -> Instant {
        self.instant
    }

    /// Takes the time. After the requests that will be executed at that time have come: read before, an item would
    /// count its TTL from before its command was sent.
    fn read_clock(&mut self) {
        self.instant = self.io.instant();
        self.executor.advance(self.shared.clock.at(self.instant));
        self.executor.time_all = self.shared.tunables.times_all();
        if self.instant - self.wall_clock_read >= WALL_CLOCK_PERIOD {
            self.follow_wall_clock();
        }
    }

    /// Notes how far the wall clock is ahead of the shard's clock, by which everything expires. It changes when the
    /// wall clock is stepped; then the Unix times that clients give and are told follow it, and times to live do not.
    fn follow_wall_clock(&mut self) {
        self.wall_clock_read = self.instant;
        let (before, wall, after) = (self.io.instant(), self.io.unix_ms(), self.io.instant());
        let ahead = wall as i64 - self.shared.clock.at(before) as i64;
        let is_step = ahead.abs_diff(self.executor.wall_ahead_ms()) > WALL_CLOCK_SLACK_MS;
        // If the thread was descheduled between the readings, their difference says nothing.
        if is_step && after - before < WALL_CLOCK_PERIOD {
            self.executor.set_wall_ahead_ms(ahead);
        }
    }

    fn process<M: ReceiveMemory>(
        &mut self,
        events: &mut Vec<Event<I::Socket, M::Buffer>>,
        used: &mut Vec<M::Buffer>,
        memory: &M,
    ) {
        let mut pending = recycle(std::mem::take(&mut self.pending));
        for event in events.drain(..) {
            match event {
                Event::Received { token, buffer, armed } => {
                    self.on_received(token, memory.bytes(&buffer), armed, &mut pending);
                    used.push(buffer);
                }
                Event::Sent { token, bytes, result } => self.on_sent(token, bytes, result),
                Event::SentPieces { token, pieces, result } => self.on_sent_pieces(token, pieces, result),
                Event::ReceivedPieces { token, pieces, result } => {
                    self.execute(&mut pending);
                    self.on_received_pieces(token, &pieces, result);
                }
                Event::ReceiveEnded { token, errno } => {
                    self.execute(&mut pending);
                    self.on_receive_ended(token, errno);
                }
                Event::Accepted { listener, socket, armed } => self.on_accepted(listener, socket, armed),
                Event::AcceptFailed { listener, errno } => self.on_accept_failed(listener, errno),
                Event::Tick => self.tick(),
                Event::Woken => {}
                // The other way to wake it.
                Event::RingFailed { sibling } => self.shared.wake(sibling as usize),
            }
        }
        self.execute(&mut pending);
        self.pending = recycle(pending);
    }

    /// Housekeeping, once per `TICK`.
    fn tick(&mut self) {
        self.retry_accepts();
        self.connections.resume_tick_waiters();
        if self.stopping.is_none() {
            self.balance();
        }
        self.enforce_limits();
        let lag = self.executor.engine.expiry_lag_ms();
        self.executor.counters.set(Counter::ExpiryLag, lag);
        self.measure_clients();
        self.publish_more();
        if self.id == 0 {
            self.shared.sample(self.executor.now());
        }
    }

    /// Counts what the buffers of clients take.
    fn measure_clients(&mut self) {
        let (mut bytes, mut input_max, mut output_max) = (0, 0, 0);
        for id in self.connections.ids() {
            let Some(connection) = self.connections.at(id) else { continue };
            let (input, output) = (connection.input.capacity(), connection.output.capacity());
            bytes += input + output + connection.replies.held_bytes();
            input_max = input_max.max(input);
            output_max = output_max.max(output);
        }
        self.executor.counters.set(Counter::ClientBufferBytes, bytes as u64);
        self.executor.counters.set(Counter::ClientInputMax, input_max as u64);
        self.executor.counters.set(Counter::ClientOutputMax, output_max as u64);
    }

    /// Tries to go on with connections that had to wait.
    fn resume(&mut self) {
        let mut is_first = true;
        while let Some(id) = self.connections.next_resumable() {
            if std::mem::take(&mut is_first) {
                self.begin_stage(self.io.instant());
            }
            self.try_resume(id);
            self.check_stage();
            if self.stage_is_over {
                break;
            }
        }
        self.has_backlog = self.connections.have_resumable();
    }

    /// Copies the counters to where everyone can read them. Before any reply goes out, to a client or to a sibling: a
    /// client that has its reply sees it counted, whichever shard it asks.
    fn publish(&mut self) {
        let engine = self.executor.engine.stats();
        let counters = &mut self.executor.counters;
        counters.set(Counter::CurrConnections, self.connections.len() as u64);
        counters.set(Counter::CurrItems, engine.items);
        counters.set(Counter::TotalItems, engine.items_written);
        counters.set(Counter::Bytes, engine.item_bytes);
        counters.set(Counter::UserBytes, engine.user_bytes);
        counters.set(Counter::Evictions, engine.evictions);
        counters.set(Counter::Reclaimed, engine.expired);
        counters.set(Counter::GetExpired, engine.found_expired);
        counters.set(Counter::GetFlushed, engine.found_flushed);
        counters.set(Counter::MovedBytes, engine.moved_bytes);
        counters.set(Counter::ExpiredBytes, engine.expired_bytes);
        counters.set(Counter::ExpiredFields, engine.expired_fields);
        counters.set(Counter::HeldBytes, engine.held_bytes);
        counters.set(Counter::IndexBytes, engine.index_bytes);
        self.shared.published(self.id).publish(counters);
        if counters.value(Counter::Turns).is_multiple_of(TURNS_PER_DETAIL) {
            self.publish_more();
        }
    }

    /// Publishes everything, for a client that asks for it.
    fn publish_all(&mut self) {
        self.publish();
        self.publish_more();
        let now = self.executor.now();
        let estimates = self.executor.engine.estimates(now);
        let estimates = estimates.map(|of| [of.ttl_ms, of.hashes_with_expiring_fields]);
        self.shared.published(self.id).publish_estimates(estimates.into_iter());
    }

    /// Publishes what is not needed after each turn.
    fn publish_more(&self) {
        let databases = (0..DATABASES as u8).map(|number| self.executor.engine.database(number));
        let databases = databases.map(|usage| [usage.items, usage.expiring]);
        self.shared.published(self.id).publish_more(&self.executor.counters, databases);
    }

    /// Follows the node's stop: accept nothing more, answer what was received, close.
    fn check_stop(&mut self) {
        if !self.shared.is_stopping() {
            return;
        }
        let Some(stopping) = &mut self.stopping else {
            self.stop_listening();
            self.io.set_tick(STOP_TICK);
            // Turns without waiting parse what the kernel has received by now: one, or more if buffers are short.
            self.stopping = Some(Stopping { since: self.instant, closing: false, drained: false });
            return;
        };
        if !stopping.closing && !self.connections.are_short_of_buffers() {
            stopping.closing = true;
            self.close_all();
        }
        let waited = self.instant - self.stopping.map_or(self.instant, |s| s.since);
        if waited > LINGER {
            self.hang_up(waited > DRAIN);
        }
    }

    /// True when this shard, and every other, has nothing left to answer.
    pub fn finished(&mut self) -> bool {
        let now = self.io.instant();
        let Some(stopping) = &mut self.stopping else { return false };
        if stopping.closing && self.connections.is_empty() && !stopping.drained {
            stopping.drained = true;
            self.shared.shard_drained();
        }
        stopping.drained && (self.shared.all_drained() || now - stopping.since > DRAIN + TICK)
    }
}
