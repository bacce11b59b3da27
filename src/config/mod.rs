//! Every setting: declared once in [`Options`], which makes the flags, the file's keys, the environment's names and the
//! help; then merged (flags > environment > file > profile > defaults) and checked as a whole into a [`Config`].

#![forbid(unsafe_code)]

mod layers;
mod options;
mod values;

pub use layers::{from_toml, resolve};
pub use options::Options;
pub use values::{Cores, Memory, Port};

use crate::eviction::Eviction;
use std::net::IpAddr;
use std::time::Duration;

/// Why the settings cannot be used: one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Least memory of a shard.
pub const SHARD_MEMORY_BYTES_MIN: u64 = 4 << 20;
/// Most memory of a shard.
pub const SHARD_MEMORY_BYTES_MAX: u64 = 16 << 30;
/// A value may have this part of its shard's memory.
pub const ITEM_SHARE_MAX: u64 = 2;
/// And no more than this.
pub const ITEM_BYTES_MAX: u64 = 512 << 20;
/// Longest password.
const PASSWORD_BYTES_MAX: usize = 512;
/// Most receive buffers of a shard.
pub const RECEIVE_BUFFERS_MAX: u16 = 1 << 15;

/// Settings that fit together.
#[derive(Clone, Debug)]
pub struct Config {
    /// memcached text port.
    pub port: Port,
    /// RESP port.
    pub resp_port: Port,
    /// The password that clients of RESP must tell; none if it is empty.
    pub password: String,
    /// Addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// The core of each shard.
    pub shard_cores: Vec<usize>,
    /// Bound of what all shards together store.
    pub memory_bytes: u64,
    /// What that may be set to while the node runs: what the machine has.
    pub memory_bytes_max: u64,
    /// Most clients at once.
    pub max_connections: u32,
    /// Longest value of memcached's protocol.
    pub max_item_bytes: u32,
    /// Longest value of RESP: the same, if it was said; otherwise what a shard can hold, up to 512 MiB.
    pub resp_item_bytes: u32,
    /// What goes when memory is full.
    pub eviction: Eviction,
    /// Ask for huge pages behind the memory.
    pub huge_pages: bool,
    /// First of one more port per shard; none if 0.
    pub shard_ports: u16,
    /// How long an idle shard looks for work before it sleeps.
    pub spin: Duration,
    /// Receive buffers per shard.
    pub receive_buffers: u16,
    /// Bytes of one receive buffer.
    pub receive_buffer_bytes: usize,
    /// How much is logged: 0, 1, 2, …
    pub verbosity: u8,
    /// Things the operator should know, though they do not keep the node from starting.
    pub warnings: Vec<String>,
}

impl Config {
    /// Checks the merged options against each other and against the machine.
    ///
    /// # Errors
    /// The first combination that cannot work, with what would.
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
                "--port 0 and --resp-port 0: nobody could connect; give one of them a port, 1 to 65535".into(),
            );
        }
        if let (Port::Fixed(one), Port::Fixed(other)) = (port, resp_port)
            && one == other
        {
            return fail(format!("--resp-port {other} is --port as well; give each a port of its own"));
        }
        let password = options.requirepass.clone().unwrap_or_default();
        if password.len() > PASSWORD_BYTES_MAX {
            return fail(format!("--requirepass has {} bytes; allowed: up to {PASSWORD_BYTES_MAX}", password.len()));
        }

        let shard_cores = place_shards(options, machine, &mut warnings)?;
        let shards = shard_cores.len() as u64;
        if shard_ports != 0 && u64::from(shard_ports) + shards - 1 > u64::from(u16::MAX) {
            return fail(format!("--shard-ports {shard_ports}: {shards} shards would need ports beyond 65535"));
        }

        let memory_bytes = options.memory.unwrap_or(Memory::Bytes(1 << 30)).bytes(machine.memory_bytes)?;
        let share = memory_bytes / shards;
        let (least, most) = (SHARD_MEMORY_BYTES_MIN, SHARD_MEMORY_BYTES_MAX);
        if !(least..=most).contains(&share) {
            return fail(format!(
                "--memory {}MiB over {shards} shards is {}MiB each; allowed: {}MiB to {}MiB per shard (see --shards)",
                memory_bytes >> 20,
                share >> 20,
                least >> 20,
                most >> 20
            ));
        }
        if machine.memory_bytes.is_some_and(|machine| memory_bytes > machine) {
            warnings.push(format!("--memory {}MiB is more than this machine has", memory_bytes >> 20));
        }

        // The default follows a small memory down; a value that was asked for does not.
        let longest = share / ITEM_SHARE_MAX;
        let max_item_bytes = options.max_item_size.map_or((1 << 20).min(longest), |m| m.0);
        if !(1024..=ITEM_BYTES_MAX).contains(&max_item_bytes) {
            return fail(format!("--max-item-size {max_item_bytes} bytes; allowed: 1k to 512m"));
        }
        if max_item_bytes > longest {
            return fail(format!(
                "--max-item-size {max_item_bytes} bytes is more than half of a shard's memory ({}MiB); allowed here: up to {longest}",
                share >> 20
            ));
        }

        let resp_item_bytes = options.max_item_size.map_or(longest.min(ITEM_BYTES_MAX), |m| m.0);

        let max_connections = connections(options, machine, shards, &mut warnings)?;
        let receive_buffers = options.receive_buffers.unwrap_or(512);
        if !receive_buffers.is_power_of_two() || !(16..=RECEIVE_BUFFERS_MAX).contains(&receive_buffers) {
            return fail(format!(
                "--receive-buffers {receive_buffers}; allowed: a power of two, 16 to {RECEIVE_BUFFERS_MAX}"
            ));
        }
        let receive_buffer_bytes = options.receive_buffer_size.map_or(16 << 10, |m| m.0);
        if !(1 << 10..=1 << 20).contains(&receive_buffer_bytes) {
            return fail(format!("--receive-buffer-size {receive_buffer_bytes} bytes; allowed: 1k to 1m"));
        }
        let mut spin = Duration::from_micros(options.spin_us.unwrap_or(0).into());
        if share_a_core(&shard_cores) && !spin.is_zero() {
            warnings.push("--spin-us is off: shards that share a core would only keep each other from running".into());
            spin = Duration::ZERO;
        }

        Ok(Self {
            port,
            resp_port,
            password,
            listen: options.listen.clone().unwrap_or_else(|| vec![IpAddr::from([127, 0, 0, 1])]),
            shard_cores,
            memory_bytes,
            max_connections,
            max_item_bytes: max_item_bytes as u32,
            resp_item_bytes: resp_item_bytes as u32,
            memory_bytes_max: machine.memory_bytes.unwrap_or(memory_bytes).max(memory_bytes),
            eviction: options.eviction.unwrap_or_default(),
            huge_pages: options.huge_pages.unwrap_or(true),
            shard_ports,
            spin,
            receive_buffers,
            receive_buffer_bytes: receive_buffer_bytes as usize,
            verbosity: options.verbose,
            warnings,
        })
    }

    /// True if shards share a core.
    pub fn shares_core(&self) -> bool {
        share_a_core(&self.shard_cores)
    }

    /// What the memory of one shard may be set to while the node runs.
    pub fn shard_memory_bytes_max(&self) -> u64 {
        let share = self.memory_bytes_max / self.shard_cores.len() as u64;
        share.clamp(self.shard_memory_bytes(), SHARD_MEMORY_BYTES_MAX)
    }

    /// Memory of one shard.
    pub fn shard_memory_bytes(&self) -> u64 {
        self.memory_bytes / self.shard_cores.len() as u64
    }
}

fn share_a_core(shard_cores: &[usize]) -> bool {
    shard_cores.iter().enumerate().any(|(i, core)| shard_cores[..i].contains(core))
}

/// What the machine has, as far as settings depend on it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores that this process may use, ascending.
    pub cores: Vec<usize>,
    /// Memory, where it is known.
    pub memory_bytes: Option<u64>,
    /// Files that this process may have open.
    pub open_files: u64,
}

/// Most shards of a node: slots are spread over them in groups of 4 of 16,384.
const SHARDS_MAX: usize = 1024;

/// Clients at once where nothing is said, if the machine allows so many open files.
const CONNECTIONS_DEFAULT: u32 = 10_000;
/// Most clients at once.
const CONNECTIONS_MAX: u32 = 1 << 20;
/// Files that a node has open besides its connections: standard streams, signals, and room.
const FILES_RESERVED: u64 = 64;
/// The same for each shard: uring and eventfd.
const FILES_PER_SHARD: u64 = 2;
/// The same for each shard and address: the listeners of both kinds of port.
const LISTENERS_MAX: u64 = 3;

/// How many clients at once: what was asked for if it is possible, else as many as are.
fn connections(
    options: &Options,
    machine: &Machine,
    shards: u64,
    warnings: &mut Vec<String>,
) -> Result<u32, ConfigError> {
    let addresses = options.listen.as_ref().map_or(1, Vec::len) as u64;
    let reserved = FILES_RESERVED + shards * (FILES_PER_SHARD + LISTENERS_MAX * addresses);
    let possible = u32::try_from(machine.open_files.saturating_sub(reserved)).unwrap_or(u32::MAX);
    let advice = "raise the limit with `ulimit -n` or systemd's LimitNOFILE=";
    match options.max_connections {
        Some(wanted) if !(1..=CONNECTIONS_MAX).contains(&wanted) => {
            Err(ConfigError(format!("--max-connections {wanted}; allowed: 1 to {CONNECTIONS_MAX}")))
        }
        Some(wanted) if wanted > possible => Err(ConfigError(format!(
            "--max-connections {wanted} needs {} open files, but {} are allowed; {advice}",
            u64::from(wanted) + reserved,
            machine.open_files
        ))),
        Some(wanted) => Ok(wanted),
        None if possible == 0 => {
            Err(ConfigError(format!("only {} open files are allowed; {advice}", machine.open_files)))
        }
        None => {
            if possible < CONNECTIONS_DEFAULT {
                warnings.push(format!(
                    "only {possible} connections are possible: {} open files are allowed; {advice}",
                    machine.open_files
                ));
            }
            Ok(possible.min(CONNECTIONS_DEFAULT))
        }
    }
}

/// Which core each shard is pinned to.
fn place_shards(options: &Options, machine: &Machine, warnings: &mut Vec<String>) -> Result<Vec<usize>, ConfigError> {
    let allowed = &machine.cores;
    let shown = Cores::shown(allowed);
    let cores = match &options.cores {
        Some(Cores(cores)) => match cores.iter().find(|core| !allowed.contains(core)) {
            Some(core) => {
                return Err(ConfigError(format!(
                    "--cores: core {core} is not one that this process may use; allowed: {shown}"
                )));
            }
            None => cores.clone(),
        },
        None => allowed.clone(),
    };
    if cores.is_empty() {
        return Err(ConfigError("the kernel does not say which cores this process may use".into()));
    }
    let shards = options.shards.unwrap_or(cores.len());
    if !(1..=SHARDS_MAX).contains(&shards) {
        return Err(ConfigError(format!("--shards {shards}; allowed: 1 to {SHARDS_MAX}")));
    }
    if shards > cores.len() {
        warnings.push(format!(
            "{shards} shards share {} core(s) ({}): expect less than one core's work of each",
            cores.len(),
            Cores::shown(&cores)
        ));
    }
    Ok((0..shards).map(|shard| cores[shard % cores.len()]).collect())
}

#[cfg(test)]
mod tests;
