//! INFO: the node's counters under Redis's names, in sections.

use super::clients::REDIS_VERSION;
use super::memory::{Figures, percent, ratio};
use super::settings::policy_name;
use super::{Io, Shard};
use crate::command::table::Row;
use crate::command::{Args, Command, DATABASES};
use crate::log;
use crate::metrics::{Counter, ERROR_CODES};
use crate::shard::SharedState;
use crate::shard::pending::Pending;
use crate::sys;
use std::fmt::{Display, Write};

/// A section's name and title, and the function that writes it.
type Section = (&'static str, &'static str, fn(&SharedState, &mut Lines));

/// The sections of INFO without arguments; those of `MORE` are shown by name, or with `all` or `everything`.
const SECTIONS: [Section; 11] = [
    ("server", "Server", server),
    ("clients", "Clients", clients),
    ("memory", "Memory", memory),
    ("persistence", "Persistence", persistence),
    ("stats", "Stats", stats),
    ("replication", "Replication", replication),
    ("cpu", "CPU", cpu),
    ("modules", "Modules", |_, _| {}),
    ("errorstats", "Errorstats", errors),
    ("cluster", "Cluster", cluster),
    ("keyspace", "Keyspace", keyspace),
];
const MORE: [Section; 2] = [("commandstats", "Commandstats", commands), ("latencystats", "Latencystats", |_, _| {})];

/// What Redis's LRU clock, a count of seconds, wraps at.
const LRU_CLOCK_END: u64 = 1 << 24;

struct Lines(String);

impl Lines {
    fn field(&mut self, name: impl Display, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// Fields of what Pinion does not have, so that its amount is 0: monitoring tools ask for them.
    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.field(name, 0));
    }
}

impl<I: Io> Shard<I> {
    /// INFO.
    pub(super) fn info(&mut self, pending: &Pending, args: Args) {
        if !self.has_all_counters(pending) {
            return;
        }
        let wanted: Vec<String> = args.skip(1).iter().map(|arg| String::from_utf8_lossy(arg).to_lowercase()).collect();
        let is_wanted = |name: &str, is_default: bool| {
            wanted.is_empty() && is_default
                || wanted.iter().any(|w| w == name || w == "all" || w == "everything" || w == "default" && is_default)
        };
        let mut lines = Lines(String::new());
        let sections =
            SECTIONS.iter().map(|section| (section, true)).chain(MORE.iter().map(|section| (section, false)));
        for ((name, title, write), is_default) in sections {
            if is_wanted(name, is_default) {
                if !lines.0.is_empty() {
                    lines.0.push_str("\r\n");
                }
                let _ = write!(lines.0, "# {title}\r\n");
                write(&self.shared, &mut lines);
            }
        }
        self.reply(pending.id, |w| w.verbatim(b"txt", lines.0.as_bytes()));
    }
}

fn server(shared: &SharedState, lines: &mut Lines) {
    let now = shared.clock.now();
    let hz = shared.tunables.without_effect().into_iter().find(|(name, _)| *name == "hz").map(|(_, value)| value);
    let hz = hz.unwrap_or_default();
    lines.field("redis_version", REDIS_VERSION);
    // What Redis shows if it was not built from a repository.
    lines.field("redis_git_sha1", "00000000");
    lines.field("redis_git_dirty", 0);
    lines.field("pinion_version", env!("CARGO_PKG_VERSION"));
    lines.field("server_name", "pinion");
    lines.field("redis_mode", "standalone");
    lines.field("os", format_args!("Linux {} {}", sys::kernel_release(), std::env::consts::ARCH));
    lines.field("arch_bits", usize::BITS);
    lines.field("monotonic_clock", "POSIX clock_gettime");
    lines.field("multiplexing_api", "io_uring");
    lines.field("process_id", std::process::id());
    lines.field("process_supervised", "no");
    lines.field("run_id", &shared.run_id);
    lines.field("tcp_port", shared.resp_port);
    lines.field("memcached_port", shared.port);
    lines.field("server_time_usec", now * 1000);
    lines.field("uptime_in_seconds", shared.clock.uptime_seconds());
    lines.field("uptime_in_days", shared.clock.uptime_seconds() / 86_400);
    lines.field("hz", &hz);
    lines.field("configured_hz", &hz);
    lines.field("lru_clock", now / 1000 % LRU_CLOCK_END);
    let executable = std::env::current_exe().unwrap_or_default();
    lines.field("executable", executable.display());
    lines.field("config_file", shared.config.file.clone().unwrap_or_default().display());
    lines.field("io_threads_active", 0);
    lines.field("shards", shared.shards());
}

fn clients(shared: &SharedState, lines: &mut Lines) {
    lines.field("connected_clients", shared.sum(Counter::CurrConnections));
    lines.field("cluster_connections", 0);
    lines.field("maxclients", shared.config.max_connections);
    lines.field("client_recent_max_input_buffer", shared.sum(Counter::ClientInputMax));
    lines.field("client_recent_max_output_buffer", shared.sum(Counter::ClientOutputMax));
    lines.zeros(&[
        "blocked_clients",
        "tracking_clients",
        "pubsub_clients",
        "watching_clients",
        "clients_in_timeout_table",
        "total_watched_keys",
        "total_blocking_keys",
        "total_blocking_keys_on_nokey",
    ]);
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
    let figures = Figures::of(shared);
    let Figures { held, peak, startup, dataset, overhead, allocated, resident, limit, clients, .. } = figures;
    let machine = sys::physical_memory_bytes().unwrap_or(0);
    for (name, bytes) in [
        ("used_memory", held),
        ("used_memory_rss", resident),
        ("used_memory_peak", peak),
        ("total_system_memory", machine),
        ("used_memory_lua", 0),
        ("used_memory_vm_total", 0),
        ("used_memory_scripts", 0),
        ("maxmemory", limit),
    ] {
        lines.field(name, bytes);
        lines.field(format_args!("{name}_human"), human(bytes));
    }
    lines.field("used_memory_peak_perc", format_args!("{:.2}%", percent(held, peak)));
    lines.field("used_memory_overhead", overhead);
    lines.field("used_memory_startup", startup);
    lines.field("used_memory_dataset", dataset);
    lines.field("used_memory_dataset_perc", format_args!("{:.2}%", figures.dataset_percent()));
    lines.field("used_memory_index", shared.sum(Counter::IndexBytes));
    lines.field("allocator_allocated", allocated);
    lines.field("allocator_active", held);
    lines.field("allocator_resident", resident);
    lines.field("allocator_frag_ratio", format_args!("{:.2}", ratio(held, allocated)));
    lines.field("allocator_frag_bytes", held.saturating_sub(allocated));
    lines.field("allocator_rss_ratio", format_args!("{:.2}", ratio(resident, held)));
    lines.field("allocator_rss_bytes", resident as i64 - held as i64);
    lines.field("rss_overhead_ratio", "1.00");
    lines.field("rss_overhead_bytes", 0);
    lines.field("maxmemory_policy", policy_name(shared.eviction()));
    lines.field("mem_fragmentation_ratio", format_args!("{:.2}", ratio(resident, held)));
    lines.field("mem_fragmentation_bytes", resident as i64 - held as i64);
    lines.field("mem_clients_normal", clients);
    lines.field("mem_allocator", "pinion");
    lines.zeros(&[
        "used_memory_vm_eval",
        "used_memory_vm_functions",
        "used_memory_scripts_eval",
        "used_memory_functions",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
        "mem_cluster_links",
        "mem_aof_buffer",
        "active_defrag_running",
    ]);
}

/// Fields about persistence, which monitoring tools expect. Nothing is ever saved, so all items written since the start
/// count as unsaved; as in Redis, the start counts as a save.
fn persistence(shared: &SharedState, lines: &mut Lines) {
    lines.field("rdb_changes_since_last_save", shared.sum(Counter::TotalItems));
    lines.field("rdb_last_save_time", shared.started_seconds());
    lines.field("rdb_last_bgsave_status", "ok");
    lines.field("aof_last_bgrewrite_status", "ok");
    lines.field("aof_last_write_status", "ok");
    lines.field("current_fork_perc", "0.00");
    for name in [
        "rdb_last_bgsave_time_sec",
        "rdb_current_bgsave_time_sec",
        "aof_last_rewrite_time_sec",
        "aof_current_rewrite_time_sec",
    ] {
        lines.field(name, -1);
    }
    lines.zeros(&[
        "loading",
        "async_loading",
        "current_cow_peak",
        "current_cow_size",
        "current_cow_size_age",
        "current_save_keys_processed",
        "current_save_keys_total",
        "rdb_bgsave_in_progress",
        "rdb_saves",
        "rdb_last_cow_size",
        "rdb_last_load_keys_expired",
        "rdb_last_load_keys_loaded",
        "aof_enabled",
        "aof_rewrite_in_progress",
        "aof_rewrite_scheduled",
        "aof_rewrites",
        "aof_rewrites_consecutive_failures",
        "aof_last_cow_size",
        "module_fork_in_progress",
        "module_fork_last_cow_size",
    ]);
}

fn stats(shared: &SharedState, lines: &mut Lines) {
    let (calls, errors) = (shared.calls(), shared.errors());
    let [commands, received, sent] = shared.rates.per_second();
    for (name, counter) in [
        ("total_connections_received", Counter::TotalConnections),
        ("total_net_input_bytes", Counter::BytesRead),
        ("total_net_output_bytes", Counter::BytesWritten),
        ("total_reads_processed", Counter::Receives),
        ("total_writes_processed", Counter::Sends),
        ("rejected_connections", Counter::RejectedConnections),
        ("expired_keys", Counter::Reclaimed),
        ("expired_fields", Counter::ExpiredFields),
        ("expired_subkeys", Counter::ExpiredFields),
        ("evicted_keys", Counter::Evictions),
        ("keyspace_hits", Counter::GetHits),
        ("keyspace_misses", Counter::GetMisses),
        ("wrong_protocol_connections", Counter::WrongProtocol),
        ("evicted_clients", Counter::EvictedClients),
        ("stalled_clients", Counter::StalledClients),
    ] {
        lines.field(name, shared.since_reset(counter));
    }
    lines.field("total_commands_processed", calls.iter().map(|calls| calls.calls).sum::<u64>());
    lines.field("instantaneous_ops_per_sec", commands.round());
    lines.field("instantaneous_input_kbps", format_args!("{:.2}", received / 1024.0));
    lines.field("instantaneous_output_kbps", format_args!("{:.2}", sent / 1024.0));
    lines.field("instantaneous_input_repl_kbps", "0.00");
    lines.field("instantaneous_output_repl_kbps", "0.00");
    lines.field("expiry_lag_p99_ms", shared.sum(Counter::ExpiryLag));
    lines.field("keys_with_volatile_items", (0..DATABASES).map(|n| shared.database(n).timed_hashes).sum::<u64>());
    lines.field("total_error_replies", errors.iter().sum::<u64>());
    lines.field("acl_access_denied_auth", shared.since_reset(Counter::AuthErrors));
    lines.field("log_lines_dropped", log::dropped_lines());
    lines.field("dump_payload_sanitizations", calls[Command::Restore.row().number()].calls);
    lines.zeros(&[
        "total_net_repl_input_bytes",
        "total_net_repl_output_bytes",
        "sync_full",
        "sync_partial_ok",
        "sync_partial_err",
        "evicted_scripts",
        "pubsub_channels",
        "pubsub_patterns",
        "pubsubshard_channels",
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
        "tracking_total_keys",
        "tracking_total_items",
        "tracking_total_prefixes",
        "unexpected_error_replies",
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
        "acl_access_denied_cmd",
        "acl_access_denied_key",
        "acl_access_denied_channel",
    ]);
}

fn replication(shared: &SharedState, lines: &mut Lines) {
    lines.field("role", "master");
    lines.field("connected_slaves", 0);
    lines.field("master_failover_state", "no-failover");
    lines.field("master_replid", &shared.run_id);
    lines.field("master_replid2", format_args!("{:040}", 0));
    lines.field("master_repl_offset", 0);
    lines.field("second_repl_offset", -1);
    lines.zeros(&[
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ]);
}

fn cpu(_: &SharedState, lines: &mut Lines) {
    let (user, system) = sys::resource_usage();
    lines.field("used_cpu_sys", format_args!("{:.6}", system.as_secs_f64()));
    lines.field("used_cpu_user", format_args!("{:.6}", user.as_secs_f64()));
    // There are no child processes.
    lines.field("used_cpu_sys_children", "0.000000");
    lines.field("used_cpu_user_children", "0.000000");
}

fn errors(shared: &SharedState, lines: &mut Lines) {
    for (code, count) in ERROR_CODES.iter().zip(shared.errors()).filter(|(_, count)| *count > 0) {
        lines.field(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn cluster(_: &SharedState, lines: &mut Lines) {
    lines.field("cluster_enabled", 0);
}

fn commands(shared: &SharedState, lines: &mut Lines) {
    for (row, stats) in Row::all().zip(shared.calls()) {
        if stats.calls + stats.rejected > 0 {
            let micros = stats.nanoseconds as f64 / 1000.0;
            lines.field(
                format_args!("cmdstat_{}", row.full_name()),
                format_args!(
                    "calls={},usec={micros:.0},usec_per_call={:.2},rejected_calls={},failed_calls={}",
                    stats.calls,
                    micros / stats.calls.max(1) as f64,
                    stats.rejected,
                    stats.failed
                ),
            );
        }
    }
}

fn keyspace(shared: &SharedState, lines: &mut Lines) {
    for number in 0..DATABASES {
        let usage = shared.database(number);
        if usage.items > 0 {
            // A fifth value would be one too many for redis_exporter.
            let (keys, expires, ttl_ms, hashes) = (usage.items, usage.expiring, usage.ttl_ms, usage.timed_hashes);
            lines.field(
                format_args!("db{number}"),
                format_args!("keys={keys},expires={expires},avg_ttl={ttl_ms},subexpiry={hashes}"),
            );
        }
    }
}
