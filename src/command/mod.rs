//! Requests and replies, independent of the protocol that carries them.
//!
//! A [`Request`] is one operation on one key: a multi-get becomes one request per key. The bytes in it are of type `B`:
//! slices of the receive buffer that it was parsed from, or [`Span`]s once it travels to another shard.

#![forbid(unsafe_code)]

pub mod args;
pub mod table;

pub use args::Args;
pub use table::Command;

use crate::eviction::Eviction;
use std::ops::Range;

/// The number of databases of a node.
pub const DATABASES: usize = 16;

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

/// The end of a value to which bytes are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The beginning, for prepend.
    Front,
    /// The end, for append.
    Back,
}

/// The client's state that a request carries, wherever it is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The database selected, below [`DATABASES`]; memcached's protocol has only 0.
    pub database: u8,
    /// Replies are encoded as RESP3 instead of RESP2.
    pub resp3: bool,
    /// The reply is suppressed: memcached's `noreply`, or CLIENT REPLY.
    pub noreply: bool,
}

/// One operation on one key, executed by the shard that owns the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<B> {
    /// The key; empty for a command of RESP that concerns a whole shard.
    pub key: B,
    /// The operation on the key.
    pub operation: Operation<B>,
    /// The session of the client that sent it.
    pub session: Session,
}

/// An operation that a client asks of the owner of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<B> {
    /// One key of a get.
    Get {
        /// Replies with versions.
        versions: bool,
        /// The new expiry of an item found, for gat and gats.
        touch: Option<Expiry>,
        /// True for the first key of its command.
        first: bool,
        /// True for the last key of its command: the reply ends with it.
        last: bool,
    },
    /// Stores a value if the condition holds.
    Store {
        /// The condition.
        condition: Condition,
        /// The client's flags, which are opaque.
        flags: u32,
        /// When the item expires.
        expiry: Expiry,
        /// The value to store.
        value: B,
    },
    /// Adds bytes to an end of the value, if the key exists.
    Extend {
        /// Which end.
        end: End,
        /// The bytes to add.
        value: B,
        /// The most bytes that the resulting value may have.
        bytes_max: u32,
    },
    /// Rejects a value that is too long, and deletes the key's old value if the store would have replaced it.
    RefuseTooLarge {
        /// Whether to delete the old value.
        drop_old: bool,
    },
    /// Removes the key.
    Delete,
    /// Adds to the decimal number stored, modulo 2^64, or subtracts from it, stopping at 0.
    Arithmetic {
        /// Subtracts instead of adding.
        decrement: bool,
        /// The amount.
        delta: u64,
    },
    /// Changes when the key expires.
    Touch {
        /// The new expiry.
        expiry: Expiry,
    },
    /// A command of RESP.
    Call(Call<B>),
}

/// A command of memcached's protocol without a key. The client's own shard executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Changes every shard's engine.
    EveryShard(Administration),
    /// Reports counters and settings of the node.
    Stats(StatsTopic),
    /// Reports the server's version.
    Version,
    /// memcached's `verbosity`: accepted, without effect.
    Verbosity,
    /// A command that could not be parsed: the reply is this error.
    Invalid(Failure),
}

/// A change to the engine of every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administration {
    /// Removes all items.
    Flush {
        /// When to remove them; `Never` means at once.
        delay: Expiry,
    },
    /// Switches to another eviction policy.
    SetEviction(Eviction),
    /// Limits each shard's memory to this many bytes.
    SetMemory(u64),
    /// Gives free memory back to the system.
    Purge,
    /// Changes the sizes up to which collections are reported as compactly encoded.
    SetEncodingLimits(EncodingLimits),
}

/// One shard's or one key's share of a reply that is merged from several (`Merge`). Variants with bytes have written
/// them to the buffer that was passed along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A number.
    Count(i64),
    /// This many elements of an array; the bytes are their encodings.
    Elements(u64),
    /// A string, which is the bytes.
    Text,
    /// A string, which is the bytes, drawn with this rank: of several, the one of the lowest rank is the reply.
    Drawn(u64),
    /// A page of SCAN, with this many elements: the bytes are their encodings.
    Page {
        /// The number of elements.
        elements: u32,
        /// The cursor of the next page; 0 if there is none.
        next: u64,
        /// How many more elements the client would have visited.
        left: u64,
    },
    /// A missing string.
    Nothing,
    /// Success without a value.
    Done,
    /// An error: the bytes are its text, with its code.
    Error,
}

/// A command of RESP, with the arguments after its name as they were sent ([`Args`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<B> {
    /// The command.
    pub command: Command,
    /// The number of arguments.
    pub count: u32,
    /// The arguments, encoded as [`Args`].
    pub args: B,
}

/// The sizes up to which OBJECT ENCODING reports a collection as compactly encoded: the Redis settings named below.
/// They do not affect the layout in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingLimits {
    /// hash-max-listpack-entries
    pub hash_entries: u64,
    /// hash-max-listpack-value
    pub hash_value: u64,
    /// list-max-listpack-size: elements, or, negative, 4, 8, 16, 32, 64 KiB
    pub list_size: i64,
    /// set-max-intset-entries
    pub set_integers: u64,
    /// set-max-listpack-entries
    pub set_entries: u64,
    /// set-max-listpack-value
    pub set_value: u64,
    /// zset-max-listpack-entries
    pub sorted_entries: u64,
    /// zset-max-listpack-value
    pub sorted_value: u64,
}

impl Default for EncodingLimits {
    fn default() -> Self {
        Self {
            hash_entries: 512,
            hash_value: 64,
            list_size: -2,
            set_integers: 512,
            set_entries: 128,
            set_value: 64,
            sorted_entries: 128,
            sorted_value: 64,
        }
    }
}

/// When a store happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// set
    Always,
    /// add
    Absent,
    /// replace
    Present,
    /// cas: only over this version
    Version(u64),
}

/// When an item expires, as the client specified it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Not at all.
    Never,
    /// At once.
    Now,
    /// This many seconds after the command is executed.
    AfterSeconds(u32),
    /// At this Unix time, in seconds.
    AtSeconds(u64),
}

impl Expiry {
    /// The time of expiry by the shard's clock, which shows `now` and which the wall clock is ahead of by
    /// `wall_ahead_ms`; None if the item does not expire.
    pub fn resolve(self, now: UnixMs, wall_ahead_ms: i64) -> Option<UnixMs> {
        match self {
            Self::Never => None,
            Self::Now => Some(0),
            // `now` is rounded down to a millisecond. Counting from the end of that millisecond, no item expires early.
            Self::AfterSeconds(seconds) => Some(now + 1 + u64::from(seconds) * 1000),
            Self::AtSeconds(seconds) => Some(seconds.saturating_mul(1000).saturating_add_signed(-wall_ahead_ms)),
        }
    }
}

/// The topic of `stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsTopic {
    /// stats
    General,
    /// stats settings
    Settings,
    /// stats shards (Pinion's own): the general counters of each shard
    Shards,
    /// stats reset
    Reset,
    /// stats conns: the connections of all shards
    Connections,
    /// stats detail on, off: accepted, without effect
    Detail,
    /// stats items, slabs, sizes, cachedump, detail dump: there are no size classes, nor statistics by prefix
    Empty,
}

/// The attributes of a value in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueHead<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The client's flags.
    pub flags: u32,
    /// The version, if the client asked for it.
    pub version: Option<u64>,
    /// True if the reply of the command ends with this value.
    pub last: bool,
}

/// A reply. Its bytes are borrowed from the engine or from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// One key of a get was found.
    Value {
        /// The value's attributes.
        head: ValueHead<'a>,
        /// The value.
        value: &'a [u8],
    },
    /// One key of a get was not found.
    Miss {
        /// True if the reply of the command ends here.
        last: bool,
    },
    /// The value is stored.
    Stored,
    /// The condition did not hold.
    NotStored,
    /// The stored version differs from the client's.
    Exists,
    /// The key does not exist.
    NotFound,
    /// The key is removed.
    Deleted,
    /// The expiry is changed.
    Touched,
    /// The number now stored.
    Number(u64),
    /// The command succeeded.
    Ok,
    /// The server's version.
    Version,
    /// The request failed.
    Failed(Failure),
}

/// Why a request failed. Each protocol has its own text for each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command does not exist, or has too few arguments.
    Unknown,
    /// An argument is malformed, or a key is too long.
    BadFormat,
    /// Arguments of `stats cachedump` are missing.
    BadLine,
    /// `stats detail` has another argument than those that it supports.
    DetailUsage,
    /// A value is not followed by the end of its line.
    BadDataChunk,
    /// An expiry is not a number.
    InvalidExpiry,
    /// A delta is not a number.
    InvalidDelta,
    /// The eviction policy does not exist.
    InvalidEviction,
    /// Memory is full, and nothing may be evicted.
    OutOfMemory,
    /// The stored value is not a number.
    NotANumber,
    /// A delete has an argument that it does not support.
    DeleteUsage,
    /// The key has a value of another type.
    WrongType,
    /// The value is too long.
    TooLarge,
    /// Clients may not shut the server down.
    ShutdownDisabled,
}

/// A range of bytes in the buffer that travels with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: u32,
    to: u32,
}

impl Span {
    /// Appends bytes to a buffer and returns their range.
    #[inline]
    pub fn append(bytes: &[u8], buffer: &mut Vec<u8>) -> Self {
        let from = buffer.len();
        buffer.extend_from_slice(bytes);
        let narrow = |n: usize| u32::try_from(n).expect("a batch is bounded well below 4 GiB");
        Self { from: narrow(from), to: narrow(buffer.len()) }
    }

    /// The positions of the bytes in their buffer.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.from as usize..self.to as usize
    }

    /// The range without its first `count` bytes.
    pub fn behind(self, count: usize) -> Self {
        debug_assert!(count <= self.range().len());
        Self { from: self.from + count as u32, ..self }
    }
}

impl<B: Copy> Request<B> {
    /// The request with its bytes mapped by `bytes`, which copies or borrows them.
    #[inline]
    pub fn map<C>(&self, mut bytes: impl FnMut(B) -> C) -> Request<C> {
        let key = bytes(self.key);
        let operation = match self.operation {
            Operation::Get { versions, touch, first, last } => Operation::Get { versions, touch, first, last },
            Operation::Store { condition, flags, expiry, value } => {
                Operation::Store { condition, flags, expiry, value: bytes(value) }
            }
            Operation::Extend { end, value, bytes_max } => Operation::Extend { end, value: bytes(value), bytes_max },
            Operation::RefuseTooLarge { drop_old } => Operation::RefuseTooLarge { drop_old },
            Operation::Delete => Operation::Delete,
            Operation::Arithmetic { decrement, delta } => Operation::Arithmetic { decrement, delta },
            Operation::Touch { expiry } => Operation::Touch { expiry },
            Operation::Call(Call { command, count, args }) => {
                Operation::Call(Call { command, count, args: bytes(args) })
            }
        };
        Request { key, operation, session: self.session }
    }
}
