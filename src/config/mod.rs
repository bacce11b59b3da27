//! Settings. Each is declared once, in [`Options`], from which the flags, the keys of files, the names of environment
//! variables and the help are derived. The layers are merged (flags > environment > file > profile > defaults) and
//! checked as a whole, which results in a [`Config`].

#![forbid(unsafe_code)]

mod layers;
mod options;
mod values;

pub use layers::{from_toml, resolve};
pub use options::Options;
pub use values::{Cores, Listen, ListenOn, Memory, Port, number};

use crate::eviction::Eviction;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why the settings cannot be used, as one line for the operator: the flag, its value, and what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Least memory of a shard.
pub const SHARD_MEMORY_BYTES_MIN: u64 = 4 << 20;
/// Most memory of a shard.
pub const SHARD_MEMORY_BYTES_MAX: u64 = 16 << 30;
/// The longest value is at most this fraction of its shard's memory (one half).
pub const ITEM_SHARE_MAX: u64 = 2;
/// The longest value whatever the memory, in bytes.
pub const ITEM_BYTES_MAX: u64 = 512 << 20;
/// Least value of `--max-item-size`.
const ITEM_BYTES_MIN: u64 = 1 << 10;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 512;
/// The longest time without traffic before a peer is probed, in seconds: the kernel's limit.
pub const TCP_KEEPALIVE_SECONDS_MAX: u16 = i16::MAX as u16;
/// Default of `--tcp-keepalive`, as in Redis.
const TCP_KEEPALIVE_SECONDS_DEFAULT: u32 = 300;
/// Resident memory beside `--memory`: of the process, and of each shard (docs/memory.md).
const RESERVE_BYTES: u64 = 64 << 20;
const RESERVE_BYTES_PER_SHARD: u64 = 32 << 20;
/// Least value of `--client-memory`.
const CLIENT_MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Most of it: a tebibyte.
const CLIENT_MEMORY_BYTES_MAX: u64 = 1 << 40;
/// Least default of `--client-memory`, per shard: a command of RESP that is not streamed may be as long.
const CLIENT_MEMORY_BYTES_DEFAULT_MIN: u64 = 64 << 20;
/// Longest `--client-stall-timeout`: a day.
const CLIENT_STALL_SECONDS_MAX: u32 = 86_400;
/// Default of `--client-stall-timeout`.
const CLIENT_STALL_SECONDS_DEFAULT: u32 = 300;
/// Least receive buffers of a shard.
const RECEIVE_BUFFERS_MIN: u16 = 16;
/// Most receive buffers of a shard.
pub const RECEIVE_BUFFERS_MAX: u16 = 1 << 15;
/// Least bytes of a receive buffer.
const RECEIVE_BUFFER_BYTES_MIN: u64 = 1 << 10;
/// Most bytes of a receive buffer.
const RECEIVE_BUFFER_BYTES_MAX: u64 = 1 << 20;

/// A valid combination of settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// TCP port of memcached's text protocol.
    pub port: Port,
    /// TCP port of RESP.
    pub resp_port: Port,
    /// Password that RESP clients must give; empty for none.
    pub password: String,
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// After how many seconds without traffic a connection's peer is probed; 0 for never.
    pub tcp_keepalive_seconds: u32,
    /// The core that each shard is pinned to.
    pub shard_cores: Vec<usize>,
    /// Limit of the memory of all shards together.
    pub memory_bytes: u64,
    /// The highest limit that may be set while the node runs.
    pub memory_bytes_max: u64,
    /// Most client connections at a time.
    pub max_connections: u32,
    /// Longest value of memcached's protocol.
    pub max_item_bytes: u32,
    /// Longest value of RESP: `--max-item-size` if given, otherwise the longest that a shard allows.
    pub resp_item_bytes: u32,
    /// Eviction policy.
    pub eviction: Eviction,
    /// Advise the kernel to use huge pages.
    pub huge_pages: bool,
    /// First of the ports that belong to one shard each; 0 for none.
    pub shard_ports: u16,
    /// How long an idle shard polls before it sleeps.
    pub spin: Duration,
    /// Memory for what clients hold, of all shards together, in bytes.
    pub client_memory_bytes: u64,
    /// How long a client may make no progress with its long value or its replies; none for as long as it likes.
    pub client_stall: Option<Duration>,
    /// Receive buffers per shard.
    pub receive_buffers: u16,
    /// Bytes of one receive buffer.
    pub receive_buffer_bytes: usize,
    /// The file of `--config`, if there is one.
    pub file: Option<PathBuf>,
    /// Log level: 0 info, 1 debug, 2 and more trace.
    pub verbosity: u8,
    /// Warnings for the operator, which do not prevent the start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Checks the merged options against each other and against the machine.
    ///
    /// # Errors
    /// The first setting or combination that cannot work, and what is allowed.
    pub fn new(options: &Options, machine: &Machine) -> Result<Self, ConfigError> {
        let fail = |text: String| Err(ConfigError(text));
        let mut warnings = Vec::new();

        if let Some(port) = options.admin_port.filter(|&port| port != 0) {
            return fail(format!(
                "--admin-port {port}: the admin endpoint is not in this version yet; allowed: 0 (off)"
            ));
        }
        let port = options.port.unwrap_or(Port::Fixed(11211));
        let resp_port = options.resp_port.unwrap_or(Port::Fixed(6379));
        let shard_ports = options.shard_ports.unwrap_or(0);
        if port == Port::Off && resp_port == Port::Off && shard_ports == 0 {
            return fail(
                "--port 0 and --resp-port 0: no client could connect; allowed: 1 to 65535 or auto for at least one of them"
                    .into(),
            );
        }
        if let (Port::Fixed(one), Port::Fixed(other)) = (port, resp_port)
            && one == other
        {
            return fail(format!(
                "--resp-port {other} is --port as well; allowed: a port of its own, 1 to 65535, 0 (off), or auto"
            ));
        }
        // An empty one is a variable or a secret that was not filled in, rather than the wish to have none.
        if options.requirepass.as_ref().is_some_and(String::is_empty) {
            return fail(format!(
                "--requirepass is empty; allowed: 1 to {PASSWORD_BYTES_MAX} bytes, or no such setting for no password"
            ));
        }
        let password = options.requirepass.clone().unwrap_or_default();
        if password.len() > PASSWORD_BYTES_MAX {
            return fail(format!(
                "--requirepass is {} bytes long; allowed: up to {PASSWORD_BYTES_MAX}",
                password.len()
            ));
        }

        let shard_cores = place_shards(options, machine, &mut warnings)?;
        let shards = shard_cores.len() as u64;
        if shard_ports != 0 && u64::from(shard_ports) + shards - 1 > u64::from(u16::MAX) {
            let most = u64::from(u16::MAX) + 1 - shards;
            return fail(format!(
                "--shard-ports {shard_ports}: the ports of {shards} shards would exceed 65535; allowed: 0 (off), 1 to {most}"
            ));
        }

        let mut memory_bytes =
            options.memory.unwrap_or(Memory::Bytes(1 << 30)).bytes("--memory", machine.memory_bytes)?;
        let (least, most) = (SHARD_MEMORY_BYTES_MIN, SHARD_MEMORY_BYTES_MAX);
        let least_of_all = least * shards;
        if memory_bytes < least_of_all {
            warnings.push(format!(
                "--memory {}MiB is raised to {}MiB: each of the {shards} shards has at least {}MiB",
                memory_bytes >> 20,
                least_of_all >> 20,
                least >> 20
            ));
            memory_bytes = least_of_all;
        }
        let share = memory_bytes / shards;
        if share > most {
            return fail(format!(
                "--memory {}MiB over {shards} shards is {}MiB each; allowed: {}MiB to {}MiB per shard (see --shards)",
                memory_bytes >> 20,
                share >> 20,
                least >> 20,
                most >> 20
            ));
        }
        let reserve = RESERVE_BYTES + RESERVE_BYTES_PER_SHARD * shards;
        if let Some(machine) = machine.memory_bytes.filter(|&machine| memory_bytes + reserve > machine) {
            warnings.push(format!(
                "--memory {}MiB and up to {}MiB of buffers exceed the {}MiB that this machine or the process's control group \
                 has",
                memory_bytes >> 20,
                reserve >> 20,
                machine >> 20
            ));
        }

        let memory_bytes_max = match options.memory_max {
            Some(most) => most.bytes("--memory-max", machine.memory_bytes)?,
            None => memory_bytes,
        };
        if memory_bytes_max < memory_bytes || memory_bytes_max / shards > most {
            return fail(format!(
                "--memory-max {}MiB: allowed: {}MiB (--memory) to {}MiB ({}MiB per shard)",
                memory_bytes_max >> 20,
                memory_bytes >> 20,
                (most * shards) >> 20,
                most >> 20
            ));
        }

        // With little memory the default shrinks; a value that was given is an error if it does not fit.
        let longest = share / ITEM_SHARE_MAX;
        let max_item_bytes = options.max_item_size.map_or((1 << 20).min(longest), |m| m.0);
        if max_item_bytes > longest {
            return fail(format!(
                "--max-item-size {max_item_bytes}: more than half of a shard's memory of {}MiB; allowed: {ITEM_BYTES_MIN} to \
                 {longest}",
                share >> 20
            ));
        }

        let resp_item_bytes = options.max_item_size.map_or(longest.min(ITEM_BYTES_MAX), |m| m.0);

        let max_connections = connections(options, machine, shards, &mut warnings)?;
        let client_memory_bytes =
            options.client_memory.map_or((memory_bytes / 4).max(CLIENT_MEMORY_BYTES_DEFAULT_MIN * shards), |m| m.0);
        let client_stall = match options.client_stall_timeout.unwrap_or(CLIENT_STALL_SECONDS_DEFAULT) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        };
        let receive_buffers = options.receive_buffers.unwrap_or(512);
        let receive_buffer_bytes = options.receive_buffer_size.map_or(16 << 10, |m| m.0);
        let mut spin = Duration::from_micros(options.spin_us.unwrap_or(0).into());
        if share_a_core(&shard_cores) && !spin.is_zero() {
            warnings.push(
                "--spin-us is ignored: shards that share a core would take CPU time from each other by polling".into(),
            );
            spin = Duration::ZERO;
        }

        let listen = addresses(options);
        let is_on = [port, resp_port].map(|port| port != Port::Off || shard_ports != 0);
        warn_of_access(&listen, is_on, &password, &mut warnings);

        Ok(Self {
            port,
            resp_port,
            password,
            listen,
            tcp_keepalive_seconds: options.tcp_keepalive.unwrap_or(TCP_KEEPALIVE_SECONDS_DEFAULT),
            shard_cores,
            memory_bytes,
            max_connections,
            max_item_bytes: max_item_bytes as u32,
            resp_item_bytes: resp_item_bytes as u32,
            memory_bytes_max,
            eviction: options.eviction.unwrap_or_default(),
            huge_pages: options.huge_pages.unwrap_or(true),
            shard_ports,
            spin,
            client_memory_bytes,
            client_stall,
            receive_buffers,
            receive_buffer_bytes: receive_buffer_bytes as usize,
            file: options.config.clone(),
            verbosity: options.verbose,
            warnings,
        })
    }

    /// True if shards share a core.
    pub fn shares_core(&self) -> bool {
        share_a_core(&self.shard_cores)
    }

    /// The highest memory limit of one shard that may be set while the node runs.
    pub fn shard_memory_bytes_max(&self) -> u64 {
        let share = self.memory_bytes_max / self.shard_cores.len() as u64;
        share.clamp(self.shard_memory_bytes(), SHARD_MEMORY_BYTES_MAX)
    }

    /// Memory of one shard.
    pub fn shard_memory_bytes(&self) -> u64 {
        self.memory_bytes / self.shard_cores.len() as u64
    }
}

/// The addresses to listen on.
fn addresses(options: &Options) -> Vec<Listen> {
    match &options.listen {
        Some(listen) => listen.iter().flat_map(|on| on.0.iter().copied()).collect(),
        None => vec![Listen { ip: IpAddr::from([127, 0, 0, 1]), port: None, is_optional: false }],
    }
}

/// Warns, in one line, of ports that other machines can reach and that no password protects.
fn warn_of_access(
    listen: &[Listen],
    [is_memcached_on, is_resp_on]: [bool; 2],
    password: &str,
    warnings: &mut Vec<String>,
) {
    let open: Vec<String> = listen.iter().filter(|on| !on.ip.is_loopback()).map(Listen::shown).collect();
    if open.is_empty() {
        return;
    }
    let is_memcached_open = is_memcached_on || listen.iter().any(|on| on.port.is_some());
    let unprotected = match (is_memcached_open, is_resp_on && password.is_empty()) {
        (true, true) => "its ports have no password (memcached's never has one, that of RESP has --requirepass)",
        (true, false) => {
            "memcached's port has no password (--requirepass is that of RESP; --port 0 turns the port off)"
        }
        (false, true) => "the port of RESP has no password (--requirepass)",
        (false, false) => return,
    };
    warnings.push(format!(
        "--listen {}: whoever can connect can read and write everything, as {unprotected}",
        open.join(",")
    ));
}

fn share_a_core(shard_cores: &[usize]) -> bool {
    shard_cores.iter().enumerate().any(|(i, core)| shard_cores[..i].contains(core))
}

/// The resources of the machine that settings depend on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores that this process may use, ascending.
    pub cores: Vec<usize>,
    /// Memory, if it is known.
    pub memory_bytes: Option<u64>,
    /// Limit of open files of this process.
    pub open_files: u64,
}

/// Most shards of a node. The 4,096 groups of hash slots are distributed over them, so each owns at least four.
const SHARDS_MAX: usize = 1024;

/// Default of `--max-connections`, if the limit of open files allows that many.
const CONNECTIONS_DEFAULT: u32 = 10_000;
/// Most client connections of a node.
const CONNECTIONS_MAX: u32 = 1 << 20;
/// Open files of a node besides its connections: standard streams, signals, and a margin.
const FILES_RESERVED: u64 = 64;
/// Further open files per shard: uring and eventfd.
const FILES_PER_SHARD: u64 = 2;
/// Further open files per shard and address: the listeners of both protocols and of the shard's own port.
const LISTENERS_MAX: u64 = 3;

/// The number of client connections: as given if the limit of open files allows it, or the default or as many as it
/// allows.
fn connections(
    options: &Options,
    machine: &Machine,
    shards: u64,
    warnings: &mut Vec<String>,
) -> Result<u32, ConfigError> {
    let addresses = addresses(options).len() as u64;
    let reserved = FILES_RESERVED + shards * (FILES_PER_SHARD + LISTENERS_MAX * addresses);
    let possible = u32::try_from(machine.open_files.saturating_sub(reserved)).unwrap_or(u32::MAX);
    let advice = "raise the limit with `ulimit -n` or systemd's LimitNOFILE=";
    match options.max_connections {
        Some(wanted) if wanted > possible => Err(ConfigError(format!(
            "--max-connections {wanted} needs {} open files, but {} are allowed; allowed: 1 to {possible}, or {advice}",
            u64::from(wanted) + reserved,
            machine.open_files
        ))),
        Some(wanted) => Ok(wanted),
        None if possible == 0 => Err(ConfigError(format!(
            "--max-connections: none are possible with {} open files; {advice}",
            machine.open_files
        ))),
        None => {
            if possible < CONNECTIONS_DEFAULT {
                warnings.push(format!(
                    "--max-connections is {possible}, as {} open files are allowed; {advice}",
                    machine.open_files
                ));
            }
            Ok(possible.min(CONNECTIONS_DEFAULT))
        }
    }
}

/// Assigns a core to each shard.
fn place_shards(options: &Options, machine: &Machine, warnings: &mut Vec<String>) -> Result<Vec<usize>, ConfigError> {
    let allowed = &machine.cores;
    let shown = Cores::shown(allowed);
    let cores = match &options.cores {
        Some(Cores(cores)) => match cores.iter().find(|core| !allowed.contains(core)) {
            Some(core) => {
                return Err(ConfigError(format!(
                    "--cores {}: this process may not use core {core}; allowed: {shown}",
                    Cores::shown(cores)
                )));
            }
            None => cores.clone(),
        },
        None => allowed.clone(),
    };
    if cores.is_empty() {
        return Err(ConfigError("--cores: the kernel does not report which cores this process may use".into()));
    }
    let shards = options.shards.unwrap_or(cores.len());
    if shards > SHARDS_MAX {
        return Err(ConfigError(format!("--shards: there are {shards} cores to use; allowed: 1 to {SHARDS_MAX}")));
    }
    if shards > cores.len() {
        warnings.push(format!(
            "{shards} shards share {} core(s) ({}), so each has less than a core",
            cores.len(),
            Cores::shown(&cores)
        ));
    }
    Ok((0..shards).map(|shard| cores[shard % cores.len()]).collect())
}

#[cfg(test)]
mod tests;
