//! The text of `stats`: the shards' published counters, summed only here.

use super::SharedState;
use crate::command::StatsTopic;
use crate::eviction::Eviction;
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
        lines.stat("time", Clock::unix_ms() / 1000);
        lines.stat("version", VERSION_TEXT);
        lines.stat("pointer_size", usize::BITS);
        lines.stat("rusage_user", seconds(user));
        lines.stat("rusage_system", seconds(system));
        lines.stat("max_connections", self.config.max_connections);
        for counter in Counter::ALL {
            lines.stat(counter.name(), self.since_reset(counter));
        }
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
        lines.stat("evictions", if self.eviction() == Eviction::None { "off" } else { "on" });
        lines.stat("eviction_policy", self.eviction());
        lines.stat("num_threads", self.shards());
        lines.stat("shard_cores", cores.join(","));
        lines.stat("item_size_max", config.max_item_bytes);
        lines.stat("cas_enabled", "yes");
        lines.stat("flush_enabled", "yes");
        lines.stat("auth_enabled_ascii", "no");
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
