//! Counters of a shard: plain numbers on cache lines of the shard's own, published once per turn and summed only when
//! read.

#![forbid(unsafe_code)]

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
    /// Malformed or unknown commands.
    InvalidCommands = "invalid_commands",
    /// Bytes received from clients.
    BytesRead = "bytes_read",
    /// Bytes sent to clients.
    BytesWritten = "bytes_written",
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
const COMMANDS: usize = Command::ALL.len();

/// A shard's own counters.
#[derive(Clone, Debug)]
pub struct Counters {
    values: [u64; COUNT],
    /// Calls of each RESP command.
    calls: [u64; COMMANDS],
}

impl Counters {
    /// All counters at zero.
    pub fn new() -> Self {
        Self { values: [0; COUNT], calls: [0; COMMANDS] }
    }

    /// Counts a call of a RESP command.
    #[inline]
    pub fn called(&mut self, command: Command) {
        self.calls[command as usize] += 1;
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
    calls: [AtomicU64; COMMANDS],
    /// Per database: items, and those that have an expiry time.
    databases: [[AtomicU64; 2]; DATABASES],
}

impl Published {
    /// All counters at zero.
    pub fn new() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; COUNT],
            calls: [const { AtomicU64::new(0) }; COMMANDS],
            databases: [const { [const { AtomicU64::new(0) }; 2] }; DATABASES],
        }
    }

    /// Publishes the shard's counters. Only the owning shard may call this.
    #[inline]
    pub fn publish(&self, counters: &Counters) {
        for (published, value) in self.values.iter().zip(counters.values) {
            published.store(value, Ordering::Relaxed);
        }
    }

    /// Publishes what changes less often: calls per command, and the usage of each database.
    pub fn publish_more(&self, counters: &Counters, databases: impl Iterator<Item = [u64; 2]>) {
        for (published, value) in self.calls.iter().zip(counters.calls) {
            published.store(value, Ordering::Relaxed);
        }
        for (published, held) in self.databases.iter().zip(databases) {
            published[0].store(held[0], Ordering::Relaxed);
            published[1].store(held[1], Ordering::Relaxed);
        }
    }

    /// Calls of a RESP command.
    pub fn calls(&self, command: Command) -> u64 {
        self.calls[command as usize].load(Ordering::Relaxed)
    }

    /// Items of a database, and those that have an expiry time.
    pub fn database(&self, number: usize) -> [u64; 2] {
        [0, 1].map(|n| self.databases[number][n].load(Ordering::Relaxed))
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
}
