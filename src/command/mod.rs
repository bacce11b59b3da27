//! What clients ask and what they are told, independent of the protocol that carried it.
//!
//! A [`Request`] is one operation on one key: a multi-get is as many requests as it has keys. The bytes in it are of
//! type `B`: slices of the receive buffer that it was parsed from, [`Span`]s once it travels to another shard.

#![forbid(unsafe_code)]

pub mod args;
pub mod table;

pub use args::Args;
pub use table::Command;

use crate::eviction::Eviction;
use std::ops::Range;

/// Databases of a node.
pub const DATABASES: usize = 16;

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

/// On which side a value grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// prepend
    Front,
    /// append
    Back,
}

/// What a request carries of the client that sent it, wherever it is executed.
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
    /// What to do with it.
    pub operation: Operation<B>,
    /// Whose it is.
    pub session: Session,
}

/// What a client asks of the owner of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<B> {
    /// One key of a get.
    Get {
        /// Reply with versions.
        versions: bool,
        /// Change the expiry of the item found.
        touch: Option<Expiry>,
        /// The first key of its command.
        first: bool,
        /// The last key of its command: the reply ends here.
        last: bool,
    },
    /// Store a value, if the condition holds.
    Store {
        /// When to store.
        condition: Condition,
        /// The client's 32 bits.
        flags: u32,
        /// When it expires.
        expiry: Expiry,
        /// What to store.
        value: B,
    },
    /// Add bytes to an end of the value, if the key exists.
    Extend {
        /// Which end.
        end: End,
        /// What to add.
        value: B,
        /// The longest that the whole value may become, in bytes.
        bytes_max: u32,
    },
    /// Refuse a value that is too long, and delete the key's old value if the store would have replaced it.
    RefuseTooLarge {
        /// Whether to delete the old value.
        drop_old: bool,
    },
    /// Remove the key.
    Delete,
    /// Add to the decimal number stored, modulo 2^64, or subtract from it down to 0.
    Arithmetic {
        /// Subtract.
        decrement: bool,
        /// How much.
        delta: u64,
    },
    /// Change when the key expires.
    Touch {
        /// To when.
        expiry: Expiry,
    },
    /// A command of RESP.
    Call(Call<B>),
}

/// A command of memcached's protocol without a key: the client's own shard executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Change every shard's engine.
    EveryShard(Administration),
    /// Counters and settings of the node.
    Stats(StatsTopic),
    /// The server's version.
    Version,
    /// Accepted and without effect.
    Verbosity,
    /// A command that could not be parsed: the reply is this error.
    Invalid(Failure),
}

/// A change to the engine of every shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administration {
    /// Remove everything.
    Flush {
        /// When; `Never` means at once.
        delay: Expiry,
    },
    /// Switch to another eviction policy.
    SetEviction(Eviction),
    /// Limit each shard to this many bytes.
    SetMemory(u64),
    /// Change up to which sizes collections are reported as compactly encoded.
    SetEncodingLimits(EncodingLimits),
}

/// One shard's or one key's share of a reply that is merged from several (`Merge`). Its bytes, where it has some, lie
/// in the buffer that it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A number.
    Count(i64),
    /// This many elements of an array; the bytes are their encodings.
    Elements(u64),
    /// A string: the bytes.
    Text,
    /// No string.
    Nothing,
    /// Success without a value.
    Done,
    /// An error: the bytes are its text, with its code.
    Error,
}

/// A command of RESP, with the arguments after its name as they were sent ([`Args`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<B> {
    /// Which one.
    pub command: Command,
    /// The number of arguments.
    pub count: u32,
    /// The arguments, encoded as [`Args`].
    pub args: B,
}

/// Up to which size OBJECT ENCODING reports a collection as compactly encoded: Redis's settings of the same names. They
/// do not affect its layout in memory.
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

/// When an item expires, as the client said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Not at all.
    Never,
    /// At once.
    Now,
    /// So many seconds after the command is executed.
    AfterSeconds(u32),
    /// At a time in seconds since the Unix epoch.
    AtSeconds(u64),
}

impl Expiry {
    /// The time of expiry, if there is one.
    pub fn resolve(self, now: UnixMs) -> Option<UnixMs> {
        match self {
            Self::Never => None,
            Self::Now => Some(0),
            // `now` is the start of a millisecond, of which some has passed: counted from its end, nothing expires
            // early.
            Self::AfterSeconds(seconds) => Some(now + 1 + u64::from(seconds) * 1000),
            Self::AtSeconds(seconds) => Some(seconds.saturating_mul(1000)),
        }
    }
}

/// Which statistics.
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
    /// stats items, slabs, sizes: no size classes exist in this engine
    Empty,
}

/// What a client is told of a value besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueHead<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The client's 32 bits.
    pub flags: u32,
    /// The version, where it was asked for.
    pub version: Option<u64>,
    /// The reply of the command ends here.
    pub last: bool,
}

/// What a client is told. Bytes are borrowed from the engine and from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// One key of a get was found.
    Value {
        /// What is said of it.
        head: ValueHead<'a>,
        /// The value.
        value: &'a [u8],
    },
    /// One key of a get was not found.
    Miss {
        /// The reply of the command ends here.
        last: bool,
    },
    /// The value is stored.
    Stored,
    /// The condition did not hold.
    NotStored,
    /// The version was another.
    Exists,
    /// There is no such key.
    NotFound,
    /// The key is removed.
    Deleted,
    /// The expiry is changed.
    Touched,
    /// The number now stored.
    Number(u64),
    /// Done.
    Ok,
    /// The server's version.
    Version,
    /// It did not work.
    Failed(Failure),
}

/// Why a request did not work. Protocols have their own arguments for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No such command, or too few arguments.
    Unknown,
    /// An argument is malformed, or a key too long.
    BadFormat,
    /// A value is not followed by the end of its line.
    BadDataChunk,
    /// An expiry is not a number.
    InvalidExpiry,
    /// A delta is not a number.
    InvalidDelta,
    /// There is no such eviction policy.
    InvalidEviction,
    /// Memory is full, and nothing may be evicted.
    OutOfMemory,
    /// What is stored is not a number.
    NotANumber,
    /// delete has an argument that it does not know.
    DeleteUsage,
    /// The key has a value of another type.
    WrongType,
    /// The value is too long.
    TooLarge,
    /// shutdown is not for clients.
    ShutdownDisabled,
}

/// Bytes in a buffer that travels with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: u32,
    to: u32,
}

impl Span {
    /// Appends bytes to a buffer.
    #[inline]
    pub fn append(bytes: &[u8], buffer: &mut Vec<u8>) -> Self {
        let from = buffer.len();
        buffer.extend_from_slice(bytes);
        let narrow = |n: usize| u32::try_from(n).expect("a batch is bounded well below 4 GiB");
        Self { from: narrow(from), to: narrow(buffer.len()) }
    }

    /// Where they are.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.from as usize..self.to as usize
    }

    /// Those that follow the first `count`.
    pub fn behind(self, count: usize) -> Self {
        debug_assert!(count <= self.range().len());
        Self { from: self.from + count as u32, ..self }
    }
}

impl<B: Copy> Request<B> {
    /// The request with its bytes elsewhere: `bytes` copies or borrows them.
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
