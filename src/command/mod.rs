//! What clients ask and what they are told, independent of the protocol that carried it.
//!
//! A [`Request`] is one operation on at most one key: a multi-get is as many requests as it has keys. The bytes in it are
//! of type `B`: slices of the receive buffer where it was parsed, [`Span`]s where it travels to another shard.

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

/// One operation on at most one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<B> {
    /// The key; empty where the operation has none.
    pub key: B,
    /// What to do.
    pub operation: Operation<B>,
    /// The client wants no reply.
    pub noreply: bool,
}

/// What to do with a key, or with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<B> {
    /// One key of a get.
    Get {
        /// Show versions.
        versions: bool,
        /// Change the expiry of what is found.
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
    /// Add bytes to an end of the value, if there is one.
    Extend {
        /// Which end.
        end: End,
        /// What to add.
        value: B,
        /// How long the whole may become.
        bytes_max: u32,
    },
    /// Refuse a value that is too long, and drop the key's old value where the store would have replaced it.
    RefuseTooLarge {
        /// Whether the old value goes.
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
    /// A command of RESP that concerns a key.
    Call(Call<B>),
    /// The head of a command of RESP that is taken apart key by key: so many will come.
    Split {
        /// Which one.
        command: Command,
        /// How many keys.
        keys: u32,
        /// The client understands RESP3.
        resp3: bool,
    },
    /// A command of RESP that concerns no key, with its name: its client's shard answers it.
    Local {
        /// The arguments, the name included.
        args: B,
        /// How many there are.
        count: u32,
    },
    /// Remove everything on every shard.
    FlushAll {
        /// When; `Never` means at once.
        delay: Expiry,
    },
    /// Put another eviction policy in charge on every shard.
    SetEviction(Eviction),
    /// Bound every shard by so many bytes.
    SetMemory(u64),
    /// Change which collections are called compact, on every shard.
    SetEncodingLimits(EncodingLimits),
    /// CLIENT LIST or CLIENT KILL, of a shard's clients: the arguments after CLIENT.
    Clients {
        /// The arguments.
        args: B,
        /// How many there are.
        count: u32,
    },
    /// Counters and settings of the node.
    Stats(StatsTopic),
    /// The server's version.
    Version,
    /// Accepted and without effect.
    Verbosity,
    /// A command that could not be understood: only its reply is left of it.
    Invalid(Failure),
}

/// A command of RESP, with the arguments after its name as they were sent ([`Args`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<B> {
    /// Which one.
    pub command: Command,
    /// The client understands RESP3.
    pub resp3: bool,
    /// How many arguments there are.
    pub count: u32,
    /// The arguments.
    pub args: B,
}

/// Up to which size clients are told that a collection is compact: Redis's settings of the same names. They say nothing
/// about how it lies in memory.
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
            // `now` is the start of a millisecond, of which some has passed: counted from its end, nothing expires early.
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
    /// The same request with its bytes elsewhere.
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
            Operation::Call(Call { command, resp3, count, args }) => {
                Operation::Call(Call { command, resp3, count, args: bytes(args) })
            }
            Operation::Split { command, keys, resp3 } => Operation::Split { command, keys, resp3 },
            Operation::Local { args, count } => Operation::Local { args: bytes(args), count },
            Operation::FlushAll { delay } => Operation::FlushAll { delay },
            Operation::SetEviction(eviction) => Operation::SetEviction(eviction),
            Operation::SetMemory(bytes) => Operation::SetMemory(bytes),
            Operation::SetEncodingLimits(encoding_limits) => Operation::SetEncodingLimits(encoding_limits),
            Operation::Clients { args, count } => Operation::Clients { args: bytes(args), count },
            Operation::Stats(topic) => Operation::Stats(topic),
            Operation::Version => Operation::Version,
            Operation::Verbosity => Operation::Verbosity,
            Operation::Invalid(failure) => Operation::Invalid(failure),
        };
        Request { key, operation, noreply: self.noreply }
    }
}

impl<B> Operation<B> {
    /// True if it concerns a key, whose owner executes it.
    #[inline]
    pub fn has_key(&self) -> bool {
        match self {
            Self::Get { .. }
            | Self::Store { .. }
            | Self::Extend { .. }
            | Self::RefuseTooLarge { .. }
            | Self::Delete
            | Self::Arithmetic { .. }
            | Self::Touch { .. }
            | Self::Call(_) => true,
            Self::Split { .. }
            | Self::Local { .. }
            | Self::FlushAll { .. }
            | Self::SetEviction(_)
            | Self::SetMemory(_)
            | Self::SetEncodingLimits(_)
            | Self::Clients { .. }
            | Self::Stats(_)
            | Self::Version
            | Self::Verbosity
            | Self::Invalid(_) => false,
        }
    }
}
