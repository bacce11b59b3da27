//! Counters of a shard: plain numbers on the shard's own lines, published once per turn, summed only when read.

#![forbid(unsafe_code)]

use crate::command::{Command, DATABASES};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted. The name is memcached's, where memcached has it.
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
    /// Times that accepting failed, usually for want of file descriptors.
    FailedAccepts = "listen_disabled_num",
    /// Idle connections that moved from here to another shard, to spread them evenly.
    MovedConnections = "moved_connections",
    /// Keys asked for.
    CmdGet = "cmd_get",
    /// Values to store.
    CmdSet = "cmd_set",
    /// flush_all commands.
    CmdFlush = "cmd_flush",
    /// Keys touched.
    CmdTouch = "cmd_touch",
    /// Keys found.
    GetHits = "get_hits",
    /// Keys not found.
    GetMisses = "get_misses",
    /// Keys deleted.
    DeleteHits = "delete_hits",
    /// Deletes of keys that were not there.
    DeleteMisses = "delete_misses",
    /// Numbers incremented.
    IncrHits = "incr_hits",
    /// Increments of keys that were not there.
    IncrMisses = "incr_misses",
    /// Numbers decremented.
    DecrHits = "decr_hits",
    /// Decrements of keys that were not there.
    DecrMisses = "decr_misses",
    /// Stores over the expected version.
    CasHits = "cas_hits",
    /// Conditional stores of keys that were not there.
    CasMisses = "cas_misses",
    /// Stores that found another version.
    CasBadval = "cas_badval",
    /// Keys touched that were there.
    TouchHits = "touch_hits",
    /// Touches of keys that were not there.
    TouchMisses = "touch_misses",
    /// Values refused for their length.
    StoreTooLarge = "store_too_large",
    /// Values refused because memory was full and nothing could be evicted.
    StoreNoMemory = "store_no_memory",
    /// Commands that could not be understood.
    InvalidCommands = "invalid_commands",
    /// Bytes received from clients.
    BytesRead = "bytes_read",
    /// Bytes sent to clients.
    BytesWritten = "bytes_written",
    /// Times that a connection had to wait before more was read from it.
    ConnYields = "conn_yields",
    /// Items, those not yet known to be expired included.
    CurrItems = "curr_items",
    /// Items ever stored.
    TotalItems = "total_items",
    /// Bytes of items, headers included.
    Bytes = "bytes",
    /// Bytes of keys and values.
    UserBytes = "user_bytes",
    /// Live items removed to make room.
    Evictions = "evictions",
    /// Expired items removed.
    Reclaimed = "reclaimed",
    /// Bytes that expired items took.
    ExpiredBytes = "reclaimed_bytes",
    /// Bytes moved to free pages.
    MovedBytes = "moved_bytes",
    /// Bytes of the pages that are held: items, index and all else that counts against the limit.
    HeldBytes = "held_bytes",
    /// Bytes of the index.
    IndexBytes = "index_bytes",
    /// Of the items with short times to live, 99 % are removed within so many milliseconds of their expiry. Of several
    /// shards, the slowest's.
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
    /// How often each command of RESP was called.
    calls: [u64; COMMANDS],
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self { values: [0; COUNT], calls: [0; COMMANDS] }
    }

    /// Counts a call of a command of RESP.
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

    /// Sets a value that is known elsewhere.
    #[inline]
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.values[counter as usize] = value;
    }

    /// The value.
    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// Where one shard publishes its counters; everyone may read.
#[derive(Debug)]
#[repr(align(128))]
pub struct Published {
    values: [AtomicU64; COUNT],
    calls: [AtomicU64; COMMANDS],
    /// Items, and those of them that expire, of each database.
    databases: [[AtomicU64; 2]; DATABASES],
}

impl Published {
    /// All zero.
    pub fn new() -> Self {
        Self {
            values: [const { AtomicU64::new(0) }; COUNT],
            calls: [const { AtomicU64::new(0) }; COMMANDS],
            databases: [const { [const { AtomicU64::new(0) }; 2] }; DATABASES],
        }
    }

    /// Shows the shard's counters to everyone. Only the shard that owns them calls this.
    #[inline]
    pub fn publish(&self, counters: &Counters) {
        for (published, value) in self.values.iter().zip(counters.values) {
            published.store(value, Ordering::Relaxed);
        }
    }

    /// Shows what changes more slowly: calls per command, and what each database holds.
    pub fn publish_more(&self, counters: &Counters, databases: impl Iterator<Item = [u64; 2]>) {
        for (published, value) in self.calls.iter().zip(counters.calls) {
            published.store(value, Ordering::Relaxed);
        }
        for (published, held) in self.databases.iter().zip(databases) {
            published[0].store(held[0], Ordering::Relaxed);
            published[1].store(held[1], Ordering::Relaxed);
        }
    }

    /// How often a command of RESP was called.
    pub fn calls(&self, command: Command) -> u64 {
        self.calls[command as usize].load(Ordering::Relaxed)
    }

    /// Items of a database, and those of them that expire.
    pub fn database(&self, number: usize) -> [u64; 2] {
        [0, 1].map(|n| self.databases[number][n].load(Ordering::Relaxed))
    }

    /// What was published last.
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
