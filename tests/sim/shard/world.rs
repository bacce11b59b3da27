//! The world of a run: shards with real engines, and sockets, a mesh and a clock in memory that a seed drives.

use crate::random::Random;
use pinion::command::UnixMs;
use pinion::config::{Config, Machine, Options};
use pinion::engine::{Engine, EngineConfig, KeyHasher};
use pinion::eviction::Eviction;
use pinion::protocol::{State, memcached, resp};
use pinion::reactor::{Errno, Event, Pieces, Token};
use pinion::shard::{Clock, Io, Listener, Message, ReceiveMemory, Shard, SharedState};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of one receive buffer: small, so that commands are cut often.
const BUFFER_BYTES: usize = 2048;

/// Bytes that a socket takes in each direction before its sender must wait.
const SOCKET_BYTES: usize = 48 << 10;

/// Unix time at the start of a run, in milliseconds.
const START_UNIX_MS: UnixMs = 1_700_000_000_000;

/// One socket, as the network between client and shard sees it.
#[derive(Default)]
pub struct Wire {
    /// Bytes on their way to the shard, and to the client.
    pub to_shard: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    /// The client sends no more; the client is gone without a goodbye.
    pub client_done: bool,
    pub client_gone: bool,
    /// The shard sends no more, receives no more, has closed the socket.
    pub shard_done: bool,
    pub shard_deaf: bool,
    pub closed: bool,
}

/// A shard's handle of a socket; dropping it closes the socket.
pub struct SimSocket {
    pub number: usize,
    network: Rc<RefCell<Network>>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.network.borrow_mut().wires[self.number].closed = true;
    }
}

struct Armed {
    token: Token,
    wire: usize,
    once: bool,
}

/// A receive into pieces.
struct Filling {
    token: Token,
    wire: usize,
    pieces: Pieces,
    /// What has come so far, beginning at the first piece.
    bytes: Vec<u8>,
}

/// What a send sends.
enum Outgoing {
    Bytes(Vec<u8>),
    Pieces(Pieces),
}

impl Outgoing {
    /// The bytes from an offset on. Those of pieces are read when they are sent: what changes them before is noticed.
    fn from(&self, from: usize) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes[from..].to_vec(),
            Self::Pieces(pieces) => pieces.read(from),
        }
    }

    fn sent(self, token: Token, result: Result<usize, Errno>) -> Event<SimSocket, usize> {
        match self {
            Self::Bytes(bytes) => Event::Sent { token, bytes, result },
            Self::Pieces(pieces) => Event::SentPieces { token, pieces, result },
        }
    }
}

struct Sending {
    token: Token,
    wire: usize,
    outgoing: Outgoing,
    from: usize,
}

/// What one shard has started and is waiting for.
#[derive(Default)]
struct Pending {
    receives: Vec<Armed>,
    fills: Vec<Filling>,
    cancels: Vec<Token>,
    sends: Vec<Sending>,
    accepts: Vec<usize>,
    tick: Option<Duration>,
    next_tick: Option<Instant>,
}

type Inbox = VecDeque<(Instant, Message<SimSocket>)>;

/// Everything outside of the shards.
pub struct Network {
    began: Instant,
    pub now: Instant,
    pub wires: Vec<Wire>,
    shards: Vec<Pending>,
    /// Messages from shard to shard.
    mesh: HashMap<(usize, usize), Inbox>,
    /// The longest delay of a message, in microseconds.
    mesh_delay_us: u64,
    random: Random,
}

/// One shard's part of the network.
pub struct SimIo {
    shard: usize,
    network: Rc<RefCell<Network>>,
}

impl Io for SimIo {
    type Socket = SimSocket;

    fn instant(&self) -> Instant {
        self.network.borrow().now
    }

    fn unix_ms(&self) -> UnixMs {
        let network = self.network.borrow();
        START_UNIX_MS + (network.now - network.began).as_millis() as UnixMs
    }

    fn addresses(&self, socket: &SimSocket) -> (String, String) {
        (format!("client:{}", socket.number), "shard:1".into())
    }

    fn keep_alive(&self, _: &SimSocket, _: u32) {}

    fn arm_receive(&mut self, token: Token, socket: &SimSocket, once: bool) {
        let receives = &mut self.network.borrow_mut().shards[self.shard].receives;
        assert!(receives.iter().all(|armed| armed.token != token), "two receives on one connection");
        receives.push(Armed { token, wire: socket.number, once });
    }

    fn cancel_receive(&mut self, token: Token) {
        self.network.borrow_mut().shards[self.shard].cancels.push(token);
    }

    fn send(&mut self, token: Token, socket: &SimSocket, bytes: Vec<u8>, from: usize) {
        assert!(from < bytes.len(), "a send of nothing");
        self.start_send(token, socket, Outgoing::Bytes(bytes), from);
    }

    fn send_pieces(&mut self, token: Token, socket: &SimSocket, pieces: Pieces, from: usize) {
        assert!(from < pieces.bytes(), "a send of nothing");
        self.start_send(token, socket, Outgoing::Pieces(pieces), from);
    }

    fn receive_pieces(&mut self, token: Token, socket: &SimSocket, pieces: Pieces) {
        let pending = &mut self.network.borrow_mut().shards[self.shard];
        assert!(pending.receives.iter().all(|armed| armed.token != token), "two receives on one connection");
        assert!(pending.fills.iter().all(|filling| filling.token != token), "two receives on one connection");
        pending.fills.push(Filling { token, wire: socket.number, pieces, bytes: Vec::new() });
    }

    fn cancel_receive_pieces(&mut self, token: Token) {
        self.network.borrow_mut().shards[self.shard].cancels.push(token);
    }

    fn shut_down(&mut self, socket: &SimSocket, how: Shutdown) {
        let wire = &mut self.network.borrow_mut().wires[socket.number];
        wire.shard_done = true;
        wire.shard_deaf |= how == Shutdown::Both;
    }

    fn refuse(&mut self, socket: SimSocket, text: &[u8]) {
        let wire = &mut self.network.borrow_mut().wires[socket.number];
        wire.to_client.extend(text);
        wire.shard_done = true;
    }

    fn arm_accept(&mut self, listener: usize) {
        self.network.borrow_mut().shards[self.shard].accepts.push(listener);
    }

    fn stop_listening(&mut self) {
        self.network.borrow_mut().shards[self.shard].accepts.clear();
    }

    fn return_free_memory(&mut self) {}

    fn set_tick(&mut self, period: Duration) {
        let mut network = self.network.borrow_mut();
        let now = network.now;
        let pending = &mut network.shards[self.shard];
        pending.tick = Some(period);
        pending.next_tick = Some(now + period);
    }

    fn post(&mut self, to: usize, message: Message<SimSocket>) {
        let mut network = self.network.borrow_mut();
        let delay = network.mesh_delay_us;
        let delay = network.random.below(delay + 1);
        let now = network.now;
        let inbox = network.mesh.entry((self.shard, to)).or_default();
        // Messages of one sender keep their order, as in a channel.
        let due = inbox.back().map_or(now, |(due, _)| *due).max(now + Duration::from_micros(delay));
        inbox.push_back((due, message));
        assert!(inbox.len() <= pinion::mesh::OUTSTANDING_MAX, "more messages than the channel has room for");
    }

    fn next_message(&mut self) -> Option<Message<SimSocket>> {
        let mut network = self.network.borrow_mut();
        let now = network.now;
        let shards = network.shards.len();
        // Which sender comes first is chance.
        let first = network.random.below(shards as u64) as usize;
        for from in (0..shards).map(|n| (n + first) % shards) {
            if let Some(inbox) = network.mesh.get_mut(&(from, self.shard))
                && inbox.front().is_some_and(|(due, _)| *due <= now)
            {
                return inbox.pop_front().map(|(_, message)| message);
            }
        }
        None
    }
}

impl SimIo {
    fn start_send(&mut self, token: Token, socket: &SimSocket, outgoing: Outgoing, from: usize) {
        let sends = &mut self.network.borrow_mut().shards[self.shard].sends;
        assert!(sends.iter().all(|sending| sending.token != token), "two sends in flight on one connection");
        sends.push(Sending { token, wire: socket.number, outgoing, from });
    }
}

/// The buffers that a shard received into in one turn.
#[derive(Default)]
pub struct Buffers(Vec<Vec<u8>>);

impl ReceiveMemory for Buffers {
    type Buffer = usize;

    fn bytes(&self, buffer: &usize) -> &[u8] {
        &self.0[*buffer]
    }
}

/// How a run is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    pub shards: usize,
    /// Memory of each shard in MiB.
    pub memory_mib: u64,
    pub eviction: Eviction,
    pub mesh_delay_us: u64,
    /// Keys that a slice of a long command looks at.
    pub elements_per_slice: usize,
    /// How long a stage of a turn may last; none for as long as usual.
    pub stage_time: Option<Duration>,
    /// Tasks and bytes that a batch takes.
    pub batch: (usize, usize),
    /// Receive buffers of each shard.
    pub buffers: usize,
    /// How many in a thousand sends and receives happen in a turn in which they could.
    pub progress_permille: u64,
}

/// A node and its network.
pub struct World {
    pub network: Rc<RefCell<Network>>,
    pub shards: Vec<Option<Shard<SimIo>>>,
    pub shared: Arc<SharedState>,
    setup: Setup,
    events: Vec<Event<SimSocket, usize>>,
    used: Vec<usize>,
}

impl World {
    pub fn new(setup: Setup, random: Random) -> Self {
        let options = Options {
            shards: Some(setup.shards),
            memory: Some(format!("{}MiB", setup.memory_mib * setup.shards as u64).parse().expect("a size")),
            eviction: Some(setup.eviction),
            receive_buffers: Some(64),
            huge_pages: Some(false),
            ..Options::default()
        };
        let machine = Machine { cores: (0..setup.shards).collect(), memory_bytes: None, open_files: 4096 };
        let mut config = Config::new(&options, &machine).expect("settings");
        config.receive_buffers = setup.buffers as u16;
        let now = Instant::now();
        let hasher = KeyHasher::with_seed(7);
        let clock = Clock::starting(now, START_UNIX_MS);
        let shared = SharedState::with(config, 11211, 6379, clock, hasher.clone()).expect("files");
        let shared = Arc::new(shared);
        let network = Rc::new(RefCell::new(Network {
            began: now,
            now,
            wires: Vec::new(),
            shards: (0..setup.shards).map(|_| Pending::default()).collect(),
            mesh: HashMap::new(),
            mesh_delay_us: setup.mesh_delay_us,
            random,
        }));
        let shard = |id| {
            let config = EngineConfig {
                memory_bytes: setup.memory_mib << 20,
                value_bytes_max: shared.config.resp_item_bytes.max(shared.config.max_item_bytes),
                eviction: setup.eviction,
                user_bytes_max: None,
            };
            let engine = Engine::new(config, hasher.clone(), START_UNIX_MS).expect("memory");
            let listeners = vec![
                Listener::new(false, State::Memcached(memcached::State::Command)),
                Listener::new(false, State::Resp(resp::State::Command)),
                Listener::new(true, State::Unknown),
            ];
            let io = SimIo { shard: id, network: Rc::clone(&network) };
            let mut shard = Shard::new(id, Arc::clone(&shared), engine, io, listeners);
            shard.set_limits(setup.elements_per_slice, setup.batch, setup.stage_time);
            Some(shard)
        };
        let shards = (0..setup.shards).map(shard).collect();
        Self { network, shards, shared, setup, events: Vec::new(), used: Vec::new() }
    }

    /// Connects a client to a listener of a shard; returns its socket.
    pub fn connect(&mut self, shard: usize, listener: u32) -> Option<usize> {
        let mut network = self.network.borrow_mut();
        if !network.shards[shard].accepts.contains(&(listener as usize)) {
            return None;
        }
        let number = network.wires.len();
        network.wires.push(Wire::default());
        let socket = SimSocket { number, network: Rc::clone(&self.network) };
        self.events.push(Event::Accepted { listener, socket, armed: true });
        drop(network);
        self.turn(shard);
        Some(number)
    }

    pub fn advance(&mut self, by: Duration) {
        self.network.borrow_mut().now += by;
    }

    /// One turn of a shard, with whatever events the network has for it. False if the shard has ended.
    pub fn turn(&mut self, id: usize) -> bool {
        let Some(shard) = &mut self.shards[id] else { return false };
        let mut memory = Buffers::default();
        self.network.borrow_mut().collect(id, &self.setup, &mut self.events, &mut memory);
        let received = memory.0.len();
        shard.turn(&mut self.events, &mut self.used, &memory);
        assert_eq!(self.used.len(), received, "a receive buffer was not given back");
        self.used.clear();
        if shard.finished() {
            // A stop leaves behind what was on its way to a sibling at that moment. With the last shard, the process
            // ends, which closes the sockets of connections that were being handed over.
            self.shards[id] = None;
            if self.shards.iter().all(Option::is_none) {
                let left = std::mem::take(&mut self.network.borrow_mut().mesh);
                drop(left);
            }
        }
        true
    }

    /// True if the network has nothing on its way between shards.
    pub fn mesh_is_empty(&self) -> bool {
        self.network.borrow().mesh.values().all(VecDeque::is_empty)
    }
}

impl Network {
    /// How many bytes a client may write to its socket now.
    pub fn room(&self, wire: usize) -> usize {
        SOCKET_BYTES.saturating_sub(self.wires[wire].to_shard.len())
    }

    /// The events of a shard's next turn.
    fn collect(&mut self, id: usize, setup: &Setup, events: &mut Vec<Event<SimSocket, usize>>, memory: &mut Buffers) {
        let mut pending = std::mem::take(&mut self.shards[id]);
        if pending.next_tick.is_some_and(|due| self.now >= due) {
            pending.next_tick = pending.tick.map(|period| self.now + period);
            events.push(Event::Tick);
        }
        self.complete_sends(&mut pending, setup, events);
        self.complete_fills(&mut pending, setup, events);
        self.complete_receives(&mut pending, setup, events, memory);
        self.shards[id] = pending;
    }

    fn complete_sends(&mut self, pending: &mut Pending, setup: &Setup, events: &mut Vec<Event<SimSocket, usize>>) {
        for sending in std::mem::take(&mut pending.sends) {
            let Sending { token, wire: number, outgoing, from } = sending;
            let wire = &mut self.wires[number];
            let left = outgoing.from(from);
            if wire.client_gone || wire.shard_done {
                events.push(outgoing.sent(token, Err(Errno(32))));
                continue;
            }
            let room = SOCKET_BYTES.saturating_sub(wire.to_client.len()).min(left.len());
            if room == 0 || !self.random.permille(setup.progress_permille) {
                pending.sends.push(Sending { token, wire: number, outgoing, from });
                continue;
            }
            // Sends can be short.
            let count = if self.random.permille(200) { 1 + self.random.below(room as u64) as usize } else { room };
            wire.to_client.extend(&left[..count]);
            events.push(outgoing.sent(token, Ok(count)));
        }
    }

    /// Receives into pieces: each ends when all pieces are filled, nothing more can come, or it is cancelled.
    fn complete_fills(&mut self, pending: &mut Pending, setup: &Setup, events: &mut Vec<Event<SimSocket, usize>>) {
        for filling in std::mem::take(&mut pending.fills) {
            let Filling { token, wire: number, mut pieces, mut bytes } = filling;
            let wire = &mut self.wires[number];
            let missing = pieces.bytes() - bytes.len();
            if self.random.permille(setup.progress_permille) && !wire.client_gone {
                let count = missing.min(wire.to_shard.len());
                bytes.extend(wire.to_shard.drain(..count));
                pieces.write(&bytes);
            }
            let is_over = (wire.client_done || wire.shard_deaf) && wire.to_shard.is_empty();
            let result = if bytes.len() == pieces.bytes() {
                Some(Ok(bytes.len()))
            } else if let Some(at) = pending.cancels.iter().position(|cancelled| *cancelled == token) {
                pending.cancels.swap_remove(at);
                Some(if bytes.is_empty() { Err(Errno::CANCELLED) } else { Ok(bytes.len()) })
            } else if wire.client_gone {
                wire.to_shard.clear();
                Some(Err(Errno(104)))
            } else if is_over {
                Some(Ok(bytes.len()))
            } else {
                None
            };
            match result {
                Some(result) => events.push(Event::ReceivedPieces { token, pieces, result }),
                None => pending.fills.push(Filling { token, wire: number, pieces, bytes }),
            }
        }
    }

    /// Receives in the order in which they were armed, as the kernel tries them: each takes buffers for all that its
    /// socket has, until none is left.
    fn complete_receives(
        &mut self,
        pending: &mut Pending,
        setup: &Setup,
        events: &mut Vec<Event<SimSocket, usize>>,
        memory: &mut Buffers,
    ) {
        for armed in std::mem::take(&mut pending.receives) {
            let Armed { token, wire: number, once } = armed;
            let wire = &mut self.wires[number];
            if let Some(at) = pending.cancels.iter().position(|cancelled| *cancelled == token) {
                pending.cancels.swap_remove(at);
                events.push(Event::ReceiveEnded { token, errno: Some(Errno::CANCELLED) });
                continue;
            }
            if wire.client_gone {
                // The kernel forgets what a socket has received when the peer resets it.
                wire.to_shard.clear();
                events.push(Event::ReceiveEnded { token, errno: Some(Errno(104)) });
                continue;
            }
            let is_over = wire.client_done || wire.shard_deaf;
            if wire.to_shard.is_empty() && is_over {
                events.push(Event::ReceiveEnded { token, errno: None });
                continue;
            }
            if wire.to_shard.is_empty() || !self.random.permille(setup.progress_permille) {
                pending.receives.push(armed);
                continue;
            }
            let mut goes_on = !once;
            while !wire.to_shard.is_empty() {
                if memory.0.len() == setup.buffers {
                    events.push(Event::ReceiveEnded { token, errno: Some(Errno::NO_BUFFERS) });
                    goes_on = false;
                    break;
                }
                let count = wire.to_shard.len().min(BUFFER_BYTES);
                let cut = if self.random.permille(300) { 1 + self.random.below(count as u64) as usize } else { count };
                memory.0.push(wire.to_shard.drain(..cut).collect());
                // A multishot can end without an error.
                goes_on &= !self.random.permille(20);
                events.push(Event::Received { token, buffer: memory.0.len() - 1, armed: goes_on });
                if !goes_on || self.random.permille(200) {
                    break;
                }
            }
            if goes_on {
                pending.receives.push(armed);
            }
        }
        // A cancel of a receive that has ended already finds nothing.
        pending.cancels.clear();
    }
}
