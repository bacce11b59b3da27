//! The io_uring driver of one shard: accepts, receives, sends, doorbell, timer. The modules above it do not know
//! io_uring.
//!
//! The methods below queue operations; all of them reach the kernel in the one `io_uring_enter` of [`Reactor::poll`] or
//! [`Reactor::wait`]. [`Reactor::reap`] turns completions into [`Event`]s.
//!
//! Rules:
//! - A connection has at most one receive armed and one send in flight, both identified by its [`Token`]. The token's
//!   generation distinguishes a late completion from one of the next connection with that index.
//! - A multishot receive or accept can end with any completion, with or without an error; the event says whether it is
//!   still `armed`.
//! - The bytes of a send belong to the reactor until the send completes; [`Event::Sent`] returns them.
//! - One thread creates and uses the uring (SINGLE_ISSUER); deferred task work runs only when that thread enters the
//!   kernel (DEFER_TASKRUN).

mod buffers;
mod pieces;
mod probe;

pub use buffers::{Buffer, COUNT_MAX as RECEIVE_BUFFERS_MAX, ReceiveBuffers};
pub use pieces::Pieces;
pub use probe::{StartError, probe};

use crate::sys::Mapping;
use io_uring::{
    Builder, CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue, types,
};
use pieces::InFlight;
use std::collections::HashMap;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// Sizes of a uring's two queues. The kernel keeps completions that do not fit (NODROP), at some cost.
#[derive(Clone, Copy, Debug)]
pub struct UringSize {
    /// Submission queue entries.
    pub sq_entries: u32,
    /// Completion queue entries.
    pub cq_entries: u32,
}

impl UringSize {
    /// The sizes for a shard: about 200 KiB of locked memory.
    pub const SHARD: Self = Self { sq_entries: 1024, cq_entries: 4096 };
    /// The sizes for tests.
    #[cfg(test)]
    const SMALL: Self = Self { sq_entries: 8, cq_entries: 16 };
}

fn uring_builder(size: UringSize) -> Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    builder.setup_cqsize(size.cq_entries);
    builder
}

/// Identifies one use of a connection's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Index of the connection, below [`Token::SLOTS_MAX`].
    pub slot: u32,
    /// How often the index was used before.
    pub generation: u32,
}

impl Token {
    /// Connections that one reactor can distinguish.
    pub const SLOTS_MAX: u32 = 1 << 28;
}

/// The error of a failed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// No receive buffer was free; the receive must be armed again.
    pub const NO_BUFFERS: Self = Self(libc::ENOBUFS);
    /// The operation was cancelled.
    pub const CANCELLED: Self = Self(libc::ECANCELED);
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// A completion, as the shard sees it.
#[derive(Debug)]
pub enum Event<S = OwnedFd, B = Buffer> {
    /// A client connected.
    Accepted {
        /// Index of the listener, as given to [`Reactor::accept`].
        listener: u32,
        /// The new socket.
        socket: S,
        /// The multishot accept is still armed; if not, it must be armed again.
        armed: bool,
    },
    /// The accept ended with an error.
    AcceptFailed {
        /// Index of the listener.
        listener: u32,
        /// Why.
        errno: Errno,
    },
    /// Bytes were received.
    Received {
        /// The connection.
        token: Token,
        /// The buffer that holds them.
        buffer: B,
        /// The multishot receive is still armed; if not, it must be armed again.
        armed: bool,
    },
    /// The receive ended: the peer closed its direction (no errno), or there was an error or a cancellation.
    ReceiveEnded {
        /// The connection.
        token: Token,
        /// The error, unless the peer closed.
        errno: Option<Errno>,
    },
    /// A send completed, possibly in part.
    Sent {
        /// The connection.
        token: Token,
        /// The buffer that was given to [`Reactor::send`].
        bytes: Vec<u8>,
        /// Bytes sent, or the error.
        result: Result<usize, Errno>,
    },
    /// A send of pieces completed, possibly in part.
    SentPieces {
        /// The connection.
        token: Token,
        /// The pieces that were given to [`Reactor::send_pieces`].
        pieces: Pieces,
        /// Bytes sent, or the error.
        result: Result<usize, Errno>,
    },
    /// A receive into pieces ended.
    ReceivedPieces {
        /// The connection.
        token: Token,
        /// The pieces that were given to [`Reactor::receive_pieces`].
        pieces: Pieces,
        /// Bytes received, 0 if the peer closed its direction, or the error.
        result: Result<usize, Errno>,
    },
    /// The timer of [`Reactor::start_timer`] expired once.
    Tick,
    /// The eventfd of [`Reactor::listen_for_wakes`] was signalled, or a sibling rang the doorbell.
    Woken,
    /// Ringing a sibling failed.
    RingFailed {
        /// The sibling, as given to [`Reactor::ring`].
        sibling: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 0,
    Receive = 1,
    Send = 2,
    Timer = 3,
    Wake = 4,
    Doorbell = 5,
    Ring = 6,
    Ignored = 7,
    SendPieces = 8,
    ReceivePieces = 9,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Timer,
        Self::Wake,
        Self::Doorbell,
        Self::Ring,
        Self::Ignored,
        Self::SendPieces,
        Self::ReceivePieces,
    ];
}

/// user_data: generation (32 bits), index of the connection (28), kind (4).
fn user_data(kind: Kind, token: Token) -> u64 {
    debug_assert!(token.slot < Token::SLOTS_MAX);
    u64::from(token.generation) << 32 | u64::from(token.slot) << 4 | kind as u64
}

const NOBODY: Token = Token { slot: 0, generation: 0 };

struct Queues {
    submitter: Submitter<'static>,
    sq: SubmissionQueue<'static>,
    cq: CompletionQueue<'static>,
}

/// One shard's io_uring. It is created on the shard's thread and stays there.
pub struct Reactor {
    queues: ManuallyDrop<Queues>,
    /// The uring that the queues borrow from; `drop` frees it after them.
    uring: NonNull<IoUring>,
    /// Per connection, the bytes of the send in flight. They must not move or change until it completes.
    sending: Vec<Option<Vec<u8>>>,
    /// Pieces that are being sent and received, per connection.
    sending_pieces: HashMap<u32, Box<InFlight>>,
    receiving_pieces: HashMap<u32, Box<InFlight>>,
    /// Memory from which the kernel reads the timer's period, and to which it writes the eventfd's counter.
    timer_period: Box<types::Timespec>,
    wake_counter: Box<u64>,
    wake_fd: Option<RawFd>,
    /// Memory that the kernel receives into.
    receive_memory: Option<Rc<Mapping<u8>>>,
}

impl Reactor {
    /// Creates the uring and its receive buffers: `buffer_count` (a power of two) of `buffer_bytes` each. `shards` is
    /// the number of reactors in the process, for the error message.
    ///
    /// # Errors
    /// The operation that the kernel refused; nothing is left behind.
    pub fn new(
        size: UringSize,
        buffer_count: u16,
        buffer_bytes: usize,
        shards: usize,
    ) -> Result<(Self, ReceiveBuffers), StartError> {
        let uring = uring_builder(size).build(size.sq_entries).map_err(|e| StartError::of_setup(e, shards))?;
        let uring = NonNull::from(Box::leak(Box::new(uring)));
        // SAFETY: the box was leaked, so the uring keeps its address until `drop` takes the box back, after the queues
        // are gone. Until then only the queues use it.
        let (mut submitter, sq, cq) = unsafe { (*uring.as_ptr()).split() };
        // Saves a file table lookup per enter. An old kernel refuses; the ordinary descriptor works as well.
        let _ = submitter.register_ring_fd();
        let mut reactor = Self {
            queues: ManuallyDrop::new(Queues { submitter, sq, cq }),
            uring,
            sending: Vec::new(),
            sending_pieces: HashMap::default(),
            receiving_pieces: HashMap::default(),
            timer_period: Box::new(types::Timespec::new()),
            wake_counter: Box::new(0),
            wake_fd: None,
            receive_memory: None,
        };
        let buffers = ReceiveBuffers::register(&reactor.queues.submitter, buffer_count, buffer_bytes);
        let buffers = buffers.map_err(|error| StartError::Call { call: "IORING_REGISTER_PBUF_RING", error })?;
        reactor.receive_memory = Some(buffers.memory());
        Ok((reactor, buffers))
    }

    /// The descriptor that siblings ring: see [`Reactor::ring`].
    pub fn doorbell(&self) -> RawFd {
        // SAFETY: the uring lives as long as the reactor, and reading its descriptor changes nothing.
        unsafe { self.uring.as_ref() }.as_raw_fd()
    }

    /// Arms a multishot accept on a listener; it lasts until an [`Event::Accepted`] says that it is no longer armed.
    pub fn accept(&mut self, listener: u32, socket: BorrowedFd) {
        let accept = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        let token = Token { slot: listener, generation: 0 };
        self.push(accept.build().user_data(user_data(Kind::Accept, token)));
    }

    /// Cancels the accept on a listener.
    pub fn cancel_accept(&mut self, listener: u32) {
        self.cancel(Kind::Accept, Token { slot: listener, generation: 0 });
    }

    /// Arms a multishot receive on a connection; it lasts until an event says that it is no longer armed.
    pub fn receive(&mut self, token: Token, socket: BorrowedFd) {
        let receive = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), buffers::GROUP);
        self.push(receive.build().user_data(user_data(Kind::Receive, token)));
    }

    /// Receives from a connection once, into one buffer.
    pub fn receive_once(&mut self, token: Token, socket: BorrowedFd) {
        let receive = opcode::Recv::new(types::Fd(socket.as_raw_fd()), std::ptr::null_mut(), 0);
        let receive = receive.buf_group(buffers::GROUP).build().flags(squeue::Flags::BUFFER_SELECT);
        self.push(receive.user_data(user_data(Kind::Receive, token)));
    }

    /// Cancels a receive; its last event follows.
    pub fn cancel_receive(&mut self, token: Token) {
        self.cancel(Kind::Receive, token);
    }

    /// Sends `bytes[from..]`. At most one send per connection may be in flight.
    pub fn send(&mut self, token: Token, socket: BorrowedFd, bytes: Vec<u8>, from: usize) {
        let slot = token.slot as usize;
        if self.sending.len() <= slot {
            self.sending.resize_with(slot + 1, || None);
        }
        let rest = &bytes[from..];
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), rest.as_ptr(), length).flags(libc::MSG_NOSIGNAL);
        let before = self.sending[slot].replace(bytes);
        assert!(before.is_none(), "two sends in flight on one connection");
        self.push(send.build().user_data(user_data(Kind::Send, token)));
    }

    /// Sends pieces, from the offset `from` on. At most one send per connection may be in flight.
    pub fn send_pieces(&mut self, token: Token, socket: BorrowedFd, pieces: Pieces, from: usize) {
        let mut in_flight = InFlight::new(pieces, from);
        let send = opcode::SendMsg::new(types::Fd(socket.as_raw_fd()), in_flight.header());
        let send = send.flags(libc::MSG_NOSIGNAL as u32).build();
        let before = self.sending_pieces.insert(token.slot, in_flight);
        assert!(before.is_none(), "two sends in flight on one connection");
        self.push(send.user_data(user_data(Kind::SendPieces, token)));
    }

    /// Receives into pieces: until all of them are filled, the peer closes, or the receive is cancelled.
    pub fn receive_pieces(&mut self, token: Token, socket: BorrowedFd, pieces: Pieces) {
        let mut in_flight = InFlight::new(pieces, 0);
        let receive = opcode::RecvMsg::new(types::Fd(socket.as_raw_fd()), in_flight.header());
        let receive = receive.flags(libc::MSG_WAITALL as u32).build();
        let before = self.receiving_pieces.insert(token.slot, in_flight);
        assert!(before.is_none(), "two receives in flight on one connection");
        self.push(receive.user_data(user_data(Kind::ReceivePieces, token)));
    }

    /// Ends a receive into pieces early; its event follows.
    pub fn cancel_receive_pieces(&mut self, token: Token) {
        self.cancel(Kind::ReceivePieces, token);
    }

    /// Starts the timer: [`Event::Tick`] once per period. A second call changes the period from the next tick on, which
    /// comes within the new period.
    pub fn start_timer(&mut self, period: Duration) {
        *self.timer_period = types::Timespec::from(period);
        self.arm_timer();
    }

    /// Lets other threads wake this one through an eventfd, which must stay open as long as the reactor lives.
    pub fn listen_for_wakes(&mut self, eventfd: RawFd) {
        self.wake_fd = Some(eventfd);
        self.arm_wake();
    }

    /// Rings a sibling's doorbell, so that it returns from [`Reactor::wait`]. Only a failure causes an event here.
    pub fn ring(&mut self, sibling: u32, doorbell: RawFd) {
        let there = user_data(Kind::Doorbell, NOBODY);
        let message = opcode::MsgRingData::new(types::Fd(doorbell), 0, there, None).build();
        let here = user_data(Kind::Ring, Token { slot: sibling, generation: 0 });
        self.push(message.flags(squeue::Flags::SKIP_SUCCESS).user_data(here));
    }

    /// Submits the queued operations and runs deferred task work, without waiting. Makes no system call if there is
    /// neither.
    pub fn poll(&mut self) {
        self.queues.sq.sync();
        let idle = self.queues.sq.is_empty() && !self.queues.sq.taskrun() && !self.queues.sq.cq_overflow();
        if !idle {
            self.enter(0);
        }
    }

    /// Submits the queued operations and waits for a completion, or until the timeout.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        self.queues.sq.sync();
        self.queues.cq.sync();
        // Completions that are available already are to be reaped at once, not waited for.
        let want = u32::from(self.queues.cq.is_empty());
        match timeout {
            Some(timeout) if want > 0 => {
                let timeout = types::Timespec::from(timeout);
                let entered = self.queues.submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&timeout));
                self.entered(entered.map(|_| ()));
            }
            _ => self.enter(want),
        }
    }

    /// True if events are available, or [`Reactor::poll`] would make some available: for spinning before
    /// [`Reactor::wait`].
    pub fn has_events(&mut self) -> bool {
        self.queues.cq.sync();
        !self.queues.cq.is_empty() || self.queues.sq.taskrun()
    }

    /// True if the kernel has work that only a call of this thread does, such as completions that were deferred.
    #[inline]
    pub fn has_deferred_work(&self) -> bool {
        self.queues.sq.taskrun()
    }

    /// Appends an event for each completion to `events`.
    pub fn reap(&mut self, events: &mut Vec<Event>) {
        self.queues.cq.sync();
        let mut timer_ended = false;
        let mut wake_ended = false;
        for completion in &mut self.queues.cq {
            let data = completion.user_data();
            let token = Token { slot: (data as u32) >> 4, generation: (data >> 32) as u32 };
            match Kind::ALL[(data & 15) as usize] {
                Kind::Receive => events.push(received(token, &completion)),
                Kind::Send => {
                    let bytes = self.sending[token.slot as usize].take().expect("a send in flight has its bytes here");
                    events.push(Event::Sent { token, bytes, result: outcome(completion.result()).map(|n| n as usize) });
                }
                Kind::SendPieces => {
                    let in_flight = self.sending_pieces.remove(&token.slot).expect("pieces in flight are here");
                    let result = outcome(completion.result()).map(|n| n as usize);
                    events.push(Event::SentPieces { token, pieces: in_flight.into_pieces(), result });
                }
                Kind::ReceivePieces => {
                    let in_flight = self.receiving_pieces.remove(&token.slot).expect("pieces in flight are here");
                    let result = outcome(completion.result()).map(|n| n as usize);
                    events.push(Event::ReceivedPieces { token, pieces: in_flight.into_pieces(), result });
                }
                Kind::Accept => events.push(accepted(token.slot, &completion)),
                Kind::Timer => {
                    timer_ended = true;
                    events.push(Event::Tick);
                }
                Kind::Wake => {
                    wake_ended = true;
                    events.push(Event::Woken);
                }
                Kind::Doorbell => events.push(Event::Woken),
                Kind::Ring => events.push(Event::RingFailed { sibling: token.slot }),
                Kind::Ignored => {}
            }
        }
        if timer_ended {
            self.arm_timer();
        }
        if wake_ended {
            self.arm_wake();
        }
    }

    fn arm_timer(&mut self) {
        let timer = opcode::Timeout::new(&raw const *self.timer_period);
        self.push(timer.build().user_data(user_data(Kind::Timer, NOBODY)));
    }

    fn arm_wake(&mut self) {
        if let Some(fd) = self.wake_fd {
            let counter = (&raw mut *self.wake_counter).cast();
            let read = opcode::Read::new(types::Fd(fd), counter, size_of::<u64>() as u32);
            self.push(read.build().user_data(user_data(Kind::Wake, NOBODY)));
        }
    }

    fn cancel(&mut self, kind: Kind, token: Token) {
        let cancel = opcode::AsyncCancel::new(user_data(kind, token)).build();
        let here = user_data(Kind::Ignored, NOBODY);
        self.push(cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(here));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the memory that an operation points to stays valid until it completes: sends own their bytes
        // (`sending`), pieces in flight their buffers and a lease of the memory that they are in, the timer and the
        // eventfd read point into boxes of the reactor, receives use `receive_memory`, and `drop` cancels all
        // operations before any of these is freed.
        while unsafe { self.queues.sq.push(&entry) }.is_err() {
            self.queues.sq.sync();
            self.enter(0);
        }
    }

    fn enter(&mut self, want: u32) {
        let submit = self.queues.sq.len() as u32;
        // SAFETY: no argument block is passed; the flags only ask to run completions, which is always allowed.
        let entered =
            unsafe { self.queues.submitter.enter::<libc::sigset_t>(submit, want, EnterFlags::GETEVENTS.bits(), None) };
        self.entered(entered.map(|_| ()));
    }

    fn entered(&mut self, result: io::Result<()>) {
        self.queues.sq.sync();
        if let Err(error) = result {
            // ETIME: the timeout; EINTR: a signal; EAGAIN, EBUSY: the kernel is short of memory or of room for
            // completions at the moment. Nothing is lost in any of these cases, and the next turn enters again.
            let passing = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ETIME];
            assert!(passing.iter().any(|&e| error.raw_os_error() == Some(e)), "io_uring_enter: {error}");
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // Operations in flight read and write our memory, so they have to end first.
        let _ = self.queues.submitter.register_sync_cancel(None, types::CancelBuilder::any());
        // SAFETY: the queues are not used after this.
        unsafe { ManuallyDrop::drop(&mut self.queues) };
        // SAFETY: the box was leaked in `new`, and the queues that borrowed it are gone.
        drop(unsafe { Box::from_raw(self.uring.as_ptr()) });
    }
}

fn outcome(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno(-result))
}

fn received(token: Token, completion: &cqueue::Entry) -> Event {
    let flags = completion.flags();
    match (outcome(completion.result()), cqueue::buffer_select(flags)) {
        (Ok(length), Some(id)) if length > 0 => {
            Event::Received { token, buffer: Buffer::new(id, length), armed: cqueue::more(flags) }
        }
        (Ok(_), _) => Event::ReceiveEnded { token, errno: None },
        (Err(errno), _) => Event::ReceiveEnded { token, errno: Some(errno) },
    }
}

fn accepted(listener: u32, completion: &cqueue::Entry) -> Event {
    match outcome(completion.result()) {
        Ok(fd) => {
            // SAFETY: the kernel just made this descriptor for us; nothing else owns it.
            let socket = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
            Event::Accepted { listener, socket, armed: cqueue::more(completion.flags()) }
        }
        Err(errno) => Event::AcceptFailed { listener, errno },
    }
}

#[cfg(test)]
mod tests;
