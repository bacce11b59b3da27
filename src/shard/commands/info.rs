//! INFO: the node's counters under Redis's names, in sections.

use super::clients::REDIS_VERSION;
use super::settings::policy_name;
use super::{Io, Shard};
use crate::command::{Args, Command, DATABASES};
use crate::log;
use crate::metrics::Counter;
use crate::shard::pending::Pending;
use crate::shard::{Clock, SharedState};
use crate::sys;
use std::fmt::{Display, Write};

/// A section's name, and the function that writes it.
type Section = (&'static str, fn(&SharedState, &mut Lines));

/// The sections of INFO without arguments; those of `MORE` are shown by name, or with `all` or `everything`.
const SECTIONS: [Section; 11] = [
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("modules", |_, _| {}),
    ("errorstats", errors),
    ("cluster", cluster),
    ("keyspace", keyspace),
];
const MORE: [Section; 1] = [("commandstats", commands)];

struct Lines(String);

impl Lines {
    fn field(&mut self, name: impl Display, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

impl<I: Io> Shard<I> {
    /// INFO.
    pub(super) fn info(&mut self, pending: &Pending, args: Args) {
        // The reply includes the work that siblings do for this client's earlier requests: wait for their replies.
        if self.waits_for_replies(pending) {
            return;
        }
        self.executor.counters.called(Command::Info);
        self.publish();
        self.publish_more();
        let wanted: Vec<String> = args.skip(1).iter().map(|arg| String::from_utf8_lossy(arg).to_lowercase()).collect();
        let is_wanted = |name: &str, is_default: bool| {
            wanted.is_empty() && is_default
                || wanted.iter().any(|w| w == name || w == "all" || w == "everything" || w == "default" && is_default)
        };
        let mut lines = Lines(String::new());
        let sections =
            SECTIONS.iter().map(|section| (section, true)).chain(MORE.iter().map(|section| (section, false)));
        for ((name, write), is_default) in sections {
            if is_wanted(name, is_default) {
                if !lines.0.is_empty() {
                    lines.0.push_str("\r\n");
                }
                let title = name[..1].to_uppercase() + &name[1..];
                let _ = write!(lines.0, "# {title}\r\n");
                write(&self.shared, &mut lines);
            }
        }
        self.reply(pending.id, |w| w.verbatim(b"txt", lines.0.as_bytes()));
    }
}

fn server(shared: &SharedState, lines: &mut Lines) {
    lines.field("redis_version", REDIS_VERSION);
    lines.field("pinion_version", env!("CARGO_PKG_VERSION"));
    lines.field("server_name", "pinion");
    lines.field("redis_mode", "standalone");
    lines.field("os", format_args!("Linux {} {}", sys::kernel_release(), std::env::consts::ARCH));
    lines.field("arch_bits", usize::BITS);
    lines.field("multiplexing_api", "io_uring");
    lines.field("process_id", std::process::id());
    lines.field("run_id", &shared.run_id);
    lines.field("tcp_port", shared.resp_port);
    lines.field("memcached_port", shared.port);
    lines.field("server_time_usec", Clock::unix_ms() * 1000);
    lines.field("uptime_in_seconds", shared.clock.uptime_seconds());
    lines.field("uptime_in_days", shared.clock.uptime_seconds() / 86_400);
    lines.field("shards", shared.shards());
}

fn clients(shared: &SharedState, lines: &mut Lines) {
    lines.field("connected_clients", shared.sum(Counter::CurrConnections));
    lines.field("cluster_connections", 0);
    lines.field("maxclients", shared.config.max_connections);
    lines.field("blocked_clients", 0);
    lines.field("tracking_clients", 0);
}

fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{:.2}K", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.2}M", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2}G", bytes as f64 / 1_073_741_824.0),
    }
}

fn memory(shared: &SharedState, lines: &mut Lines) {
    let (held, limit, resident) =
        (shared.sum(Counter::HeldBytes), shared.tunables.memory_bytes(), sys::resident_bytes().unwrap_or(0));
    for (name, bytes) in [("used_memory", held), ("used_memory_rss", resident), ("maxmemory", limit)] {
        lines.field(name, bytes);
        lines.field(format_args!("{name}_human"), human(bytes));
    }
    lines.field("used_memory_dataset", shared.sum(Counter::UserBytes));
    lines.field("used_memory_index", shared.sum(Counter::IndexBytes));
    lines.field("maxmemory_policy", policy_name(shared.eviction()));
    lines.field("mem_fragmentation_ratio", format_args!("{:.2}", resident as f64 / held.max(1) as f64));
    lines.field("mem_allocator", "pinion");
}

/// Fields about persistence, which monitoring tools expect. Nothing is ever saved, so all items written since the start
/// count as unsaved.
fn persistence(shared: &SharedState, lines: &mut Lines) {
    lines.field("loading", 0);
    lines.field("async_loading", 0);
    lines.field("rdb_changes_since_last_save", shared.sum(Counter::TotalItems));
    lines.field("rdb_bgsave_in_progress", 0);
    lines.field("rdb_last_bgsave_status", "ok");
    lines.field("aof_enabled", 0);
    lines.field("aof_rewrite_in_progress", 0);
}

fn stats(shared: &SharedState, lines: &mut Lines) {
    let calls: u64 = Command::ALL.iter().map(|&command| shared.calls(command)).sum();
    lines.field("total_connections_received", shared.since_reset(Counter::TotalConnections));
    lines.field("total_commands_processed", calls);
    lines.field("total_net_input_bytes", shared.since_reset(Counter::BytesRead));
    lines.field("total_net_output_bytes", shared.since_reset(Counter::BytesWritten));
    lines.field("rejected_connections", shared.since_reset(Counter::RejectedConnections));
    lines.field("expired_keys", shared.since_reset(Counter::Reclaimed));
    lines.field("evicted_keys", shared.since_reset(Counter::Evictions));
    lines.field("keyspace_hits", shared.since_reset(Counter::GetHits));
    lines.field("keyspace_misses", shared.since_reset(Counter::GetMisses));
    lines.field("expiry_lag_p99_ms", shared.sum(Counter::ExpiryLag));
    lines.field("acl_access_denied_auth", shared.since_reset(Counter::AuthErrors));
    lines.field("wrong_protocol_connections", shared.since_reset(Counter::WrongProtocol));
    lines.field("log_lines_dropped", log::dropped_lines());
    lines.field("total_error_replies", shared.since_reset(Counter::InvalidCommands));
    for name in ["sync_full", "sync_partial_ok", "sync_partial_err", "pubsub_channels", "pubsub_patterns"] {
        lines.field(name, 0);
    }
}

fn replication(_: &SharedState, lines: &mut Lines) {
    lines.field("role", "master");
    lines.field("connected_slaves", 0);
    lines.field("master_repl_offset", 0);
}

fn cpu(_: &SharedState, lines: &mut Lines) {
    let (user, system) = sys::resource_usage();
    lines.field("used_cpu_sys", format_args!("{:.6}", system.as_secs_f64()));
    lines.field("used_cpu_user", format_args!("{:.6}", user.as_secs_f64()));
}

fn errors(shared: &SharedState, lines: &mut Lines) {
    let count = shared.since_reset(Counter::InvalidCommands);
    if count > 0 {
        lines.field("errorstat_ERR", format_args!("count={count}"));
    }
}

fn cluster(_: &SharedState, lines: &mut Lines) {
    lines.field("cluster_enabled", 0);
}

fn commands(shared: &SharedState, lines: &mut Lines) {
    for &command in Command::ALL {
        let calls = shared.calls(command);
        if calls > 0 {
            // The time of single commands is not measured, so only calls are shown.
            lines.field(format_args!("cmdstat_{}", command.name()), format_args!("calls={calls}"));
        }
    }
}

fn keyspace(shared: &SharedState, lines: &mut Lines) {
    for number in 0..DATABASES {
        let held = (0..shared.shards()).map(|shard| shared.published(shard).database(number));
        let [keys, expires] = held.fold([0, 0], |all, one| [all[0] + one[0], all[1] + one[1]]);
        if keys > 0 {
            lines
                .field(format_args!("db{number}"), format_args!("keys={keys},expires={expires},avg_ttl=0,subexpiry=0"));
        }
    }
}
