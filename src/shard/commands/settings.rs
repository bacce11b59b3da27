//! CONFIG: settings under Redis's names.

use super::{Io, Shard};
use crate::command::{Administration, Args, Command, EncodingLimits};
use crate::config::{PASSWORD_BYTES_MAX, SHARD_MEMORY_BYTES_MAX, SHARD_MEMORY_BYTES_MIN, TCP_KEEPALIVE_SECONDS_MAX};
use crate::eviction::Eviction;
use crate::execute::introspect;
use crate::shard::SharedState;
use crate::shard::pending::Pending;
use crate::shard::tunables::WITHOUT_EFFECT;
use crate::sys;
use crate::values::glob::{Glob, TooComplex};
use crate::values::numbers;
use std::sync::atomic::Ordering;

/// Further Redis names of policies. The volatile ones evict from all keys, like the others.
const POLICY_ALIASES: [(&str, Eviction); 3] =
    [("volatile-lru", Eviction::Lru), ("volatile-lfu", Eviction::Lfu), ("volatile-random", Eviction::Random)];

/// Settings that clients and tools ask for and that cannot be changed here, with their values.
const FIXED: &[(&str, &str)] = &[
    ("acl-pubsub-default", "resetchannels"),
    ("aclfile", ""),
    ("activedefrag", "no"),
    ("appenddirname", "appendonlydir"),
    ("appendfilename", "appendonly.aof"),
    ("appendonly", "no"),
    ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
    ("client-query-buffer-limit", "67108864"),
    ("cluster-enabled", "no"),
    ("daemonize", "no"),
    ("databases", "16"),
    ("dbfilename", "dump.rdb"),
    ("enable-debug-command", "no"),
    ("enable-module-command", "no"),
    ("enable-protected-configs", "no"),
    ("io-threads-do-reads", "no"),
    ("latency-tracking", "no"),
    ("latency-tracking-info-percentiles", "50 99 99.9"),
    ("logfile", ""),
    ("masterauth", ""),
    ("masteruser", ""),
    ("maxmemory-clients", "0"),
    ("min-replicas-to-write", "0"),
    ("min-slaves-to-write", "0"),
    ("notify-keyspace-events", ""),
    ("oom-score-adj", "no"),
    ("pidfile", ""),
    ("protected-mode", "no"),
    ("replica-announce-ip", ""),
    ("replica-announce-port", "0"),
    ("replica-read-only", "yes"),
    ("replica-serve-stale-data", "yes"),
    ("replicaof", ""),
    ("save", ""),
    ("slave-read-only", "yes"),
    ("slaveof", ""),
    ("supervised", "no"),
    ("syslog-enabled", "no"),
    ("timeout", "0"),
    ("tls-port", "0"),
    ("tracking-table-max-keys", "1000000"),
    ("unixsocket", ""),
];

/// The longest value that CONFIG SET takes, in bytes: values are kept and shown.
const VALUE_BYTES_MAX: usize = 1024;

/// The longest name of a setting that an error shows.
const NAME_BYTES_SHOWN: usize = 128;

/// Former names of settings, which Redis still accepts.
const OLD_NAMES: [(&str, &str); 5] = [
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
];

/// What `appendfsync` may be.
const APPEND_FSYNC: [&str; 3] = ["everysec", "always", "no"];

/// Redis's name of a log level.
fn log_level(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "notice",
        1 => "verbose",
        _ => "debug",
    }
}

/// The effect of a setting.
enum Change {
    Memory(u64),
    Policy(Eviction),
    EncodingLimits(EncodingLimits),
    Password(Vec<u8>),
    SlowlogMicros(i64),
    SlowlogLength(u64),
    LatencyMs(u64),
    TcpKeepaliveSeconds(u32),
    /// A setting of Redis's implementation that has no counterpart here: it is stored and shown.
    WithoutEffect(&'static str, String),
    /// The setting already has this value.
    Nothing,
}

/// Redis's name of a policy; a policy that Redis does not have is named `allkeys-…` too.
pub(super) fn policy_name(eviction: Eviction) -> String {
    match eviction {
        Eviction::None => "noeviction".into(),
        Eviction::Ttl => "volatile-ttl".into(),
        other => format!("allkeys-{}", other.name()),
    }
}

/// All names of policies that CONFIG SET accepts.
fn policies() -> impl Iterator<Item = (String, Eviction)> {
    let own = Eviction::ALL.into_iter().map(|policy| (policy_name(policy), policy));
    own.chain(POLICY_ALIASES.map(|(name, policy)| (name.to_owned(), policy)))
}

/// The settings that limit compact encodings, by name.
fn encoding_settings(encoding_limits: &mut EncodingLimits) -> [(&'static str, Number<'_>); 8] {
    let EncodingLimits {
        hash_entries,
        hash_value,
        list_size,
        set_integers,
        set_entries,
        set_value,
        sorted_entries,
        sorted_value,
    } = encoding_limits;
    [
        ("hash-max-listpack-entries", Number::Natural(hash_entries)),
        ("hash-max-listpack-value", Number::Natural(hash_value)),
        ("list-max-listpack-size", Number::Any(list_size)),
        ("set-max-intset-entries", Number::Natural(set_integers)),
        ("set-max-listpack-entries", Number::Natural(set_entries)),
        ("set-max-listpack-value", Number::Natural(set_value)),
        ("zset-max-listpack-entries", Number::Natural(sorted_entries)),
        ("zset-max-listpack-value", Number::Natural(sorted_value)),
    ]
}

enum Number<'n> {
    Natural(&'n mut u64),
    Any(&'n mut i64),
}

impl Number<'_> {
    fn text(&self) -> String {
        match self {
            Self::Natural(n) => n.to_string(),
            Self::Any(n) => n.to_string(),
        }
    }
}

/// Parses a size with a unit, as Redis does: k is 1000, kb is 1024.
fn bytes(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// All settings, by name.
fn all(shared: &SharedState) -> Vec<(&'static str, String)> {
    let tunables = &shared.tunables;
    let config = &shared.config;
    let mut settings: Vec<(&str, String)> = vec![
        ("maxmemory", tunables.memory_bytes().to_string()),
        ("maxmemory-policy", policy_name(shared.eviction())),
        ("maxclients", config.max_connections.to_string()),
        ("port", shared.resp_port.to_string()),
        ("bind", config.listen.iter().map(|listen| listen.ip.to_string()).collect::<Vec<_>>().join(" ")),
        ("proto-max-bulk-len", config.resp_item_bytes.to_string()),
        ("requirepass", String::from_utf8_lossy(&tunables.password()).into_owned()),
        ("slowlog-log-slower-than", tunables.slowlog_micros.load(Ordering::Relaxed).to_string()),
        ("slowlog-max-len", tunables.slowlog_length.load(Ordering::Relaxed).to_string()),
        ("latency-monitor-threshold", tunables.latency_ms.load(Ordering::Relaxed).to_string()),
        ("tcp-keepalive", tunables.tcp_keepalive_seconds().to_string()),
        ("io-threads", shared.shards().to_string()),
        ("dir", std::env::current_dir().unwrap_or_default().to_string_lossy().into_owned()),
        ("disable-thp", if config.huge_pages { "no" } else { "yes" }.into()),
        ("loglevel", log_level(config.verbosity).into()),
        ("tcp-backlog", sys::LISTEN_BACKLOG.to_string()),
    ];
    settings
        .extend(encoding_settings(&mut tunables.encoding_limits()).iter().map(|(name, number)| (*name, number.text())));
    let old_names: Vec<(&str, String)> = OLD_NAMES
        .iter()
        .filter_map(|(old, new)| Some((*old, settings.iter().find(|(name, _)| name == new)?.1.clone())))
        .collect();
    settings.extend(old_names);
    settings.extend(tunables.without_effect());
    settings.extend(FIXED.iter().map(|(name, value)| (*name, (*value).into())));
    settings
}

impl<I: Io> Shard<I> {
    /// CONFIG.
    pub(super) fn config(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let row = Command::Config.row();
        let subcommand = match introspect::find_subcommand(row, args) {
            Ok(subcommand) => subcommand.name,
            Err(error) => return self.reply(id, |w| w.error(error)),
        };
        let arguments = args.skip(2);
        match subcommand {
            "get" => {
                let patterns: Result<Vec<_>, _> = arguments.iter().map(|pattern| Glob::new(pattern, true)).collect();
                let Ok(patterns) = patterns else { return self.reply(id, |w| w.error(TooComplex::TEXT)) };
                let mut found = all(&self.shared);
                found.retain(|(name, _)| patterns.iter().any(|pattern| pattern.matches(name.as_bytes())));
                self.reply(id, |w| {
                    w.map(found.len());
                    for (name, value) in &found {
                        w.bulk(name.as_bytes());
                        w.bulk(value.as_bytes());
                    }
                });
            }
            "set" => {
                let done = self.set_settings(pending, arguments);
                match done {
                    Some(Ok(())) => self.reply(id, |w| w.simple("OK")),
                    Some(Err(error)) => self.reply(id, |w| w.error(error)),
                    None => {}
                }
            }
            "resetstat" => {
                if !self.has_all_counters(pending) {
                    return;
                }
                self.shared.reset_counters();
                self.reply(id, |w| w.simple("OK"));
            }
            "rewrite" => self.reply(id, |w| w.error("ERR The server is running without a config file")),
            _ => self.reply(id, |w| introspect::help(row, w)),
        }
    }

    /// Changes all of the settings or none. Returns None if the command has to wait for space in the batches to
    /// siblings.
    fn set_settings(&mut self, pending: &Pending, args: Args) -> Option<Result<(), String>> {
        if args.len() % 2 == 1 {
            return Some(Err("ERR wrong number of arguments for 'config|set' command".into()));
        }
        let mut changes = Vec::new();
        let mut encoding_limits = self.shared.tunables.encoding_limits();
        let mut pairs = args.into_iter();
        while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
            let mut later = pairs.clone().step_by(2);
            if later.any(|other| other.eq_ignore_ascii_case(name)) {
                let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_SHOWN)]).to_lowercase();
                let why = "duplicate parameter";
                return Some(Err(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")));
            }
            match self.change(name, value, &mut encoding_limits) {
                Ok(change) => changes.push(change),
                Err(error) => return Some(Err(error)),
            }
        }
        if !self.has_room(0..self.router.shards(), pending) {
            return None;
        }
        for change in changes {
            self.apply(change);
        }
        Some(Ok(()))
    }

    fn change(&self, name: &[u8], value: &[u8], encoding_limits: &mut EncodingLimits) -> Result<Change, String> {
        let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_SHOWN)]).to_lowercase();
        let fail = |why: &str| Err(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"));
        let longest = if name == "requirepass" { PASSWORD_BYTES_MAX } else { VALUE_BYTES_MAX };
        if value.len() > longest {
            return fail(&format!("the value has {} bytes, {longest} are allowed", value.len()));
        }
        let shown = String::from_utf8_lossy(value).into_owned();
        let number = numbers::integer(value);
        let natural = number.and_then(|n| u64::try_from(n).ok());
        let found = encoding_settings(encoding_limits)
            .into_iter()
            .find(|(known, _)| *known == name.replace("ziplist", "listpack"));
        if let Some((_, setting)) = found {
            match (setting, number, natural) {
                (Number::Natural(to), _, Some(n)) => *to = n,
                (Number::Any(to), Some(n), _) => *to = n,
                _ => return fail("argument couldn't be parsed into an integer"),
            }
            return Ok(Change::EncodingLimits(*encoding_limits));
        }
        if let Some((known, default)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
            let is_switch = matches!(*default, "yes" | "no");
            return match () {
                () if *known == "appendfsync" && !APPEND_FSYNC.contains(&shown.as_str()) => {
                    fail(&format!("argument(s) must be one of the following: {}", APPEND_FSYNC.join(", ")))
                }
                () if is_switch && !matches!(shown.as_str(), "yes" | "no") => fail("argument must be 'yes' or 'no'"),
                () if numbers::integer(default.as_bytes()).is_some() && bytes(value).is_none() => {
                    fail("argument couldn't be parsed into an integer")
                }
                () => Ok(Change::WithoutEffect(known, shown)),
            };
        }
        match name.as_str() {
            "maxmemory" => {
                let shards = self.shared.shards() as u64;
                let (least, most) = (SHARD_MEMORY_BYTES_MIN * shards, self.shared.config.memory_bytes_max);
                let most = most.min(SHARD_MEMORY_BYTES_MAX * shards);
                match bytes(value) {
                    Some(0) => Ok(Change::Memory(self.shared.config.memory_bytes)),
                    Some(bytes) if (least..=most).contains(&bytes) => Ok(Change::Memory(bytes)),
                    _ => fail(&format!("allowed: {least} to {most} bytes (--memory-max), or 0 for what --memory says")),
                }
            }
            "maxmemory-policy" => {
                let found = policies().find(|(policy, _)| policy.eq_ignore_ascii_case(&shown));
                let own = || Eviction::ALL.into_iter().find(|policy| policy.name() == shown);
                match found.map(|(_, policy)| policy).or_else(own) {
                    Some(policy) => Ok(Change::Policy(policy)),
                    None => {
                        let names: Vec<_> = policies().map(|(name, _)| name).collect();
                        fail(&format!("argument(s) must be one of the following: {}", names.join(", ")))
                    }
                }
            }
            // A longer one could not be given: commands of clients that have not authenticated are bounded.
            "requirepass" if value.len() > PASSWORD_BYTES_MAX => {
                fail(&format!("allowed: up to {PASSWORD_BYTES_MAX} bytes"))
            }
            "requirepass" => Ok(Change::Password(value.to_vec())),
            "tcp-keepalive" => match natural.filter(|&n| n <= TCP_KEEPALIVE_SECONDS_MAX.into()) {
                Some(seconds) => Ok(Change::TcpKeepaliveSeconds(seconds as u32)),
                None => fail(&format!("argument must be between 0 and {TCP_KEEPALIVE_SECONDS_MAX} inclusive")),
            },
            "slowlog-log-slower-than" => match number.filter(|&n| n >= -1) {
                Some(micros) => Ok(Change::SlowlogMicros(micros)),
                None => fail("argument must be between -1 and 9223372036854775807 inclusive"),
            },
            "slowlog-max-len" => match natural {
                Some(length) => Ok(Change::SlowlogLength(length)),
                None => fail("argument must be between 0 and 9223372036854775807 inclusive"),
            },
            "latency-monitor-threshold" => match natural {
                Some(ms) => Ok(Change::LatencyMs(ms)),
                None => fail("argument must be between 0 and 9223372036854775807 inclusive"),
            },
            _ => match all(&self.shared).into_iter().find(|(known, _)| *known == name) {
                Some((_, current)) if current == shown => Ok(Change::Nothing),
                Some(_) => fail("can't set immutable config"),
                None => Err(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")),
            },
        }
    }

    fn apply(&mut self, change: Change) {
        let tunables = &self.shared.tunables;
        match change {
            Change::Nothing => {}
            Change::WithoutEffect(name, value) => tunables.set_without_effect(name, value),
            Change::Password(password) => tunables.set_password(&password),
            Change::SlowlogMicros(micros) => tunables.slowlog_micros.store(micros, Ordering::Relaxed),
            Change::SlowlogLength(length) => tunables.slowlog_length.store(length, Ordering::Relaxed),
            Change::TcpKeepaliveSeconds(seconds) => tunables.set_tcp_keepalive_seconds(seconds),
            Change::LatencyMs(ms) => tunables.latency_ms.store(ms, Ordering::Relaxed),
            Change::Memory(bytes) => {
                tunables.set_memory_bytes(bytes);
                self.administer_everywhere(Administration::SetMemory(bytes / self.shared.shards() as u64));
            }
            Change::Policy(policy) => {
                self.shared.set_eviction(policy);
                self.administer_everywhere(Administration::SetEviction(policy));
            }
            Change::EncodingLimits(encoding_limits) => {
                tunables.set_encoding_limits(encoding_limits);
                self.administer_everywhere(Administration::SetEncodingLimits(encoding_limits));
            }
        }
    }
}
