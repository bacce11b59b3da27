//! One node: starts its shards, reports why they cannot start, and stops them.

#![forbid(unsafe_code)]

use crate::config::{self, Config, Port};
use crate::engine::{self, Engine, EngineConfig};
use crate::mesh::{MeshEnd, mesh};
use crate::protocol::{State, memcached, resp};
use crate::reactor::{RECEIVE_BUFFERS_MAX, Reactor, ReceiveBuffers, StartError, UringSize, probe};
use crate::shard::driver::{Driver, Listening};
use crate::shard::{Message, Shard, SharedState};
use crate::sys;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The protocol of a port.
const MEMCACHED: &str = "memcached";
const RESP: &str = "resp";

// The limits on settings lie within the limits of the modules that they configure.
const _: () = assert!(config::SHARD_MEMORY_BYTES_MIN >= engine::MEMORY_BYTES_MIN);
const _: () = assert!(config::SHARD_MEMORY_BYTES_MAX <= engine::MEMORY_BYTES_MAX);
const _: () = assert!(config::ITEM_BYTES_MAX == engine::value_bytes_max(config::SHARD_MEMORY_BYTES_MAX));
const _: () = assert!(config::RECEIVE_BUFFERS_MAX <= RECEIVE_BUFFERS_MAX);

/// Why a node cannot start: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// io_uring is unavailable or refused.
    #[error("{0}")]
    Uring(#[from] StartError),
    /// An address or port cannot be bound.
    #[error("--{flag}: cannot listen on {address}: {}", listen_cause(error))]
    Listen {
        /// The flag that asked for the port.
        flag: &'static str,
        /// The address that could not be bound.
        address: SocketAddr,
        /// The error of bind(2).
        error: io::Error,
    },
    /// A shard cannot be pinned.
    #[error("--cores: shard {shard} cannot be pinned to core {core}: the kernel refuses it")]
    Pin {
        /// The shard.
        shard: usize,
        /// The core.
        core: usize,
    },
    /// Memory cannot be reserved.
    #[error("--memory: shard {shard} cannot reserve {mebibytes} MiB of address space: {}", memory_cause(error))]
    Memory {
        /// The shard.
        shard: usize,
        /// The amount, in MiB: that of the machine, since the limit can be raised while the node runs.
        mebibytes: u64,
        /// The error of mmap(2).
        error: io::Error,
    },
    /// Another system call failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

fn memory_cause(error: &io::Error) -> String {
    match sys::address_space_limit_bytes() {
        Some(limit) if error.kind() == io::ErrorKind::OutOfMemory => format!(
            "this process may have {} MiB; raise or lift the limit with `ulimit -v` or systemd's LimitAS=",
            limit >> 20
        ),
        _ => error.to_string(),
    }
}

fn listen_cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is taken; stop who has it, or choose another port".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE".into(),
        _ => error.to_string(),
    }
}

/// A running node.
pub struct Server {
    shared: Arc<SharedState>,
    addresses: Vec<Address>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a node. When it returns, the node accepts connections.
    ///
    /// # Errors
    /// The first failure; nothing is left running.
    pub fn start(config: Config) -> Result<Self, ServeError> {
        let shards = config.shard_cores.len();
        probe(UringSize::SHARD, shards)?;
        let (addresses, listeners) = open_listeners(&config)?;
        let port_of = |protocol| addresses.iter().find(|a| a.protocol == protocol).map_or(0, |a| a.address.port());
        let shared = SharedState::new(config, port_of(MEMCACHED), port_of(RESP))
            .map_err(|e| ServeError::System("eventfd", e))?;
        let shared = Arc::new(shared);

        let (ready, started) = mpsc::channel();
        let mut threads = Vec::new();
        let mut starters = Vec::new();
        for ((shard, mesh), listeners) in mesh(shards).into_iter().enumerate().zip(listeners) {
            let (start, wait) = mpsc::channel();
            let (shared, ready) = (Arc::clone(&shared), ready.clone());
            let body = move || run_shard(shard, shared, mesh, listeners, &ready, &wait);
            let thread = std::thread::Builder::new().name(format!("shard-{shard}")).spawn(body);
            threads.push(thread.map_err(|e| ServeError::System("cannot start a thread", e))?);
            starters.push(start);
        }
        drop(ready);

        // Every shard has its uring before any shard runs, so that each can ring every other. If one fails, the others
        // never receive the message to start, and end.
        let mut doorbells = vec![0; shards];
        for _ in 0..shards {
            let (shard, doorbell) = started.recv().expect("every shard reports")?;
            doorbells[shard] = doorbell;
        }
        shared.set_doorbells(doorbells);
        for start in starters {
            start.send(()).map_err(|_| ServeError::System("a shard ended early", io::ErrorKind::Other.into()))?;
        }
        Ok(Self { shared, addresses, threads })
    }

    /// The addresses on which the node listens.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The state that the shards share: statistics, the stop flag.
    pub fn shared(&self) -> &Arc<SharedState> {
        &self.shared
    }

    /// Stops the node: accepts no more connections, answers the requests received, and returns when the shards have
    /// ended (after a few seconds at most).
    pub fn stop(self) {
        self.shared.stop();
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

type Started = Result<(usize, RawFd), ServeError>;

fn run_shard(
    shard: usize,
    shared: Arc<SharedState>,
    mesh: MeshEnd<Message<OwnedFd>>,
    listeners: Vec<Listening>,
    ready: &mpsc::Sender<Started>,
    start: &mpsc::Receiver<()>,
) {
    // Memory is first touched here, by the thread that is pinned where it will be used.
    match prepare(shard, &shared) {
        Err(error) => _ = ready.send(Err(error)),
        Ok((engine, reactor, buffers)) => {
            let _ = ready.send(Ok((shard, reactor.doorbell())));
            if start.recv().is_ok() {
                let (driver, listeners) = Driver::new(shard, reactor, mesh, Arc::clone(&shared), listeners);
                Shard::new(shard, shared, engine, driver, listeners).run(buffers);
            }
        }
    }
}

fn prepare(shard: usize, shared: &SharedState) -> Result<(Engine, Reactor, ReceiveBuffers), ServeError> {
    let config = &shared.config;
    let core = config.shard_cores[shard];
    if !sys::pin_to_core(core) {
        return Err(ServeError::Pin { shard, core });
    }
    let memory_bytes = config.shard_memory_bytes();
    let limits = EngineConfig {
        memory_bytes,
        value_bytes_max: config.resp_item_bytes.max(config.max_item_bytes),
        eviction: config.eviction,
        user_bytes_max: None,
    };
    let memory_bytes_max = config.shard_memory_bytes_max();
    let engine = Engine::resizable(limits, memory_bytes_max, shared.hasher.clone(), shared.clock.now());
    let engine = engine.map_err(|error| ServeError::Memory { shard, mebibytes: memory_bytes_max >> 20, error })?;
    if config.huge_pages
        && let Err(error) = engine.advise_huge_pages()
    {
        tracing::warn!(shard, %error, "no huge pages: ordinary ones are used");
    }
    let (buffers, bytes) = (config.receive_buffers, config.receive_buffer_bytes);
    let (reactor, buffers) = Reactor::new(UringSize::SHARD, buffers, bytes, shared.shards())?;
    Ok((engine, reactor, buffers))
}

/// An address on which the node listens.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The protocol of its clients; for "any", a connection's first byte decides.
    pub protocol: &'static str,
    /// The address.
    pub address: SocketAddr,
}

/// How long a port that is in use is tried again: that of a node that was killed is free only once the kernel has ended
/// its urings.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// The time between two attempts.
const PORT_RETRY: Duration = Duration::from_millis(20);

/// Opens listeners of one address, trying again until `deadline` while its port is in use.
fn listen(
    config: &Config,
    flag: &'static str,
    address: SocketAddr,
    count: usize,
    deadline: Instant,
) -> Result<(SocketAddr, Vec<TcpListener>), ServeError> {
    loop {
        match sys::listen(address, count, config.tcp_keepalive_seconds) {
            Ok(opened) => return Ok(opened),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PORT_RETRY);
            }
            Err(error) => return Err(ServeError::Listen { flag, address, error }),
        }
    }
}

/// True if listening failed because the machine does not have the address, nor perhaps its family.
fn is_absent(error: &ServeError) -> bool {
    let ServeError::Listen { error, .. } = error else { return false };
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED)
}

/// EAFNOSUPPORT, for which the standard library has no name.
const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;

/// Binds the addresses and returns them with the listeners of each shard.
fn open_listeners(config: &Config) -> Result<(Vec<Address>, Vec<Vec<Listening>>), ServeError> {
    let shards = config.shard_cores.len();
    let mut addresses = Vec::new();
    let mut listeners: Vec<Vec<Listening>> = (0..shards).map(|_| Vec::new()).collect();
    let ports = [
        ("port", MEMCACHED, config.port, State::Memcached(memcached::State::Command)),
        ("resp-port", RESP, config.resp_port, State::Resp(resp::State::Command)),
    ];
    let deadline = Instant::now() + PORT_PATIENCE;
    for (flag, protocol, port, state) in ports {
        let mut port = match port {
            Port::Off => None,
            Port::Auto => Some(0),
            Port::Fixed(port) => Some(port),
        };
        let mut absent = None;
        for on in &config.listen {
            let own = on.port.filter(|_| protocol == MEMCACHED);
            let Some(number) = own.or(port) else { continue };
            let (bound, sockets) = match listen(config, flag, SocketAddr::new(on.ip, number), shards, deadline) {
                Err(error) if on.is_optional && is_absent(&error) => {
                    absent = Some(error);
                    continue;
                }
                opened => opened?,
            };
            // The kernel chooses a port once; the other addresses use the port that it chose.
            if own.is_none() {
                port = Some(bound.port());
            }
            addresses.push(Address { protocol, address: bound });
            for (shard, socket) in sockets.into_iter().enumerate() {
                listeners[shard].push(Listening { socket, pinned: false, state });
            }
        }
        if let Some(error) = absent
            && !addresses.iter().any(|address: &Address| address.protocol == protocol)
        {
            return Err(error);
        }
    }
    for on in &config.listen {
        for (shard, listeners) in listeners.iter_mut().enumerate().filter(|_| config.shard_ports != 0) {
            let address = SocketAddr::new(on.ip, config.shard_ports + shard as u16);
            let (bound, sockets) = match listen(config, "shard-ports", address, 1, deadline) {
                Err(error) if on.is_optional && is_absent(&error) => continue,
                opened => opened?,
            };
            addresses.push(Address { protocol: "any", address: bound });
            let listening = |socket| Listening { socket, pinned: true, state: State::Unknown };
            listeners.extend(sockets.into_iter().map(listening));
        }
    }
    Ok((addresses, listeners))
}
