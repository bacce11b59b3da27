//! The boundary of a shard: sockets, siblings and the time.
//!
//! A shard does no I/O itself. It tells an [`Io`] what to start, and is told what happened by the [`Event`]s of the
//! next turn. The node drives shards with an io_uring (`driver.rs`), the simulator (`tests/sim/shard`) with queues in
//! memory.
//!
//! [`Event`]: crate::reactor::Event

use super::batch::Message;
use crate::command::UnixMs;
use crate::protocol::State;
use crate::reactor::{Pieces, Token};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// What a shard can start.
pub trait Io {
    /// A connected socket; dropping it closes it.
    type Socket;

    /// The monotonic clock.
    fn instant(&self) -> Instant;

    /// The wall clock.
    fn unix_ms(&self) -> UnixMs;

    /// The peer's and the socket's own address, as text.
    fn addresses(&self, socket: &Self::Socket) -> (String, String);

    /// Sets after how many seconds without traffic a connection's peer is probed; 0 for never.
    fn keep_alive(&self, socket: &Self::Socket, seconds: u32);

    /// Starts to receive from a connection: until an event says otherwise, or, if `once`, into one buffer.
    fn arm_receive(&mut self, token: Token, socket: &Self::Socket, once: bool);

    /// Ends a receive early; its last event follows.
    fn cancel_receive(&mut self, token: Token);

    /// Sends `bytes[from..]`; at most one send per connection may be in flight. The event returns the bytes.
    fn send(&mut self, token: Token, socket: &Self::Socket, bytes: Vec<u8>, from: usize);

    /// Sends pieces from the offset `from` on, without a copy. It counts as the connection's send.
    fn send_pieces(&mut self, token: Token, socket: &Self::Socket, pieces: Pieces, from: usize);

    /// Receives into pieces until all of them are filled. It counts as the connection's receive.
    fn receive_pieces(&mut self, token: Token, socket: &Self::Socket, pieces: Pieces);

    /// Ends a receive into pieces early; its event follows.
    fn cancel_receive_pieces(&mut self, token: Token);

    /// Closes one or both directions of a connection. What is in flight on a closed direction ends.
    fn shut_down(&mut self, socket: &Self::Socket, how: Shutdown);

    /// Sends a short text on a socket that is not served, as far as that works at once, and closes it.
    fn refuse(&mut self, socket: Self::Socket, text: &[u8]);

    /// Starts to accept connections of a listener.
    fn arm_accept(&mut self, listener: usize);

    /// Closes all listeners.
    fn stop_listening(&mut self);

    /// Returns memory that is free in the process to the system.
    fn return_free_memory(&mut self);

    /// Delivers a tick once per period.
    fn set_tick(&mut self, period: Duration);

    /// Sends a message to a sibling, and wakes it if it sleeps.
    fn post(&mut self, to: usize, message: Message<Self::Socket>);

    /// The next message from a sibling.
    fn next_message(&mut self) -> Option<Message<Self::Socket>>;
}

/// Where received bytes lie.
pub trait ReceiveMemory {
    /// The right to read one buffer.
    type Buffer;

    /// The bytes of a buffer.
    fn bytes(&self, buffer: &Self::Buffer) -> &[u8];
}

/// A listening socket, from the shard's side.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Its connections stay on the shard.
    pub pinned: bool,
    /// Which protocol they speak.
    pub state: State,
    /// An accept is under way.
    pub(super) armed: bool,
}

impl Listener {
    /// A listening socket whose connections begin in `state`, and stay on its shard if `pinned`.
    pub fn new(pinned: bool, state: State) -> Self {
        Self { pinned, state, armed: false }
    }
}
