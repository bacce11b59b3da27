//! The closed loop: connections over one uring, one receive and at most one send in flight on each.

use crate::fail;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// What is sent, and what must come back.
pub trait Load {
    /// What identifies the reply to a request.
    type Expected: Copy;

    /// Appends the next request to `out`; none when all have been sent.
    fn push(&mut self, out: &mut Vec<u8>) -> Option<Self::Expected>;

    /// Length of the reply at the start of `bytes` if it is complete; an error says what did not match.
    fn check(&mut self, bytes: &[u8], expected: Self::Expected) -> Result<Option<usize>, String>;
}

/// Lowest bit of a completion's user data; the others are the index of the connection.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 16 * 1024;

/// Connections, each with `depth` requests in flight.
pub struct Driver<L: Load> {
    uring: IoUring,
    buffers: BufferRing,
    connections: Vec<Connection<L::Expected>>,
    completions: Vec<(u64, i32, u32)>,
    load: L,
}

impl<L: Load> Driver<L> {
    /// Opens the connections and sends their first requests.
    pub fn connect(port: u16, conns: u32, depth: u32, load: L) -> Self {
        let uring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(32_768)
            .build(4096)
            .unwrap_or_else(|error| fail(4, &format!("io_uring: {error}")));
        let buffers = BufferRing::register(&uring);
        let connections = (0..conns).map(|_| Connection::open(port)).collect();
        let mut driver = Self { uring, buffers, connections, completions: Vec::new(), load };
        for (index, connection) in driver.connections.iter_mut().enumerate() {
            connection.refill(u64::from(depth), Instant::now(), &mut driver.load);
            push(&mut driver.uring, &connection.receive(index));
            send(&mut driver.uring, connection, index);
        }
        driver
    }

    /// Submits what is queued and waits for a completion; returns the time then.
    pub fn wait(&mut self) -> Instant {
        self.uring.submit_and_wait(1).unwrap_or_else(|error| fail(4, &format!("io_uring_enter: {error}")));
        Instant::now()
    }

    /// Processes all completions: checks replies, and sends a request for each. Returns the number of replies.
    pub fn process(&mut self, now: Instant, record: &mut dyn FnMut(Duration)) -> u64 {
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.uring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        let mut replies = 0;
        for (data, result, flags) in completions.drain(..) {
            let index = (data >> 1) as usize;
            let connection = &mut self.connections[index];
            if data & 1 == SEND {
                let length = usize::try_from(result);
                connection.sent += length.unwrap_or_else(|_| fail(4, &format!("send failed: {result}")));
                connection.is_sending = false;
            } else {
                // Without a free buffer the receive ends, and is started again below.
                if result != -libc::ENOBUFS {
                    let length = usize::try_from(result).ok().filter(|&length| length > 0);
                    let length = length.unwrap_or_else(|| fail(4, &format!("connection lost: {result}")));
                    let buffer = cqueue::buffer_select(flags).expect("a receive selects a buffer");
                    let received = self.buffers.bytes(buffer, length);
                    let whole = connection.consume(received, now, &mut self.load, record);
                    self.buffers.give_back(buffer);
                    connection.refill(whole, now, &mut self.load);
                    replies += whole;
                }
                if !cqueue::more(flags) {
                    push(&mut self.uring, &connection.receive(index));
                }
            }
            send(&mut self.uring, connection, index);
        }
        self.buffers.publish();
        self.completions = completions;
        replies
    }
}

/// `sending` belongs to the kernel while a send is in flight.
struct Connection<E> {
    stream: TcpStream,
    /// Received bytes that do not yet make a complete reply
    partial: Vec<u8>,
    /// Requests not yet handed to the kernel
    pending: Vec<u8>,
    sending: Vec<u8>,
    sent: usize,
    is_sending: bool,
    in_flight: VecDeque<(E, Instant)>,
}

impl<E: Copy> Connection<E> {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port));
        let stream = stream.unwrap_or_else(|error| fail(4, &format!("connect: {error}")));
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self {
            stream,
            partial: Vec::new(),
            pending: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            is_sending: false,
            in_flight: VecDeque::new(),
        }
    }

    fn receive(&self, index: usize) -> squeue::Entry {
        let receive = opcode::RecvMulti::new(types::Fd(self.stream.as_raw_fd()), 0);
        receive.build().user_data((index as u64) << 1 | RECEIVE)
    }

    fn refill(&mut self, count: u64, now: Instant, load: &mut impl Load<Expected = E>) {
        for _ in 0..count {
            let Some(expected) = load.push(&mut self.pending) else { break };
            self.in_flight.push_back((expected, now));
        }
    }

    /// Checks the complete replies; returns how many there were.
    fn consume(
        &mut self,
        received: &[u8],
        now: Instant,
        load: &mut impl Load<Expected = E>,
        record: &mut dyn FnMut(Duration),
    ) -> u64 {
        let is_direct = self.partial.is_empty();
        if !is_direct {
            self.partial.extend_from_slice(received);
        }
        let bytes = if is_direct { received } else { &self.partial[..] };
        let (mut at, mut replies) = (0, 0);
        while at < bytes.len() {
            let Some(&(expected, since)) = self.in_flight.front() else { fail(3, "a reply without a request") };
            match load.check(&bytes[at..], expected) {
                Ok(Some(length)) => at += length,
                Ok(None) => break,
                Err(message) => fail(3, &message),
            }
            self.in_flight.pop_front();
            record(now - since);
            replies += 1;
        }
        if is_direct {
            self.partial.extend_from_slice(&received[at..]);
        } else {
            self.partial.drain(..at);
        }
        replies
    }
}

/// Starts the next send of a connection unless one is in flight.
fn send<E>(uring: &mut IoUring, connection: &mut Connection<E>, index: usize) {
    if connection.is_sending {
        return;
    }
    if connection.sent == connection.sending.len() {
        connection.sending.clear();
        connection.sent = 0;
        std::mem::swap(&mut connection.sending, &mut connection.pending);
        if connection.sending.is_empty() {
            return;
        }
    }
    connection.is_sending = true;
    let rest = &connection.sending[connection.sent..];
    let descriptor = types::Fd(connection.stream.as_raw_fd());
    let operation = opcode::Send::new(descriptor, rest.as_ptr(), rest.len() as u32).flags(libc::MSG_NOSIGNAL);
    push(uring, &operation.build().user_data((index as u64) << 1 | SEND));
}

fn push(uring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: the bytes of a send stay in `sending`, unchanged, until its completion; receives use the registered
    // buffers.
    while unsafe { uring.submission().push(entry) }.is_err() {
        uring.submit().unwrap_or_else(|error| fail(4, &format!("io_uring_enter: {error}")));
    }
}

/// Receive buffers shared with the kernel, buffer group 0.
struct BufferRing {
    entries: *mut types::BufRingEntry,
    base: *mut u8,
    tail: u16,
}

impl BufferRing {
    fn register(uring: &IoUring) -> Self {
        let entries = map(BUFFERS as usize * size_of::<types::BufRingEntry>()).cast::<types::BufRingEntry>();
        let base = map(BUFFERS as usize * BUFFER_BYTES);
        // SAFETY: the mapping is page-aligned, as large as the entries, and lives as long as the process.
        let registered = unsafe { uring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, 0, 0) };
        registered.unwrap_or_else(|error| fail(4, &format!("buffer ring: {error}")));
        let mut ring = Self { entries, base, tail: 0 };
        (0..BUFFERS).for_each(|buffer| ring.give_back(buffer));
        ring.publish();
        ring
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        // SAFETY: the kernel has written `length` bytes to this buffer and leaves it alone until it is given back.
        unsafe { std::slice::from_raw_parts(self.base.add(buffer as usize * BUFFER_BYTES), length) }
    }

    fn give_back(&mut self, buffer: u16) {
        // SAFETY: the index is masked to the ring; the kernel does not read entries past the published tail.
        let entry = unsafe { &mut *self.entries.add((self.tail & (BUFFERS - 1)) as usize) };
        entry.set_addr(self.base as u64 + u64::from(buffer) * BUFFER_BYTES as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail lies inside the first entry of the mapping, and only this writes to it.
        unsafe { (*types::BufRingEntry::tail(self.entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release) }
    }
}

fn map(bytes: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new anonymous mapping; the result is checked.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    at.cast()
}
