//! Counters of a shard: plain numbers on cache lines of the shard's own, published once per turn and summed only when
//! read.

#![forbid(unsafe_code)]

use crate::command::table::{ROWS_COUNT, Row};
use crate::command::{Command, DATABASES};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted. Names are memcached's where memcached has such a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        impl Counter {
            /// All of them, in the order in which statistics show them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name in statistics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

counters! {
    /// Connections that are open.
    CurrConnections = "curr_connections",
    /// Connections ever accepted.
    TotalConnections = "total_connections",
    /// Connections refused because there were too many.
    RejectedConnections = "rejected_connections",
    /// Connections closed because their clients speak another protocol: memcached's binary one, HTTP, TLS.
    WrongProtocol = "wrong_protocol_connections",
    /// Failed accepts, usually because the process had no file descriptors left.
    FailedAccepts = "listen_disabled_num",
    /// Idle connections handed over from this shard to another, to balance them.
    MovedConnections = "moved_connections",
    /// Keys requested by get commands.
    CmdGet = "cmd_get",
    /// Values to store, by any storage command.
    CmdSet = "cmd_set",
    /// flush_all commands.
    CmdFlush = "cmd_flush",
    /// Keys touched.
    CmdTouch = "cmd_touch",
    /// Requested keys that were found.
    GetHits = "get_hits",
    /// Requested keys that were not found.
    GetMisses = "get_misses",
    /// Lookups that found an expired item.
    GetExpired = "get_expired",
    /// Lookups that found an item that flush_all had invalidated.
    GetFlushed = "get_flushed",
    /// Keys deleted.
    DeleteHits = "delete_hits",
    /// Deletes of keys that did not exist.
    DeleteMisses = "delete_misses",
    /// Increments of keys that existed.
    IncrHits = "incr_hits",
    /// Increments of keys that did not exist.
    IncrMisses = "incr_misses",
    /// Decrements of keys that existed.
    DecrHits = "decr_hits",
    /// Decrements of keys that did not exist.
    DecrMisses = "decr_misses",
    /// Compare-and-swap stores that succeeded.
    CasHits = "cas_hits",
    /// Compare-and-swap stores of keys that did not exist.
    CasMisses = "cas_misses",
    /// Compare-and-swap stores that failed because the version differed.
    CasBadval = "cas_badval",
    /// Touches of keys that existed.
    TouchHits = "touch_hits",
    /// Touches of keys that did not exist.
    TouchMisses = "touch_misses",
    /// Values rejected because they are too long.
    StoreTooLarge = "store_too_large",
    /// Values rejected because memory was full and nothing could be evicted.
    StoreNoMemory = "store_no_memory",
    /// Attempts to authenticate.
    AuthCmds = "auth_cmds",
    /// Those that gave a wrong password.
    AuthErrors = "auth_errors",
    /// Clients that were disconnected because clients held more than `--client-memory`.
    EvictedClients = "evicted_clients",
    /// Clients that were disconnected because they made no progress.
    StalledClients = "stalled_clients",
    /// Malformed or unknown commands.
    InvalidCommands = "invalid_commands",
    /// Bytes received from clients.
    BytesRead = "bytes_read",
    /// Bytes sent to clients.
    BytesWritten = "bytes_written",
    /// Times that bytes were received from a client.
    Receives = "receives",
    /// Times that bytes were sent to a client.
    Sends = "sends",
    /// Bytes of the buffers of connections.
    ClientBufferBytes = "client_buffer_bytes",
    /// The longest input buffer of a connection. For several shards, the longest of all.
    ClientInputMax = "client_input_max",
    /// The longest output buffer of a connection. For several shards, the longest of all.
    ClientOutputMax = "client_output_max",
    /// Times that reading from a connection was suspended.
    ConnYields = "conn_yields",
    /// Items, including those that have expired and are not yet removed.
    CurrItems = "curr_items",
    /// Items stored since the start.
    TotalItems = "total_items",
    /// Bytes that items occupy, headers included.
    Bytes = "bytes",
    /// Bytes of keys and values.
    UserBytes = "user_bytes",
    /// Live items evicted.
    Evictions = "evictions",
    /// Expired items removed.
    Reclaimed = "reclaimed",
    /// Bytes that the removed expired items occupied.
    ExpiredBytes = "reclaimed_bytes",
    /// Expired fields of hashes removed.
    ExpiredFields = "expired_fields",
    /// Bytes copied by evacuation.
    MovedBytes = "moved_bytes",
    /// Bytes of the arena's pages in use: items, index and everything else that counts against the limit.
    HeldBytes = "held_bytes",
    /// Bytes of the index.
    IndexBytes = "index_bytes",
    /// The 99th percentile of the lag, in milliseconds, with which items with short times to live are removed after
    /// their expiry. For several shards, the highest.
    ExpiryLag = "expiry_lag_p99_ms",
    /// Requests sent to sibling shards.
    MeshRequests = "mesh_requests",
    /// Batches sent to sibling shards.
    MeshBatches = "mesh_batches",
    /// Turns of the shard's loop.
    Turns = "turns",
}

const COUNT: usize = Counter::ALL.len();

/// The codes of RESP's error replies: their first words. An error with another code counts as `ERR`.
pub const ERROR_CODES: [&str; 9] =
    ["ERR", "BUSYKEY", "EXECABORT", "INVALIDOBJ", "NOAUTH", "NOPROTO", "OOM", "WRONGPASS", "WRONGTYPE"];

/// So many executions of a command are all measured, from the start on; after them, one in about so many is.
const MEASURED_FIRST: u64 = 64;

/// What is counted of one row of the command table.
///
/// An execution is a call, or a part of one: of one key of a DEL of several, or of one shard's keys.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    executions: u64,
    /// The execution to measure next.
    next_measured: u64,
    /// The execution that was measured last.
    last_measured: u64,
    /// The time of all executions, estimated from those that were measured.
    nanoseconds: u64,
    /// Executions that are parts of calls.
    parts: u64,
    /// Calls that are executed in parts.
    in_parts: u64,
    /// Calls that were refused before they were executed.
    rejected: u64,
    /// Calls that were executed and replied an error.
    failed: u64,
}

impl Calls {
    fn published(&self) -> CallStats {
        let calls = self.executions - self.parts + self.in_parts;
        let Self { nanoseconds, rejected, failed, .. } = *self;
        CallStats { calls, nanoseconds, rejected, failed }
    }
}

/// The statistics of one row of the command table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Calls that were executed.
    pub calls: u64,
    /// The time of all of them, estimated.
    pub nanoseconds: u64,
    /// Calls that were refused before they were executed.
    pub rejected: u64,
    /// Calls that were executed and replied an error.
    pub failed: u64,
}

impl CallStats {
    /// Combines both, number by number.
    #[must_use]
    pub fn with(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            calls: combine(self.calls, other.calls),
            nanoseconds: combine(self.nanoseconds, other.nanoseconds),
            rejected: combine(self.rejected, other.rejected),
            failed: combine(self.failed, other.failed),
        }
    }
}

/// A shard's own counters.
#[derive(Clone, Debug)]
pub struct Counters {
    values: [u64; COUNT],
    /// Per row of the command table.
    calls: [Calls; ROWS_COUNT],
    /// Error replies to RESP's clients, per code.
    errors: [u64; ERROR_CODES.len()],
    /// The state of the generator that draws the executions to measure.
    random: u64,
}

impl Counters {
    /// All counters at zero.
    pub fn new() -> Self {
        Self {
            values: [0; COUNT],
            calls: [Calls::default(); ROWS_COUNT],
            errors: [0; ERROR_CODES.len()],
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Counts an execution of a command. True if it is to be measured ([`Counters::measured`]).
    #[inline]
    pub fn executed(&mut self, command: Command) -> bool {
        let calls = &mut self.calls[command as usize];
        calls.executions += 1;
        calls.executions >= calls.next_measured
    }

    /// An execution that was just counted took so long. With `all`, the next one is to be measured as well; otherwise
    /// it is drawn, so that a pattern in the calls does not meet the same pattern in the sample. The measured one
    /// stands for all since the one before it.
    pub fn measured(&mut self, command: Command, nanoseconds: u64, all: bool) {
        let calls = &mut self.calls[command as usize];
        calls.nanoseconds += nanoseconds * (calls.executions - calls.last_measured);
        calls.last_measured = calls.executions;
        let skipped = if all || calls.executions < MEASURED_FIRST { 0 } else { self.random % (2 * MEASURED_FIRST - 1) };
        calls.next_measured = calls.executions + skipped + 1;
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
    }

    /// An execution that was counted took so much longer.
    pub fn took(&mut self, command: Command, nanoseconds: u64) {
        self.calls[command as usize].nanoseconds += nanoseconds;
    }

    /// An execution that was just counted is a part of a call.
    #[inline]
    pub fn executed_part(&mut self, command: Command) {
        self.calls[command as usize].parts += 1;
    }

    /// Counts a call whose parts are counted as they are executed, or that took `nanoseconds` as a whole.
    pub fn called(&mut self, row: &Row, nanoseconds: u64) {
        let calls = &mut self.calls[row.number()];
        calls.in_parts += 1;
        calls.nanoseconds += nanoseconds;
    }

    /// Counts a call that was refused before it was executed.
    pub fn rejected(&mut self, row: &Row) {
        self.calls[row.number()].rejected += 1;
    }

    /// Counts a call that was executed and replied an error.
    pub fn failed(&mut self, row: &Row) {
        self.calls[row.number()].failed += 1;
    }

    /// Counts an error reply by its code, with which `text` begins.
    pub fn replied_error(&mut self, text: &[u8]) {
        let code = text.split(|&b| b == b' ').next().unwrap_or_default();
        let known = ERROR_CODES.iter().position(|known| known.as_bytes() == code);
        self.errors[known.unwrap_or(0)] += 1;
    }

    /// All error replies.
    pub fn error_replies(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Adds 1.
    #[inline]
    pub fn add(&mut self, counter: Counter) {
        self.values[counter as usize] += 1;
    }

    /// Adds `n`.
    #[inline]
    pub fn add_n(&mut self, counter: Counter, n: u64) {
        self.values[counter as usize] += n;
    }

    /// Sets a value that is maintained elsewhere.
    #[inline]
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.values[counter as usize] = value;
    }

    /// The current value.
    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// One shard's published counters. Any thread may read them.
#[derive(Debug)]
#[repr(align(128))]
pub struct Published {
    values: [AtomicU64; COUNT],
    /// Per row of the command table: the numbers of [`CallStats`] in their order.
    calls: [[AtomicU64; 4]; ROWS_COUNT],
    errors: [AtomicU64; ERROR_CODES.len()],
    /// Per database: the numbers of [`DatabaseStats`] in their order.
    databases: [[AtomicU64; 4]; DATABASES],
}

/// The statistics of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseStats {
    /// Items.
    pub items: u64,
    /// Items that have an expiry time.
    pub expiring: u64,
    /// The average time to live of these in milliseconds, estimated.
    pub ttl_ms: u64,
    /// Hashes with fields that expire, estimated.
    pub timed_hashes: u64,
}

impl DatabaseStats {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let ttl_ms = self.ttl_ms * self.expiring + other.ttl_ms * other.expiring;
        let expiring = self.expiring + other.expiring;
        Self {
            items: self.items + other.items,
            expiring,
            ttl_ms: ttl_ms.checked_div(expiring).unwrap_or(0),
            timed_hashes: self.timed_hashes + other.timed_hashes,
        }
    }
}

impl Published {
    /// All counters at zero.
    pub fn new() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; COUNT],
            calls: [const { [const { AtomicU64::new(0) }; 4] }; ROWS_COUNT],
            errors: [const { AtomicU64::new(0) }; ERROR_CODES.len()],
            databases: [const { [const { AtomicU64::new(0) }; 4] }; DATABASES],
        }
    }

    /// Publishes the shard's counters. Only the owning shard may call this.
    #[inline]
    pub fn publish(&self, counters: &Counters) {
        for (published, value) in self.values.iter().zip(counters.values) {
            published.store(value, Ordering::Relaxed);
        }
    }

    /// Publishes what is read less often: calls per command, errors, and the usage of each database.
    pub fn publish_more(&self, counters: &Counters, databases: impl Iterator<Item = [u64; 2]>) {
        for (published, calls) in self.calls.iter().zip(&counters.calls) {
            let CallStats { calls, nanoseconds, rejected, failed } = calls.published();
            for (published, value) in published.iter().zip([calls, nanoseconds, rejected, failed]) {
                published.store(value, Ordering::Relaxed);
            }
        }
        for (published, value) in self.errors.iter().zip(counters.errors) {
            published.store(value, Ordering::Relaxed);
        }
        for (published, held) in self.databases.iter().zip(databases) {
            published[0].store(held[0], Ordering::Relaxed);
            published[1].store(held[1], Ordering::Relaxed);
        }
    }

    /// Calls of every row of the command table, in the order of their numbers.
    pub fn calls(&self) -> impl Iterator<Item = CallStats> {
        self.calls.iter().map(|published| {
            let [calls, nanoseconds, rejected, failed] =
                [0, 1, 2, 3].map(|n: usize| published[n].load(Ordering::Relaxed));
            CallStats { calls, nanoseconds, rejected, failed }
        })
    }

    /// Error replies per code.
    pub fn errors(&self) -> [u64; ERROR_CODES.len()] {
        std::array::from_fn(|n| self.errors[n].load(Ordering::Relaxed))
    }

    /// Publishes the estimates of each database: the average time to live and the hashes with fields that expire.
    pub fn publish_estimates(&self, databases: impl Iterator<Item = [u64; 2]>) {
        for (published, estimates) in self.databases.iter().zip(databases) {
            published[2].store(estimates[0], Ordering::Relaxed);
            published[3].store(estimates[1], Ordering::Relaxed);
        }
    }

    /// The statistics of a database.
    pub fn database(&self, number: usize) -> DatabaseStats {
        let [items, expiring, ttl_ms, timed_hashes] =
            [0, 1, 2, 3].map(|n: usize| self.databases[number][n].load(Ordering::Relaxed));
        DatabaseStats { items, expiring, ttl_ms, timed_hashes }
    }

    /// The last published value.
    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }
}

impl Default for Published {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_values_are_published() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT);

        let (mut counters, published) = (Counters::new(), Published::new());
        counters.add(Counter::GetHits);
        counters.add_n(Counter::GetHits, 4);
        assert_eq!(published.value(Counter::GetHits), 0);
        published.publish(&counters);
        assert_eq!(published.value(Counter::GetHits), 5);
    }

    /// The statistics of a command as its shard publishes them.
    fn stats_of(counters: &Counters, row: &Row) -> CallStats {
        let published = Published::new();
        published.publish_more(counters, std::iter::empty());
        published.calls().nth(row.number()).expect("every row has some")
    }

    #[test]
    fn times_to_live_are_averaged_over_the_items_of_both() {
        let published = Published::new();
        published.publish_more(&Counters::new(), [[5, 1]].into_iter());
        published.publish_estimates([[1000, 2]].into_iter());
        let one = published.database(0);
        assert_eq!(one, DatabaseStats { items: 5, expiring: 1, ttl_ms: 1000, timed_hashes: 2 });
        let both = one.with(DatabaseStats { items: 4, expiring: 3, ttl_ms: 2000, timed_hashes: 0 });
        assert_eq!(both, DatabaseStats { items: 9, expiring: 4, ttl_ms: 1750, timed_hashes: 2 });
        assert_eq!(DatabaseStats::default().with(DatabaseStats::default()), DatabaseStats::default());
    }

    #[test]
    fn few_calls_are_all_measured() {
        let mut counters = Counters::new();
        for n in 1..=50 {
            assert!(counters.executed(Command::Get));
            counters.measured(Command::Get, n, false);
        }
        let expected = CallStats { calls: 50, nanoseconds: 50 * 51 / 2, ..CallStats::default() };
        assert_eq!(stats_of(&counters, Command::Get.row()), expected);
    }

    /// Pipelines repeat themselves: if every 64th call was measured, a client that sends 63 short commands and a long
    /// one, again and again, would be told that all of them are long, or none.
    #[test]
    fn the_estimate_follows_the_truth_whatever_the_pattern() {
        for period in [2, 63, 64, 128] {
            let (mut counters, mut truth, mut measured) = (Counters::new(), 0, 0);
            for n in 0..1_000_000 {
                let nanoseconds = if n % period == 0 { 10_000 } else { 100 };
                truth += nanoseconds;
                if counters.executed(Command::Set) {
                    counters.measured(Command::Set, nanoseconds, false);
                    measured += 1;
                }
            }
            let estimate = stats_of(&counters, Command::Set.row()).nanoseconds as f64 / truth as f64;
            assert!((0.8..1.2).contains(&estimate), "period {period}: {estimate} of the truth");
            assert!((1_000_000 / 72..1_000_000 / 56).contains(&measured), "{measured} measured");
        }
    }

    #[test]
    fn a_call_in_parts_is_one_call() {
        let (mut counters, row) = (Counters::new(), Command::Del.row());
        counters.called(row, 0);
        for _ in 0..3 {
            counters.executed(Command::Del);
            counters.executed_part(Command::Del);
            counters.measured(Command::Del, 5, true);
        }
        counters.rejected(row);
        counters.failed(row);
        let expected = CallStats { calls: 1, nanoseconds: 15, rejected: 1, failed: 1 };
        assert_eq!(stats_of(&counters, row), expected);
        let doubled = expected.with(expected, |a, b| a + b);
        assert_eq!(doubled, CallStats { calls: 2, nanoseconds: 30, rejected: 2, failed: 2 });
    }

    #[test]
    fn errors_count_by_their_code() {
        let mut counters = Counters::new();
        for text in ["ERR no", "OOM command", "NEWCODE what", "OOM"] {
            counters.replied_error(text.as_bytes());
        }
        assert_eq!((counters.error_replies(), counters.errors[0], counters.errors[6]), (4, 2, 2));
        assert_eq!(ERROR_CODES[6], "OOM");
    }
}
