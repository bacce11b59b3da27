//! The text of `stats`: the shards' published counters, summed only here.

use super::read::REQUESTS_OF_ONE_MAX;
use super::{Io, Shard, SharedState};
use crate::command::{Part, StatsTopic};
use crate::eviction::Eviction;
use crate::log;
use crate::metrics::Counter;
use crate::protocol::memcached::VERSION_TEXT;
use crate::sys;
use std::fmt::{Display, Write};

/// Lines of `STAT name value`.
struct Lines(String);

impl Lines {
    fn stat(&mut self, name: impl Display, value: impl Display) {
        writeln!(self.0, "STAT {name} {value}\r").expect("writing to a string does not fail");
    }

    fn end(mut self) -> String {
        self.0.push_str("END\r\n");
        self.0
    }
}

impl SharedState {
    /// The reply to `stats` with a topic.
    pub(super) fn statistics(&self, topic: StatsTopic) -> String {
        let lines = Lines(String::new());
        match topic {
            StatsTopic::General => self.general(lines),
            StatsTopic::Settings => self.settings(lines),
            StatsTopic::Shards => self.each_shard(lines),
            StatsTopic::Empty => lines.end(),
            StatsTopic::Detail => "OK\r\n".into(),
            // Gathered from the shards.
            StatsTopic::Connections => String::new(),
            StatsTopic::Reset => {
                self.reset_counters();
                "RESET\r\n".into()
            }
        }
    }

    fn general(&self, mut lines: Lines) -> String {
        let (user, system) = sys::resource_usage();
        let seconds = |d: std::time::Duration| format!("{}.{:06}", d.as_secs(), d.subsec_micros());
        lines.stat("pid", std::process::id());
        lines.stat("uptime", self.clock.uptime_seconds());
        lines.stat("time", super::Clock::unix_ms() / 1000);
        lines.stat("version", VERSION_TEXT);
        lines.stat("pointer_size", usize::BITS);
        lines.stat("rusage_user", seconds(user));
        lines.stat("rusage_system", seconds(system));
        lines.stat("max_connections", self.config.max_connections);
        for counter in Counter::ALL {
            lines.stat(counter.name(), self.since_reset(counter));
        }
        lines.stat("log_lines_dropped", log::dropped_lines());
        lines.stat("limit_maxbytes", self.tunables.memory_bytes());
        lines.stat("threads", self.shards());
        lines.stat("accepting_conns", u8::from(!self.is_stopping()));
        lines.end()
    }

    fn settings(&self, mut lines: Lines) -> String {
        let config = &self.config;
        let addresses: Vec<String> = config.listen.iter().map(|listen| listen.shown()).collect();
        let cores: Vec<String> = config.shard_cores.iter().map(ToString::to_string).collect();
        lines.stat("maxbytes", self.tunables.memory_bytes());
        lines.stat("maxconns", config.max_connections);
        lines.stat("tcpport", self.port);
        lines.stat("udpport", 0);
        lines.stat("inter", addresses.join(","));
        lines.stat("verbosity", config.verbosity);
        lines.stat("domain_socket", "NULL");
        lines.stat("shutdown_command", "no");
        lines.stat("tcp_backlog", sys::LISTEN_BACKLOG);
        lines.stat("tcp_keepalive", self.tunables.tcp_keepalive_seconds());
        lines.stat("binding_protocol", "ascii");
        lines.stat("idle_timeout", 0);
        lines.stat("maxconns_fast", "yes");
        lines.stat("reqs_per_event", REQUESTS_OF_ONE_MAX);
        lines.stat("evictions", if self.eviction() == Eviction::None { "off" } else { "on" });
        lines.stat("eviction_policy", self.eviction());
        lines.stat("num_threads", self.shards());
        lines.stat("shard_cores", cores.join(","));
        lines.stat("item_size_max", config.max_item_bytes);
        lines.stat("cas_enabled", "yes");
        lines.stat("flush_enabled", "yes");
        lines.stat("auth_enabled_ascii", "no");
        lines.stat("auth_enabled_sasl", "no");
        lines.stat("ssl_enabled", "no");
        lines.stat("stat_key_prefix", ":");
        lines.stat("detail_enabled", "no");
        lines.stat("dump_enabled", "no");
        lines.stat("track_sizes", "no");
        lines.stat("lru_crawler", "no");
        lines.stat("slab_reassign", "no");
        lines.stat("spin_us", config.spin.as_micros());
        lines.stat("receive_buffers", config.receive_buffers);
        lines.stat("receive_buffer_bytes", config.receive_buffer_bytes);
        lines.end()
    }

    /// `stats shards`, which is Pinion's own: each shard's counters, as `<shard>:<name>`.
    fn each_shard(&self, mut lines: Lines) -> String {
        for shard in 0..self.shards() {
            lines.stat(format_args!("{shard}:core"), self.config.shard_cores[shard]);
            for counter in Counter::ALL {
                lines.stat(format_args!("{shard}:{}", counter.name()), self.published(shard).value(counter));
            }
        }
        lines.end()
    }
}

impl<I: Io> Shard<I> {
    /// This shard's part of `stats conns`: its connections, each with a number of its own in the node.
    pub(super) fn connections_part(&mut self, out: &mut Vec<u8>) -> Part {
        let mut lines = Lines(String::new());
        for id in self.connections.ids() {
            let Some(socket) = self.connections.socket(id) else { continue };
            let (peer, own) = self.io.addresses(socket);
            let Some(connection) = self.connections.at(id) else { continue };
            let state = match connection {
                connection if !connection.is_read() => "conn_closing",
                connection if !connection.is_answered() => "conn_mwrite",
                _ => "conn_read",
            };
            let number = id as usize * self.router.shards() + self.id;
            lines.stat(format_args!("{number}:addr"), format_args!("tcp:{peer}"));
            lines.stat(format_args!("{number}:listen_addr"), format_args!("tcp:{own}"));
            lines.stat(format_args!("{number}:state"), state);
        }
        out.extend_from_slice(lines.0.as_bytes());
        Part::Text
    }
}
