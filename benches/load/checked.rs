//! Sets and gets over memcached's text protocol or RESP. Values are a function of the key, so every reply byte is
//! checked.

use crate::driver::Load;
use crate::{below, fail, seed, xorshift};
use clap::ValueEnum;
use std::io::{Read, Write};
use std::net::TcpStream;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Protocol {
    Memcached,
    Resp,
}

/// One request in flight: the number of its first key, and whether it is a set.
#[derive(Clone, Copy)]
pub struct Expected {
    key: u32,
    set: bool,
}

pub struct Checked {
    protocol: Protocol,
    keys: u32,
    value_bytes: usize,
    keys_per_get: u32,
    sets_percent: u8,
    pattern: Vec<u8>,
    random: u64,
}

const KEY_BYTES: usize = 16;
const PATTERN_OFFSETS: u32 = 64;
const PRELOAD_BATCH_KEYS: u32 = 500;

impl Checked {
    pub fn new(protocol: Protocol, keys: u32, value_bytes: usize, keys_per_get: u32, sets_percent: u8) -> Self {
        if value_bytes < KEY_BYTES {
            fail(2, &format!("--val {value_bytes}: at least {KEY_BYTES}, since a value begins with its key"));
        }
        let mut x = 88_172_645_463_325_252_u64;
        let pattern =
            (0..value_bytes + PATTERN_OFFSETS as usize).map(|_| b'!' + (xorshift(&mut x) >> 33) as u8 % 90).collect();
        Self { protocol, keys, value_bytes, keys_per_get, sets_percent, pattern, random: seed() }
    }

    /// Stores every key once.
    pub fn preload(&self, port: u16) {
        let failed = |error: std::io::Error| -> ! { fail(4, &format!("preload: {error}")) };
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| failed(error));
        let mut reply = Vec::new();
        for first in (0..self.keys).step_by(PRELOAD_BATCH_KEYS as usize) {
            let mut requests = Vec::new();
            let keys = first..self.keys.min(first + PRELOAD_BATCH_KEYS);
            let expected: Vec<Expected> = keys.map(|key| self.push_set(key, &mut requests)).collect();
            let length = self.stored().len();
            stream.write_all(&requests).unwrap_or_else(|error| failed(error));
            reply.resize(length * expected.len(), 0);
            stream.read_exact(&mut reply).unwrap_or_else(|error| failed(error));
            for (bytes, expected) in reply.chunks(length).zip(expected) {
                self.checked(bytes, expected).unwrap_or_else(|message| fail(3, &message));
            }
        }
    }

    /// The reply to a set.
    fn stored(&self) -> &'static [u8] {
        match self.protocol {
            Protocol::Memcached => b"STORED\r\n",
            Protocol::Resp => b"+OK\r\n",
        }
    }

    fn key(&self, number: u32) -> [u8; KEY_BYTES] {
        let mut key = *b"key:000000000000";
        let mut rest = number;
        for digit in key[4..].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        key
    }

    /// What follows the key at the start of a value.
    fn filler(&self, number: u32) -> &[u8] {
        let at = (number % PATTERN_OFFSETS) as usize;
        &self.pattern[at..at + self.value_bytes - KEY_BYTES]
    }

    fn push_set(&self, number: u32, out: &mut Vec<u8>) -> Expected {
        let key = self.key(number);
        match self.protocol {
            Protocol::Memcached => {
                out.extend_from_slice(b"set ");
                out.extend_from_slice(&key);
                out.extend_from_slice(b" 0 0 ");
                push_number(self.value_bytes, out);
            }
            Protocol::Resp => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
                out.extend_from_slice(&key);
                out.extend_from_slice(b"\r\n$");
                push_number(self.value_bytes, out);
            }
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&key);
        out.extend_from_slice(self.filler(number));
        out.extend_from_slice(b"\r\n");
        Expected { key: number, set: true }
    }

    fn push_get(&self, number: u32, out: &mut Vec<u8>) -> Expected {
        let numbers = (0..self.keys_per_get).map(|i| (number + i) % self.keys);
        match (self.protocol, self.keys_per_get) {
            (Protocol::Memcached, _) => {
                out.extend_from_slice(b"get");
                for n in numbers {
                    out.push(b' ');
                    out.extend_from_slice(&self.key(n));
                }
                out.extend_from_slice(b"\r\n");
            }
            (Protocol::Resp, 1) => {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n");
                out.extend_from_slice(&self.key(number));
                out.extend_from_slice(b"\r\n");
            }
            (Protocol::Resp, count) => {
                out.push(b'*');
                push_number(count as usize + 1, out);
                out.extend_from_slice(b"\r\n$4\r\nMGET\r\n");
                for n in numbers {
                    out.extend_from_slice(b"$16\r\n");
                    out.extend_from_slice(&self.key(n));
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        Expected { key: number, set: false }
    }

    fn checked(&self, bytes: &[u8], expected: Expected) -> Result<Option<usize>, String> {
        let mut reader = Reader { bytes, at: 0 };
        let matched = match expected.set {
            true => reader.literal(self.stored()),
            false => self.check_get(&mut reader, expected.key),
        };
        match matched {
            Ok(()) => Ok(Some(reader.at)),
            Err(Mismatch::Incomplete) => Ok(None),
            Err(Mismatch::Wrong) => {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
                Err(format!("wrong reply for key {} (set: {}): {shown:?}", expected.key, expected.set))
            }
        }
    }

    fn check_get(&self, reader: &mut Reader, first: u32) -> Result<(), Mismatch> {
        if self.protocol == Protocol::Resp && self.keys_per_get > 1 {
            reader.literal(b"*")?;
            reader.number(self.keys_per_get as usize)?;
            reader.literal(b"\r\n")?;
        }
        for i in 0..self.keys_per_get {
            let number = (first + i) % self.keys;
            let key = self.key(number);
            if self.protocol == Protocol::Memcached {
                reader.literal(b"VALUE ")?;
                reader.literal(&key)?;
                reader.literal(b" 0 ")?;
            } else {
                reader.literal(b"$")?;
            }
            reader.number(self.value_bytes)?;
            reader.literal(b"\r\n")?;
            reader.literal(&key)?;
            reader.literal(self.filler(number))?;
            reader.literal(b"\r\n")?;
        }
        if self.protocol == Protocol::Memcached { reader.literal(b"END\r\n") } else { Ok(()) }
    }
}

impl Load for Checked {
    type Expected = Expected;

    fn push(&mut self, out: &mut Vec<u8>) -> Option<Expected> {
        let key = below(&mut self.random, self.keys);
        let is_set = (self.random >> 8) % 100 < u64::from(self.sets_percent);
        Some(if is_set { self.push_set(key, out) } else { self.push_get(key, out) })
    }

    fn check(&mut self, bytes: &[u8], expected: Expected) -> Result<Option<usize>, String> {
        self.checked(bytes, expected)
    }
}

enum Mismatch {
    Incomplete,
    Wrong,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn literal(&mut self, wanted: &[u8]) -> Result<(), Mismatch> {
        let rest = &self.bytes[self.at..];
        if let Some(found) = rest.get(..wanted.len()) {
            self.at += wanted.len();
            return if found == wanted { Ok(()) } else { Err(Mismatch::Wrong) };
        }
        if wanted.starts_with(rest) { Err(Mismatch::Incomplete) } else { Err(Mismatch::Wrong) }
    }

    fn number(&mut self, wanted: usize) -> Result<(), Mismatch> {
        self.literal(itoa::Buffer::new().format(wanted).as_bytes())
    }
}

fn push_number(n: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}
