//! The options: one declaration for command line, file, profile and environment.

use super::values::{ByteSize, Cores, Memory, Port};
use crate::eviction::Eviction;
use clap::{ArgAction, Args};
use std::net::IpAddr;
use std::path::PathBuf;

/// What the operator may set, each absent where nothing was said.
///
/// A key of the file and of a profile is a flag's long name; a variable of the environment is `PINION_` and that name in
/// capitals, with underscores.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network")]
pub struct Options {
    /// Port of memcached's text protocol: 1 to 65535, 0 (off) or auto (the kernel chooses; the log says which) [default: 11211]
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<Port>,

    /// Port of RESP, the protocol of Redis clients: 1 to 65535, 0 (off) or auto [default: 6379]
    #[arg(long, value_name = "PORT")]
    pub resp_port: Option<Port>,

    /// Password that clients of RESP must tell before anything else; memcached's clients need none [default: none]
    #[arg(long, value_name = "PASSWORD")]
    pub requirepass: Option<String>,

    /// Port of HTTP /metrics, /healthz, /readyz; not in this version yet: only 0 (off) [default: 0]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,

    /// Give shard i the port BASE+i to itself besides; its connections never move. 0: none [default: 0]
    #[arg(long, value_name = "BASE")]
    pub shard_ports: Option<u16>,

    /// IP addresses to listen on, separated by commas. Anyone who reaches them can read and write everything [default: 127.0.0.1]
    #[arg(short, long, value_name = "ADDRESS", value_delimiter = ',')]
    pub listen: Option<Vec<IpAddr>>,

    /// Most clients at once; more are refused [default: 10000, or as many as open files are allowed]
    #[arg(short = 'c', long, value_name = "N")]
    pub max_connections: Option<u32>,

    /// Shards, each pinned to a core [default: one per core]
    #[arg(short = 't', long, value_name = "N", help_heading = "Cores")]
    pub shards: Option<usize>,

    /// Cores to use, for example 0-7,16 [default: all that the process may use, so taskset and cgroups count]
    #[arg(long, value_name = "LIST", help_heading = "Cores")]
    pub cores: Option<Cores>,

    /// Microseconds that an idle shard looks for work before it sleeps: less latency for more CPU [default: 0]
    #[arg(long, value_name = "N", help_heading = "Cores")]
    pub spin_us: Option<u32>,

    /// Memory for what is stored, over all shards: MiB, or with a unit (4GiB), or of the machine (80%) [default: 1024]
    #[arg(short, long, value_name = "SIZE", help_heading = "Memory")]
    pub memory: Option<Memory>,

    /// Longest value, 1k to 512m; at most half of a shard's memory [default: 1m for memcached's clients, all that for RESP]
    #[arg(short = 'I', long, value_name = "SIZE", help_heading = "Memory")]
    pub max_item_size: Option<ByteSize>,

    /// What goes when memory is full: s3fifo, sieve, lru, lfu, fifo, ttl (what expires first), random, or none (writes fail) [default: s3fifo]
    #[arg(long, value_name = "POLICY", help_heading = "Memory")]
    pub eviction: Option<Eviction>,

    /// Ask the kernel for huge pages behind the memory, true or false: faster, resident in steps of 2 MiB [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Memory")]
    pub huge_pages: Option<bool>,

    /// Receive buffers per shard, a power of two [default: 512]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub receive_buffers: Option<u16>,

    /// Size of a receive buffer, 1k to 1m [default: 16k]
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub receive_buffer_size: Option<ByteSize>,

    /// Settings for a kind of use: a name (balanced, low-latency, small) or a file like those in tuning/
    #[arg(long, value_name = "NAME|FILE", help_heading = "Settings")]
    pub profile: Option<String>,

    /// TOML file of settings; its keys are the long names of these flags
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,

    /// Log more; twice for even more
    #[arg(short, long, action = ArgAction::Count, help_heading = "Settings")]
    pub verbose: u8,
}

impl Options {
    /// These options, and those of a weaker layer where nothing was said.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self {
            port: self.port.or(weaker.port),
            resp_port: self.resp_port.or(weaker.resp_port),
            requirepass: self.requirepass.or(weaker.requirepass),
            admin_port: self.admin_port.or(weaker.admin_port),
            shard_ports: self.shard_ports.or(weaker.shard_ports),
            listen: self.listen.or(weaker.listen),
            max_connections: self.max_connections.or(weaker.max_connections),
            shards: self.shards.or(weaker.shards),
            cores: self.cores.or(weaker.cores),
            spin_us: self.spin_us.or(weaker.spin_us),
            memory: self.memory.or(weaker.memory),
            max_item_size: self.max_item_size.or(weaker.max_item_size),
            eviction: self.eviction.or(weaker.eviction),
            huge_pages: self.huge_pages.or(weaker.huge_pages),
            receive_buffers: self.receive_buffers.or(weaker.receive_buffers),
            receive_buffer_size: self.receive_buffer_size.or(weaker.receive_buffer_size),
            profile: self.profile.or(weaker.profile),
            config: self.config.or(weaker.config),
            verbose: if self.verbose > 0 { self.verbose } else { weaker.verbose },
        }
    }
}
