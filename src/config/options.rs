//! The options: one declaration for the command line, files, profiles and the environment.

use super::values::{ByteSize, Cores, ListenOn, Memory, Port, number, power_of_two, size};
use super::{
    CLIENT_MEMORY_BYTES_MAX, CLIENT_MEMORY_BYTES_MIN, CLIENT_STALL_SECONDS_MAX, CONNECTIONS_MAX, ITEM_BYTES_MAX,
    ITEM_BYTES_MIN, RECEIVE_BUFFER_BYTES_MAX, RECEIVE_BUFFER_BYTES_MIN, RECEIVE_BUFFERS_MAX, RECEIVE_BUFFERS_MIN,
    SHARDS_MAX, TCP_KEEPALIVE_SECONDS_MAX,
};
use crate::eviction::Eviction;
use clap::{ArgAction, Args};
use std::path::PathBuf;

/// The settings that the operator may give; None for those that are absent.
///
/// In files and profiles, the key of a setting is the long name of its flag; in the environment, it is `PINION_` and
/// that name in capitals, with underscores. The parsers enforce the range of each setting on its own;
/// [`Config::new`](super::Config::new) checks the combination.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network")]
pub struct Options {
    /// TCP port of memcached's text protocol: 1 to 65535, 0 (off), or auto (a free port, which the log shows)
    /// [default: 11211]
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<Port>,

    /// TCP port of the Redis protocol (RESP2 and RESP3): 1 to 65535, 0 (off), or auto [default: 6379]
    #[arg(long, value_name = "PORT")]
    pub resp_port: Option<Port>,

    /// Password that Redis clients must give (AUTH, HELLO), 1 to 512 bytes; memcached clients need none
    /// [default: none]
    #[arg(long, value_name = "PASSWORD")]
    pub requirepass: Option<String>,

    /// TCP port of HTTP /metrics, /healthz and /readyz: not implemented yet, so only 0 (off) is allowed [default: 0]
    #[arg(long, value_name = "PORT", value_parser = number::<u16>(0..=u16::MAX.into()))]
    pub admin_port: Option<u16>,

    /// First of one more TCP port per shard, 1 to 65535, or 0 (off): shard i listens on BASE+i for both protocols, and
    /// its connections there never move to another shard [default: 0]
    #[arg(long, value_name = "BASE", value_parser = number::<u16>(0..=u16::MAX.into()))]
    pub shard_ports: Option<u16>,

    /// Addresses or host names to listen on, separated by commas, each with or without a port of memcached's text
    /// protocol that replaces --port there. Whoever can connect to them can read and write everything
    /// [default: 127.0.0.1]
    #[arg(short, long, value_name = "ADDRESS[:PORT]", value_delimiter = ',')]
    pub listen: Option<Vec<ListenOn>>,

    /// Seconds without traffic after which the peer of a connection is probed, and the connection closed if it does not
    /// answer: 1 to 32767, or 0 (never) [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = number::<u32>(0..=TCP_KEEPALIVE_SECONDS_MAX.into()))]
    pub tcp_keepalive: Option<u32>,

    /// Most client connections at a time, 1 to 1048576; more are refused [default: 10000, or fewer if the limit of open
    /// files is lower]
    #[arg(short = 'c', long, value_name = "N", value_parser = number::<u32>(1..=CONNECTIONS_MAX.into()))]
    pub max_connections: Option<u32>,

    /// Number of shards, 1 to 1024, each a thread pinned to a core; if there are more than cores, they share cores
    /// [default: one per core]
    #[arg(short = 't', long, value_name = "N", help_heading = "Cores",
          value_parser = number::<usize>(1..=SHARDS_MAX as u64))]
    pub shards: Option<usize>,

    /// Cores to use: numbers and ranges, for example 0-7,16 [default: all that the process may use; taskset and cgroups
    /// are respected]
    #[arg(long, value_name = "LIST", help_heading = "Cores")]
    pub cores: Option<Cores>,

    /// Microseconds that an idle shard polls before it sleeps, 0 to 4294967295: lower latency for more CPU time
    /// [default: 0]
    #[arg(long, value_name = "N", help_heading = "Cores", value_parser = number::<u32>(0..=u32::MAX.into()))]
    pub spin_us: Option<u32>,

    /// Memory for all that is stored, over all shards: a number of MiB, an amount with a unit (4GiB), or a percentage
    /// of the machine's or control group's (80%); 4MiB to 16GiB per shard, and less is raised to that [default: 1024]
    #[arg(short, long, value_name = "SIZE", help_heading = "Memory")]
    pub memory: Option<Memory>,

    /// Most that CONFIG SET maxmemory may raise the memory to while the node runs, as --memory; at least as much as
    /// that [default: as --memory]
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    pub memory_max: Option<Memory>,

    /// Longest value in bytes, 1k to 512m and at most half of a shard's memory [default: for memcached clients 1m, for
    /// Redis clients the most allowed]
    #[arg(short = 'I', long, value_name = "SIZE", help_heading = "Memory",
          value_parser = size(ITEM_BYTES_MIN..=ITEM_BYTES_MAX))]
    pub max_item_size: Option<ByteSize>,

    /// Which item to evict when memory is full: s3fifo, sieve, lru, lfu, fifo, ttl (soonest expiry first), random, or
    /// none (writes fail instead) [default: s3fifo]
    #[arg(long, value_name = "POLICY", help_heading = "Memory")]
    pub eviction: Option<Eviction>,

    /// Advise the kernel to back the memory with huge pages, true or false: faster, but memory becomes resident in
    /// steps of 2 MiB [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Memory")]
    pub huge_pages: Option<bool>,

    /// Memory for what clients hold, input, output and replies, 1m to 1048576m, divided equally among the shards: where
    /// it is exceeded, the client that holds most is disconnected [default: a quarter of --memory, at least 64m per
    /// shard]
    #[arg(long, value_name = "SIZE", help_heading = "Memory",
          value_parser = size(CLIENT_MEMORY_BYTES_MIN..=CLIENT_MEMORY_BYTES_MAX))]
    pub client_memory: Option<ByteSize>,

    /// Seconds without progress after which a client that is sending a long value, or not taking its replies, is
    /// disconnected: 1 to 86400, or 0 (never) [default: 300]
    #[arg(long, value_name = "SECONDS", help_heading = "Network",
          value_parser = number::<u32>(0..=CLIENT_STALL_SECONDS_MAX.into()))]
    pub client_stall_timeout: Option<u32>,

    /// Receive buffers per shard: a power of two, 16 to 32768 [default: 512]
    #[arg(long, value_name = "N", help_heading = "Memory",
          value_parser = power_of_two(RECEIVE_BUFFERS_MIN.into()..=RECEIVE_BUFFERS_MAX.into()))]
    pub receive_buffers: Option<u16>,

    /// Bytes of a receive buffer, 1k to 1m [default: 16k]
    #[arg(long, value_name = "SIZE", help_heading = "Memory",
          value_parser = size(RECEIVE_BUFFER_BYTES_MIN..=RECEIVE_BUFFER_BYTES_MAX))]
    pub receive_buffer_size: Option<ByteSize>,

    /// Tuning profile: balanced, low-latency, small, or the path of a TOML file like those in tuning/ [default: none]
    #[arg(long, value_name = "NAME|FILE", help_heading = "Settings")]
    pub profile: Option<String>,

    /// TOML file of settings, whose keys are the long names of these flags [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,

    /// Log more: -v debug messages, -vv a trace of everything
    #[arg(short, long, action = ArgAction::Count, help_heading = "Settings")]
    pub verbose: u8,
}

impl Options {
    /// Merges two layers: these options, and those of the weaker layer that are absent here.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        Self {
            port: self.port.or(weaker.port),
            resp_port: self.resp_port.or(weaker.resp_port),
            requirepass: self.requirepass.or(weaker.requirepass),
            admin_port: self.admin_port.or(weaker.admin_port),
            shard_ports: self.shard_ports.or(weaker.shard_ports),
            listen: self.listen.or(weaker.listen),
            tcp_keepalive: self.tcp_keepalive.or(weaker.tcp_keepalive),
            max_connections: self.max_connections.or(weaker.max_connections),
            shards: self.shards.or(weaker.shards),
            cores: self.cores.or(weaker.cores),
            spin_us: self.spin_us.or(weaker.spin_us),
            memory: self.memory.or(weaker.memory),
            memory_max: self.memory_max.or(weaker.memory_max),
            max_item_size: self.max_item_size.or(weaker.max_item_size),
            eviction: self.eviction.or(weaker.eviction),
            huge_pages: self.huge_pages.or(weaker.huge_pages),
            client_memory: self.client_memory.or(weaker.client_memory),
            client_stall_timeout: self.client_stall_timeout.or(weaker.client_stall_timeout),
            receive_buffers: self.receive_buffers.or(weaker.receive_buffers),
            receive_buffer_size: self.receive_buffer_size.or(weaker.receive_buffer_size),
            profile: self.profile.or(weaker.profile),
            config: self.config.or(weaker.config),
            verbose: if self.verbose > 0 { self.verbose } else { weaker.verbose },
        }
    }
}
