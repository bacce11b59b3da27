//! A load generator over RESP for `scripts/collections`: redis-benchmark's workload, with a client faster than the
//! servers.
//!
//! ```text
//! cargo bench --bench load -- --port 6379 --conns 50 --depth 16 --requests 300000 LPUSH list element:__rand_int__
//! ```
//!
//! Closed loop: each connection keeps `--depth` requests in flight. In each request, `__rand_int__` is replaced by a
//! random number of 12 digits. An error reply, a reply of another type than the first (except null), or an excess byte
//! ends the run with status 1. Prints requests per second.
#![allow(missing_docs)]

use clap::Parser;
use io_uring::{IoUring, opcode, types};
use std::fmt::Write as _;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::exit;
use std::time::Instant;

const PLACEHOLDER: &str = "__rand_int__";
const RECEIVED_BYTES: usize = 64 << 10;
/// Lowest bit of the user data; the others hold the connection's number.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;

#[derive(Parser)]
struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    conns: u32,
    /// Requests in flight per connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    depth: u64,
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Different random numbers
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// The command
    #[arg(required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

/// The encoded command, and the offsets of its random numbers.
struct Command {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Command {
    fn new(words: &[String]) -> Self {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            write!(text, "${}\r\n{word}\r\n", word.len()).expect("memory");
        }
        let places = text.match_indices(PLACEHOLDER).map(|(at, _)| at).collect();
        Self { bytes: text.into_bytes(), places }
    }

    fn push(&self, random: &mut u64, keys: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for place in &self.places {
            let mut number = ((u128::from(xorshift(random)) * u128::from(keys)) >> 64) as u64;
            for digit in out[start + place..][..PLACEHOLDER.len()].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
    }
}

/// `sending` and `receiving` belong to the kernel while an operation is in flight.
struct Connection {
    stream: TcpStream,
    pending: Vec<u8>,
    sending: Vec<u8>,
    sent: usize,
    is_sending: bool,
    receiving: Box<[u8]>,
    /// The bytes of an incomplete reply.
    partial: Vec<u8>,
    in_flight: u64,
}

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| fail(&format!("connect: {error}")));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self {
            stream,
            pending: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            is_sending: false,
            receiving: vec![0; RECEIVED_BYTES].into(),
            partial: Vec::new(),
            in_flight: 0,
        }
    }

    /// Takes `length` received bytes; returns how many replies they complete.
    fn consume(&mut self, length: usize, kind: &mut Option<u8>) -> u64 {
        self.partial.extend_from_slice(&self.receiving[..length]);
        let (mut at, mut replies) = (0, 0);
        while let Some(reply) = reply_length(&self.partial[at..]) {
            let first = self.partial[at];
            let is_null = self.partial[at..].starts_with(b"$-1");
            let is_kind = is_null || *kind.get_or_insert(first) == first;
            if first == b'-' || !is_kind || replies == self.in_flight {
                fail(&format!("unexpected reply {:?}", String::from_utf8_lossy(&self.partial[at..at + reply])));
            }
            at += reply;
            replies += 1;
        }
        self.partial.drain(..at);
        self.in_flight -= replies;
        replies
    }
}

/// Length of the first reply in these bytes, if it is complete. Handles bulk strings, arrays of them, and lines.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = memchr::memchr(b'\n', bytes)? + 1;
    let number = || -> i64 {
        let digits = bytes.get(1..line - 2).and_then(|digits| str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| fail("a length that is no number"))
    };
    match bytes[0] {
        b'$' => {
            let whole = line + usize::try_from(number()).map_or(0, |length| length + 2);
            (bytes.len() >= whole).then_some(whole)
        }
        b'*' => (0..number()).try_fold(line, |at, _| Some(at + reply_length(&bytes[at..])?)),
        _ => Some(line),
    }
}

fn main() {
    let options = Options::parse();
    let command = Command::new(&options.words);
    let mut random = 0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id());
    let mut unsent = options.requests;
    let mut uring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(2 * options.conns.next_power_of_two())
        .unwrap_or_else(|error| fail(&format!("io_uring: {error}")));
    let mut connections: Vec<Connection> = (0..options.conns).map(|_| Connection::open(options.port)).collect();

    let begun = Instant::now();
    for (number, connection) in connections.iter_mut().enumerate() {
        refill(connection, options.depth, &mut unsent, |out| command.push(&mut random, options.keys, out));
        receive(&mut uring, connection, number);
        send(&mut uring, connection, number);
    }
    let (mut done, mut kind, mut completions) = (0, None, Vec::new());
    while done < options.requests {
        uring.submit_and_wait(1).unwrap_or_else(|error| fail(&format!("io_uring_enter: {error}")));
        completions.extend(uring.completion().map(|entry| (entry.user_data(), entry.result())));
        for (data, result) in completions.drain(..) {
            let number = (data >> 1) as usize;
            let connection = &mut connections[number];
            let length = usize::try_from(result).ok().filter(|&length| length > 0);
            let length = length.unwrap_or_else(|| fail(&format!("the connection ended: {result}")));
            if data & 1 == SEND {
                connection.is_sending = false;
                connection.sent += length;
            } else {
                let replies = connection.consume(length, &mut kind);
                done += replies;
                refill(connection, replies, &mut unsent, |out| command.push(&mut random, options.keys, out));
                receive(&mut uring, connection, number);
            }
            send(&mut uring, connection, number);
        }
    }
    println!("{:.0} requests per second", options.requests as f64 / begun.elapsed().as_secs_f64());
    // Receives are still in flight, so nothing is freed.
    exit(0);
}

fn refill(connection: &mut Connection, count: u64, unsent: &mut u64, mut push: impl FnMut(&mut Vec<u8>)) {
    let count = count.min(*unsent);
    *unsent -= count;
    connection.in_flight += count;
    (0..count).for_each(|_| push(&mut connection.pending));
}

fn receive(uring: &mut IoUring, connection: &mut Connection, number: usize) {
    let buffer = &mut connection.receiving;
    let descriptor = types::Fd(connection.stream.as_raw_fd());
    let operation = opcode::Recv::new(descriptor, buffer.as_mut_ptr(), buffer.len() as u32).build();
    submit(uring, &operation.user_data((number as u64) << 1 | RECEIVE));
}

/// Sends the pending bytes, unless a send is in flight.
fn send(uring: &mut IoUring, connection: &mut Connection, number: usize) {
    if connection.is_sending {
        return;
    }
    if connection.sent == connection.sending.len() {
        connection.sending.clear();
        connection.sent = 0;
        std::mem::swap(&mut connection.sending, &mut connection.pending);
    }
    let rest = &connection.sending[connection.sent..];
    if rest.is_empty() {
        return;
    }
    connection.is_sending = true;
    let descriptor = types::Fd(connection.stream.as_raw_fd());
    let operation = opcode::Send::new(descriptor, rest.as_ptr(), rest.len() as u32).flags(libc::MSG_NOSIGNAL).build();
    submit(uring, &operation.user_data((number as u64) << 1 | SEND));
}

fn submit(uring: &mut IoUring, operation: &io_uring::squeue::Entry) {
    // SAFETY: `sending` and `receiving` live as long as the process, and are left alone until their operation has
    // completed. One of each per connection is under way at most, and the queue has room for two.
    unsafe { uring.submission().push(operation) }.expect("room in the queue");
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn fail(message: &str) -> ! {
    eprintln!("load: {message}");
    exit(1)
}
