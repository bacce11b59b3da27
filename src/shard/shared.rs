//! What the shards of a node share. Nothing here is touched to answer a request.

use super::balancer::ConnectionBalancer;
use super::rates::Rates;
use super::slots::SlotMap;
use super::tunables::Tunables;
use crate::command::UnixMs;
use crate::command::table::ROWS_COUNT;
use crate::config::Config;
use crate::engine::KeyHasher;
use crate::eviction::Eviction;
use crate::metrics::{CallStats, Counter, DatabaseStats, ERROR_CODES, Published};
use crate::sys::EventFd;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time by which everything expires: the wall clock's at the start, from then on counted by the monotonic clock, so
/// that a step of the wall clock neither expires nor revives anything. Unix times of clients are converted to it and
/// back (`Shard::follow_wall_clock`).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix_ms: UnixMs,
}

impl Clock {
    /// A clock that agrees with the wall clock now.
    pub fn new() -> Self {
        Self::starting(Instant::now(), Self::unix_ms())
    }

    /// The wall clock.
    pub fn unix_ms() -> UnixMs {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as UnixMs
    }

    /// A clock that shows `unix_ms` at `instant`.
    pub fn starting(instant: Instant, unix_ms: UnixMs) -> Self {
        Self { started: instant, started_unix_ms: unix_ms }
    }

    /// The time.
    pub fn now(&self) -> UnixMs {
        self.at(Instant::now())
    }

    /// The time at an instant.
    pub fn at(&self, instant: Instant) -> UnixMs {
        self.started_unix_ms + instant.saturating_duration_since(self.started).as_millis() as UnixMs
    }

    /// Seconds since the start.
    pub fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a shard needs memory that long values occupy which are on their way. Each reason holds for one to two ticks, so
/// that every sibling's tick sees it.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    uploads: AtomicU8,
    replaced: AtomicU8,
}

/// Ticks that a reason holds for, the one in which it is noted included.
const PRESSURE_TICKS: u8 = 2;

impl Pressure {
    /// An upload was refused.
    pub(super) fn set_uploads(&self) {
        self.uploads.store(PRESSURE_TICKS, Ordering::Relaxed);
    }

    /// Replaced values that are still being sent occupy too much.
    pub(super) fn set_replaced(&self) {
        self.replaced.store(PRESSURE_TICKS, Ordering::Relaxed);
    }

    pub(super) fn of_uploads(&self) -> bool {
        self.uploads.load(Ordering::Relaxed) > 0
    }

    pub(super) fn of_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_any(&self) -> bool {
        self.of_uploads() || self.of_replaced()
    }

    /// A tick of the shard itself.
    pub(super) fn tick(&self) {
        for reason in [&self.uploads, &self.replaced] {
            reason.store(reason.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        }
    }
}

/// The state that the shards of a node share.
pub struct SharedState {
    /// The settings.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// One seed for the whole process.
    pub hasher: KeyHasher,
    /// Which shard owns a key.
    pub slots: SlotMap,
    /// Ports as bound; 0 if there is none.
    pub port: u16,
    pub(super) resp_port: u16,
    /// What can be changed while the node runs.
    pub(super) tunables: Tunables,
    /// Identifies this run of the node.
    pub(super) run_id: String,
    next_client: AtomicU64,
    pub(super) balancer: ConnectionBalancer,
    published: Vec<Published>,
    /// Rates of late.
    pub(super) rates: Rates,
    /// Memory that all shards hold: before there were items, and at most.
    startup_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    /// What `stats reset` and CONFIG RESETSTAT subtract.
    baseline: Mutex<Vec<u64>>,
    /// Calls per row of the command table, and errors per code, that they subtract.
    calls_baseline: Mutex<Vec<CallStats>>,
    errors_baseline: Mutex<[u64; ERROR_CODES.len()]>,
    pressure: Vec<Pressure>,
    wakes: Vec<EventFd>,
    doorbells: OnceLock<Vec<RawFd>>,
    /// Number of the eviction policy in charge, in [`Eviction::ALL`].
    eviction: AtomicUsize,
    stopping: AtomicBool,
    drained: AtomicUsize,
}

impl SharedState {
    /// The node of a configuration, before its shards run.
    ///
    /// # Errors
    /// When no more files may be opened.
    pub fn new(config: Config, port: u16, resp_port: u16) -> io::Result<Self> {
        Self::with(config, port, resp_port, Clock::new(), KeyHasher::new())
    }

    /// The state with a clock and a hasher of the caller's: for the simulator.
    ///
    /// # Errors
    /// When no more files may be opened.
    pub fn with(config: Config, port: u16, resp_port: u16, clock: Clock, hasher: KeyHasher) -> io::Result<Self> {
        let shards = config.shard_cores.len();
        let run_id = (0..5_u64).map(|n| format!("{:08x}", hasher.hash(&n.to_le_bytes()).0 >> 32)).collect();
        Ok(Self {
            clock,
            hasher,
            run_id,
            resp_port,
            tunables: Tunables::new(&config),
            next_client: AtomicU64::new(0),
            slots: SlotMap::new(shards),
            port,
            balancer: ConnectionBalancer::new(shards, config.max_connections),
            published: (0..shards).map(|_| Published::new()).collect(),
            rates: Rates::default(),
            startup_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            baseline: Mutex::new(vec![0; Counter::ALL.len()]),
            calls_baseline: Mutex::new(vec![CallStats::default(); ROWS_COUNT]),
            errors_baseline: Mutex::new([0; ERROR_CODES.len()]),
            pressure: (0..shards).map(|_| Pressure::default()).collect(),
            wakes: (0..shards).map(|_| EventFd::new()).collect::<io::Result<_>>()?,
            doorbells: OnceLock::new(),
            eviction: AtomicUsize::new(config.eviction as usize),
            stopping: AtomicBool::new(false),
            drained: AtomicUsize::new(0),
            config,
        })
    }

    /// Connections that the balancer counts. For the simulator's accounting.
    #[cfg(feature = "sim")]
    pub fn connections_counted(&self) -> u32 {
        self.balancer.total()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.published.len()
    }

    /// The number of the next client.
    pub(super) fn next_client(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn pressure(&self, shard: usize) -> &Pressure {
        &self.pressure[shard]
    }

    /// Tells how to ring each shard. Once, before any shard runs.
    pub fn set_doorbells(&self, doorbells: Vec<RawFd>) {
        assert!(self.doorbells.set(doorbells).is_ok(), "doorbells are set once");
    }

    pub(super) fn doorbell(&self, shard: usize) -> RawFd {
        self.doorbells.get().expect("set before the shards run")[shard]
    }

    pub(super) fn wake_fd(&self, shard: usize) -> RawFd {
        self.wakes[shard].raw_fd()
    }

    /// Counters of a shard.
    pub fn published(&self, shard: usize) -> &Published {
        &self.published[shard]
    }

    /// A counter of all shards: their sum, or what the counter says.
    pub fn sum(&self, counter: Counter) -> u64 {
        let values = self.published.iter().map(|p| p.value(counter));
        match counter {
            Counter::ExpiryLag | Counter::ClientInputMax | Counter::ClientOutputMax => values.max().unwrap_or(0),
            _ => values.sum(),
        }
    }

    /// A database of all shards.
    pub(super) fn database(&self, number: usize) -> DatabaseStats {
        self.published.iter().map(|p| p.database(number)).fold(DatabaseStats::default(), DatabaseStats::with)
    }

    /// Adds the memory that a shard holds before it has any items.
    pub(super) fn add_startup_bytes(&self, bytes: u64) {
        self.startup_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The memory that all shards held before they had any items.
    pub(super) fn startup_bytes(&self) -> u64 {
        self.startup_bytes.load(Ordering::Relaxed)
    }

    /// Notes the memory that all shards hold; returns the most that was ever noted.
    pub(super) fn note_held_bytes(&self, bytes: u64) -> u64 {
        self.peak_bytes.fetch_max(bytes, Ordering::Relaxed).max(bytes)
    }

    /// Takes a sample of what INFO shows rates and peaks of. Once per second.
    pub(super) fn sample(&self, now: UnixMs) {
        // Without a list of them: a shard that only answers allocates nothing.
        let commands = self.published.iter().flat_map(Published::calls).map(|calls| calls.calls).sum();
        self.rates.sample(now, [commands, self.sum(Counter::BytesRead), self.sum(Counter::BytesWritten)]);
        self.note_held_bytes(self.sum(Counter::HeldBytes));
    }

    /// When the node was started, in seconds since 1970.
    pub(super) fn started_seconds(&self) -> u64 {
        self.clock.started_unix_ms / 1000
    }

    /// A counter since the last `stats reset`; what counts something that is there now does not reset.
    pub(super) fn since_reset(&self, counter: Counter) -> u64 {
        let baseline = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        self.sum(counter).wrapping_sub(baseline[counter as usize])
    }

    fn all_calls(&self) -> Vec<CallStats> {
        let mut all = vec![CallStats::default(); ROWS_COUNT];
        for published in &self.published {
            all.iter_mut().zip(published.calls()).for_each(|(sum, calls)| *sum = sum.with(calls, |a, b| a + b));
        }
        all
    }

    fn all_errors(&self) -> [u64; ERROR_CODES.len()] {
        let errors: Vec<_> = self.published.iter().map(Published::errors).collect();
        std::array::from_fn(|code| errors.iter().map(|errors| errors[code]).sum())
    }

    /// Calls since the last reset, per row of the command table, in the order of their numbers.
    pub(super) fn calls(&self) -> Vec<CallStats> {
        let baseline = self.calls_baseline.lock().unwrap_or_else(PoisonError::into_inner);
        self.all_calls().iter().zip(&*baseline).map(|(now, then)| now.with(*then, u64::wrapping_sub)).collect()
    }

    /// Error replies since the last reset, per code.
    pub(super) fn errors(&self) -> [u64; ERROR_CODES.len()] {
        let (now, then) = (self.all_errors(), self.errors_baseline.lock().unwrap_or_else(PoisonError::into_inner));
        std::array::from_fn(|code| now[code].wrapping_sub(then[code]))
    }

    pub(super) fn reset_counters(&self) {
        *self.calls_baseline.lock().unwrap_or_else(PoisonError::into_inner) = self.all_calls();
        *self.errors_baseline.lock().unwrap_or_else(PoisonError::into_inner) = self.all_errors();
        const KEPT: [Counter; 10] = [
            Counter::CurrConnections,
            Counter::CurrItems,
            Counter::Bytes,
            Counter::UserBytes,
            Counter::HeldBytes,
            Counter::IndexBytes,
            Counter::ExpiryLag,
            Counter::ClientBufferBytes,
            Counter::ClientInputMax,
            Counter::ClientOutputMax,
        ];
        let mut baseline = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        for counter in Counter::ALL.into_iter().filter(|c| !KEPT.contains(c)) {
            baseline[counter as usize] = self.sum(counter);
        }
    }

    /// The eviction policy in charge.
    pub fn eviction(&self) -> Eviction {
        Eviction::ALL[self.eviction.load(Ordering::Relaxed)]
    }

    /// Notes that another one is.
    pub(super) fn set_eviction(&self, eviction: Eviction) {
        self.eviction.store(eviction as usize, Ordering::Relaxed);
    }

    /// Asks every shard to stop: accept nothing more, answer what was received, and end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_all();
    }

    /// True once the node has been asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A shard has answered all its clients. It serves its siblings until all of them have.
    pub(super) fn shard_drained(&self) {
        if self.drained.fetch_add(1, Ordering::AcqRel) + 1 == self.shards() {
            self.wake_all();
        }
    }

    pub(super) fn all_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire) >= self.shards()
    }

    /// Wakes a shard through its eventfd.
    pub(super) fn wake(&self, shard: usize) {
        self.wakes[shard].signal();
    }

    fn wake_all(&self) {
        self.wakes.iter().for_each(EventFd::signal);
    }
}
