//! The node's side of a shard: io_uring, the mesh's channels, and sleeping until there is something to do.

use super::batch::Message;
use super::io::{Io, ReceiveMemory};
use super::{Clock, Listener, Rest, Shard, SharedState};
use crate::command::UnixMs;
use crate::mesh::MeshEnd;
use crate::protocol::State;
use crate::reactor::{Buffer, Event, Pieces, Reactor, ReceiveBuffers, Token};
use crate::sys;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events of one turn that there is room for from the start.
const EVENTS_EXPECTED: usize = 1024;

/// A turn that lasts this long is a long one.
const LONG_TURN: Duration = Duration::from_millis(1);

/// How long, at most, the kernel completes operations between two turns, beyond its first batch.
const COMPLETING_TIME: Duration = Duration::from_millis(4);

/// A listening socket, for a shard to serve.
pub struct Listening {
    /// The socket.
    pub socket: TcpListener,
    /// Its connections stay on the shard.
    pub pinned: bool,
    /// Which protocol they speak.
    pub state: State,
}

/// A shard's sockets and channels.
pub struct Driver {
    reactor: Reactor,
    mesh: MeshEnd<Message<OwnedFd>>,
    shared: Arc<SharedState>,
    listeners: Vec<TcpListener>,
    /// Something was sent to a sibling in this turn.
    posted: bool,
    /// Sleeping siblings that were sent something in this turn.
    to_ring: Vec<usize>,
    /// Another shard runs on the same core.
    shares_core: bool,
}

impl Driver {
    /// The driver of shard `id`, with its listeners.
    pub fn new(
        id: usize,
        mut reactor: Reactor,
        mesh: MeshEnd<Message<OwnedFd>>,
        shared: Arc<SharedState>,
        listening: Vec<Listening>,
    ) -> (Self, Vec<Listener>) {
        reactor.listen_for_wakes(shared.wake_fd(id));
        let listeners = listening.iter().map(|l| Listener::new(l.pinned, l.state)).collect();
        let shares_core = shared.config.shares_core();
        let sockets = listening.into_iter().map(|l| l.socket).collect();
        let driver =
            Self { reactor, mesh, shared, listeners: sockets, posted: false, to_ring: Vec::new(), shares_core };
        (driver, listeners)
    }

    /// Wakes the siblings that sleep and were sent something in this turn. Last of all that the turn submits: a sibling
    /// on the same core may run at once.
    fn ring_sleepers(&mut self) {
        for to in self.to_ring.drain(..) {
            self.reactor.ring(to as u32, self.shared.doorbell(to));
        }
    }

    /// Submits what the turn queued, waits for more to do, and has the kernel complete what it can.
    fn enter(&mut self, rest: Rest, turn_began: Instant) {
        self.submit_and_wait(rest, turn_began);
        // From Linux 6.13 on, one call completes some twenty operations (IO_LOCAL_TW_DEFAULT_MAX), first come, first
        // served. Where turns are long, one such batch per turn would keep the others waiting for as many turns as
        // there are batches. Short turns make up for it themselves, without a further call.
        if self.reactor.has_deferred_work() {
            let now = Instant::now();
            let until = if now - turn_began < LONG_TURN { now } else { now + COMPLETING_TIME };
            while self.reactor.has_deferred_work() && Instant::now() < until {
                self.reactor.poll();
            }
        }
    }

    /// Submits what the turn queued, and waits for more to do: spinning first, where that is configured.
    fn submit_and_wait(&mut self, rest: Rest, turn_began: Instant) {
        if std::mem::take(&mut self.posted) && self.shares_core {
            // The sibling needs this core to answer. Let it have it now: what arrives here meanwhile makes the next
            // turn a larger one (measured with two shards on one core: 1.2 instead of 1.4 times the CPU of one shard).
            self.reactor.poll();
            std::thread::yield_now();
        }
        let Rest::Wait(timeout) = rest else { return self.reactor.poll() };
        if self.mesh.has_messages() {
            return self.reactor.poll();
        }
        let spin = self.shared.config.spin;
        if !spin.is_zero() {
            self.reactor.poll();
            let until = turn_began + spin;
            while !self.reactor.has_events() {
                if self.mesh.has_messages() {
                    return;
                }
                if Instant::now() >= until {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        if self.mesh.fall_asleep() {
            self.reactor.wait(timeout);
            self.mesh.wake_up();
        } else {
            self.reactor.poll();
        }
    }
}

impl Shard<Driver> {
    /// Runs until the node stops and every client has been answered, or has had the time for it.
    pub fn run(mut self, mut buffers: ReceiveBuffers) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_EXPECTED);
        let mut used: Vec<Buffer> = Vec::with_capacity(usize::from(self.shared.config.receive_buffers));
        loop {
            self.io().reactor.reap(&mut events);
            self.turn(&mut events, &mut used, &buffers);
            self.io().ring_sleepers();
            buffers.give_back(used.drain(..));
            if self.finished() {
                return;
            }
            let (rest, began) = (self.rest(), self.instant());
            self.io().enter(rest, began);
        }
    }
}

impl ReceiveMemory for ReceiveBuffers {
    type Buffer = Buffer;

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        ReceiveBuffers::bytes(self, buffer)
    }
}

impl Io for Driver {
    type Socket = OwnedFd;

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn unix_ms(&self) -> UnixMs {
        Clock::unix_ms()
    }

    fn addresses(&self, socket: &OwnedFd) -> (String, String) {
        sys::addresses(socket.as_fd())
    }

    fn keep_alive(&self, socket: &OwnedFd, seconds: u32) {
        sys::keep_alive(socket.as_fd(), seconds);
    }

    fn arm_receive(&mut self, token: Token, socket: &OwnedFd, once: bool) {
        match once {
            true => self.reactor.receive_once(token, socket.as_fd()),
            false => self.reactor.receive(token, socket.as_fd()),
        }
    }

    fn cancel_receive(&mut self, token: Token) {
        self.reactor.cancel_receive(token);
    }

    fn send(&mut self, token: Token, socket: &OwnedFd, bytes: Vec<u8>, from: usize) {
        self.reactor.send(token, socket.as_fd(), bytes, from);
    }

    fn send_pieces(&mut self, token: Token, socket: &OwnedFd, pieces: Pieces, from: usize) {
        self.reactor.send_pieces(token, socket.as_fd(), pieces, from);
    }

    fn receive_pieces(&mut self, token: Token, socket: &OwnedFd, pieces: Pieces) {
        self.reactor.receive_pieces(token, socket.as_fd(), pieces);
    }

    fn cancel_receive_pieces(&mut self, token: Token) {
        self.reactor.cancel_receive_pieces(token);
    }

    fn shut_down(&mut self, socket: &OwnedFd, how: Shutdown) {
        sys::shut_down(socket.as_fd(), how);
    }

    fn refuse(&mut self, socket: OwnedFd, text: &[u8]) {
        // The socket is new, so its buffer takes these few bytes; if it does not, the client is gone.
        let _ = TcpStream::from(socket).write(text);
    }

    fn arm_accept(&mut self, listener: usize) {
        if let Some(socket) = self.listeners.get(listener) {
            self.reactor.accept(listener as u32, socket.as_fd());
        }
    }

    fn stop_listening(&mut self) {
        for index in 0..self.listeners.len() {
            self.reactor.cancel_accept(index as u32);
        }
        self.listeners.clear();
    }

    fn return_free_memory(&mut self) {
        sys::return_free_memory();
    }

    fn set_tick(&mut self, period: Duration) {
        self.reactor.start_timer(period);
    }

    fn post(&mut self, to: usize, message: Message<OwnedFd>) {
        self.posted = true;
        if self.mesh.send(to, message) {
            self.to_ring.push(to);
        }
    }

    fn next_message(&mut self) -> Option<Message<OwnedFd>> {
        self.mesh.receive()
    }
}
