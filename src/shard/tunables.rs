//! Settings that can be changed while the node runs, and its logs of slow commands. Behind mutexes and atomics:
//! executing a fast command accesses none of them.

use crate::command::{EncodingLimits, UnixMs};
use crate::config::Config;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of arguments kept of a slow command, and the bytes kept of each.
const ARGS_KEPT: usize = 32;
const ARG_BYTES_KEPT: usize = 128;
/// Fast commands are measured too if the slow log's threshold is below this, in microseconds.
const SLOW_MICROS_LEAST: i64 = 1000;
/// The number of latency spikes kept per event.
const SPIKES_KEPT: usize = 160;

/// Settings of Redis's implementation that have no counterpart here, with Redis's defaults: they are accepted, stored
/// and shown, and have no effect.
pub(super) const WITHOUT_EFFECT: [(&str, &str); 25] = [
    ("active-expire-effort", "1"),
    ("activerehashing", "yes"),
    ("appendfsync", "everysec"),
    ("auto-aof-rewrite-min-size", "67108864"),
    ("auto-aof-rewrite-percentage", "100"),
    ("busy-reply-threshold", "5000"),
    ("dynamic-hz", "yes"),
    ("hz", "10"),
    ("lazyfree-lazy-eviction", "yes"),
    ("lazyfree-lazy-expire", "yes"),
    ("lazyfree-lazy-server-del", "yes"),
    ("lazyfree-lazy-user-del", "yes"),
    ("lazyfree-lazy-user-flush", "yes"),
    ("lfu-decay-time", "1"),
    ("lfu-log-factor", "10"),
    ("list-compress-depth", "0"),
    ("lua-time-limit", "5000"),
    ("maxmemory-eviction-tenacity", "10"),
    ("maxmemory-samples", "5"),
    ("hll-sparse-max-bytes", "3000"),
    ("rdbchecksum", "yes"),
    ("rdbcompression", "yes"),
    ("stop-writes-on-bgsave-error", "yes"),
    ("stream-node-max-bytes", "4096"),
    ("stream-node-max-entries", "100"),
];

/// An entry of the slow log.
#[derive(Clone, Debug)]
pub(super) struct SlowCommand {
    pub(super) id: u64,
    pub(super) seconds: u64,
    pub(super) micros: u64,
    pub(super) args: Vec<Vec<u8>>,
    pub(super) client_address: String,
    pub(super) client_name: Vec<u8>,
}

/// Collects the part of a command's arguments that SLOWLOG shows. Nothing else is copied: arguments may be long, and
/// many.
pub(super) struct SlowArgs {
    /// The number of arguments, the command's name included.
    count: usize,
    kept: Vec<Vec<u8>>,
}

impl SlowArgs {
    pub(super) fn new(count: usize) -> Self {
        Self { count, kept: Vec::with_capacity(count.min(ARGS_KEPT)) }
    }

    /// True if no other argument is shown.
    pub(super) fn is_complete(&self) -> bool {
        self.kept.len() >= if self.count > ARGS_KEPT { ARGS_KEPT - 1 } else { self.count }
    }

    /// Adds the next argument.
    pub(super) fn push(&mut self, arg: &[u8]) {
        let (shown, rest) = arg.split_at(arg.len().min(ARG_BYTES_KEPT));
        let more = if rest.is_empty() { String::new() } else { format!("... ({} more bytes)", rest.len()) };
        self.kept.push([shown, more.as_bytes()].concat());
    }

    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        let more = self.count - self.kept.len();
        if more > 0 {
            self.kept.push(format!("... ({more} more arguments)").into_bytes());
        }
        self.kept
    }
}

/// A latency spike: its time and duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spike {
    pub(super) seconds: u64,
    pub(super) milliseconds: u64,
}

/// The settings of CONFIG SET, and the logs that they control.
pub(super) struct Tunables {
    password: Mutex<Vec<u8>>,
    memory_bytes: AtomicU64,
    tcp_keepalive_seconds: AtomicU32,
    encoding_limits: Mutex<EncodingLimits>,
    without_effect: Mutex<BTreeMap<&'static str, String>>,
    /// The slow log's threshold in microseconds; negative disables it.
    pub(super) slowlog_micros: AtomicI64,
    pub(super) slowlog_length: AtomicU64,
    /// The latency monitor's threshold in milliseconds; 0 disables it.
    pub(super) latency_ms: AtomicU64,
    slow: Mutex<(u64, VecDeque<SlowCommand>)>,
    spikes: Mutex<BTreeMap<&'static str, VecDeque<Spike>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tunables {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            password: Mutex::new(config.password.clone().into_bytes()),
            memory_bytes: AtomicU64::new(config.memory_bytes),
            tcp_keepalive_seconds: AtomicU32::new(config.tcp_keepalive_seconds),
            encoding_limits: Mutex::new(EncodingLimits::default()),
            without_effect: Mutex::new(WITHOUT_EFFECT.map(|(name, value)| (name, value.into())).into()),
            slowlog_micros: AtomicI64::new(10_000),
            slowlog_length: AtomicU64::new(128),
            latency_ms: AtomicU64::new(0),
            slow: Mutex::new((0, VecDeque::new())),
            spikes: Mutex::new(BTreeMap::new()),
        }
    }

    /// The password; empty if none is set.
    pub(super) fn password(&self) -> Vec<u8> {
        lock(&self.password).clone()
    }

    pub(super) fn set_password(&self, password: &[u8]) {
        *lock(&self.password) = password.to_vec();
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_memory_bytes(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    /// After how many seconds without traffic the peers of new connections are probed; 0 for never.
    pub(super) fn tcp_keepalive_seconds(&self) -> u32 {
        self.tcp_keepalive_seconds.load(Ordering::Relaxed)
    }

    pub(super) fn set_tcp_keepalive_seconds(&self, seconds: u32) {
        self.tcp_keepalive_seconds.store(seconds, Ordering::Relaxed);
    }

    pub(super) fn encoding_limits(&self) -> EncodingLimits {
        *lock(&self.encoding_limits)
    }

    pub(super) fn set_encoding_limits(&self, encoding_limits: EncodingLimits) {
        *lock(&self.encoding_limits) = encoding_limits;
    }

    /// The settings without an effect.
    pub(super) fn without_effect(&self) -> Vec<(&'static str, String)> {
        lock(&self.without_effect).iter().map(|(name, value)| (*name, value.clone())).collect()
    }

    pub(super) fn set_without_effect(&self, name: &'static str, value: String) {
        lock(&self.without_effect).insert(name, value);
    }

    /// True if fast commands are measured too, because the slow log's threshold is very low.
    #[inline]
    pub(super) fn times_all(&self) -> bool {
        (0..SLOW_MICROS_LEAST).contains(&self.slowlog_micros.load(Ordering::Relaxed))
    }

    /// Logs a command that took `micros` microseconds, if it was slow.
    pub(super) fn took(&self, micros: u64, now: UnixMs, describe: impl FnOnce() -> SlowCommand) {
        let threshold = self.slowlog_micros.load(Ordering::Relaxed);
        if threshold >= 0 && micros >= threshold as u64 {
            let mut slow = lock(&self.slow);
            let mut command = describe();
            (command.id, command.micros) = (slow.0, micros);
            slow.0 += 1;
            slow.1.push_front(command);
            slow.1.truncate(self.slowlog_length.load(Ordering::Relaxed) as usize);
        }
        let threshold = self.latency_ms.load(Ordering::Relaxed);
        let milliseconds = micros / 1000;
        if threshold > 0 && milliseconds >= threshold {
            let mut spikes = lock(&self.spikes);
            let history = spikes.entry("command").or_default();
            history.push_back(Spike { seconds: now / 1000, milliseconds });
            if history.len() > SPIKES_KEPT {
                history.pop_front();
            }
        }
    }

    /// The slow log, latest entry first.
    pub(super) fn slow_commands(&self) -> Vec<SlowCommand> {
        lock(&self.slow).1.iter().cloned().collect()
    }

    pub(super) fn forget_slow_commands(&self) {
        lock(&self.slow).1.clear();
    }

    /// The latency spikes of every event, oldest first.
    pub(super) fn spikes(&self) -> BTreeMap<&'static str, VecDeque<Spike>> {
        lock(&self.spikes).clone()
    }

    /// Removes the spikes of the named events, or of all if `names` is empty. Returns how many events were removed.
    pub(super) fn forget_spikes<'w>(&self, names: impl ExactSizeIterator<Item = &'w [u8]>) -> usize {
        let mut spikes = lock(&self.spikes);
        let before = spikes.len();
        if names.len() == 0 {
            spikes.clear();
        } else {
            let names: Vec<&[u8]> = names.collect();
            spikes.retain(|event, _| !names.iter().any(|name| name.eq_ignore_ascii_case(event.as_bytes())));
        }
        before - spikes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(args: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut slow = SlowArgs::new(args.len());
        for arg in args {
            if slow.is_complete() {
                break;
            }
            slow.push(arg);
        }
        slow.finish()
    }

    /// Arguments were copied as a whole and cut afterwards, which keeps the capacity: 1,500 HSETs of a megabyte held
    /// more than a gigabyte.
    #[test]
    fn of_slow_commands_only_what_is_shown_is_kept() {
        let long = vec![b'v'; 1 << 20];
        let shown = kept(&[b"hset", b"key", b"field", &long]);
        assert_eq!(shown[..3], [&b"hset"[..], b"key", b"field"]);
        let tail: &[u8] = b"... (1048448 more bytes)";
        assert_eq!(shown[3], [&long[..128], tail].concat());
        assert!(shown.iter().map(Vec::capacity).sum::<usize>() < 300);

        assert_eq!(kept(&[&b"arg"[..]; 32]), [b"arg"; 32], "as many as are kept");
        let many = kept(&[&b"arg"[..]; 100]);
        assert_eq!((many.len(), &many[31][..]), (32, &b"... (69 more arguments)"[..]));
        assert!(many.capacity() <= 64);
    }
}
