//! The parser: one command at a time from the bytes that a connection has received.
//!
//! ```text
//! *3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n      or, from people:      SET key value\r\n
//! ```
//!
//! It keeps no bytes: what it cannot use yet stays with the caller, who comes back with more, and all that a connection
//! remembers in between is a [`State`]. Two kinds of commands are not waited for to be whole: those whose value is
//! long, and those that are executed key by key anyway. All others are bounded in length.
//!
//! As Redis does it, the two bytes at the end of a line or of a string are skipped whatever they are, but for the
//! carriage return that ends a number.

use super::Writer;
use super::inline::inline;
use crate::command::table::{Handler, Merge};
use crate::command::{Args, Command};

/// Values from this length on are not waited for to be whole.
pub const UPLOAD_BYTES_MIN: usize = 16 << 10;

/// A command with a longer key than this, or more arguments behind its value, is no upload. It is an error, which is
/// told once the command is whole.
pub const UPLOAD_KEY_BYTES_MAX: usize = 3900;
const UPLOAD_ARGS_AFTER_MAX: usize = 16;

/// What a command may have in all, besides two strings of the greatest length.
const COMMAND_BYTES_MORE: usize = 1 << 20;
/// And no more than this, unless its value is streamed: it is kept until it is whole.
const COMMAND_BYTES_MAX: usize = 64 << 20;

/// Arguments of up to so many are looked at again whenever some more bytes have come; from more, a command is waited
/// for until it might be whole. So a mistake in a short one is answered at once, and a long one is not scanned for each
/// of its pieces.
const ARGS_LOOKED_AT_AGAIN: usize = 64;

/// The shortest string: `$0\r\n\r\n`.
const BULK_BYTES_MIN: usize = 6;

/// A line with a number that is longer than this has none that fits in 64 bits.
const NUMBER_LINE_BYTES_MAX: usize = 32;

/// The most arguments that a command can announce.
const ARGS_MAX: usize = i32::MAX as usize;

/// What follows a string, and a number.
const LINE_END_BYTES: usize = 2;

/// Where in the protocol a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// At the start of a command.
    #[default]
    Command,
    /// At a key of a command that is taken apart.
    Keys {
        /// The command.
        command: Command,
        /// How many keys are to come.
        left: u32,
    },
}

/// How much a client may send at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest string, in bytes.
    pub bulk_bytes_max: usize,
    /// The most arguments of a command.
    pub args_max: usize,
}

impl Limits {
    /// For clients that have to tell the password first.
    pub const UNAUTHENTICATED: Self = Self { bulk_bytes_max: 16384, args_max: 10 };

    /// For all others.
    pub const fn authenticated(bulk_bytes_max: usize) -> Self {
        Self { bulk_bytes_max, args_max: ARGS_MAX }
    }

    fn are_unauthenticated(&self) -> bool {
        self.args_max <= Self::UNAUTHENTICATED.args_max
    }

    fn too_many_args(&self, count: usize) -> ProtocolError {
        if self.are_unauthenticated() && count <= ARGS_MAX {
            ProtocolError::UnauthenticatedMultibulk
        } else {
            ProtocolError::InvalidMultibulkLength
        }
    }

    /// The longest command that is waited for to be whole.
    fn command_bytes_max(&self) -> usize {
        self.bulk_bytes_max.saturating_mul(2).saturating_add(COMMAND_BYTES_MORE).min(COMMAND_BYTES_MAX)
    }
}

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A command in the first `length` bytes.
    Command {
        /// Its arguments, the name included.
        args: Args<'a>,
        /// Bytes that it took.
        length: usize,
    },
    /// A command that was typed: a line.
    Inline {
        /// The bytes of its [`Args`], the name included.
        args: Vec<u8>,
        /// How many arguments there are.
        count: usize,
        /// Bytes that it took.
        length: usize,
    },
    /// The head of a command that is taken apart: MGET, or DEL, UNLINK, EXISTS or TOUCH with more than one key. The
    /// keys follow as they arrive, so that any number of them takes bounded memory.
    Split {
        /// The command.
        command: Command,
        /// How many keys will come.
        keys: u32,
        /// Bytes that it took.
        length: usize,
    },
    /// A key of such a command.
    Key {
        /// The command.
        command: Command,
        /// The key.
        key: &'a [u8],
        /// No other follows.
        last: bool,
        /// Bytes that it took.
        length: usize,
    },
    /// A command up to its value, which is long. The value follows, two bytes, and the arguments after it. They are the
    /// caller's to take ([`parse_rest`] takes the arguments); then comes the next command.
    Upload {
        /// The arguments before the value.
        args: Args<'a>,
        /// Bytes of the value.
        value_bytes: usize,
        /// How many arguments come after it.
        after: usize,
        /// Bytes up to the value.
        length: usize,
    },
    /// The first `length` bytes are of no use: an empty line, or a command without arguments.
    Skip {
        /// Bytes to skip.
        length: usize,
    },
    /// It makes no sense to come back with less than `needed` bytes.
    Incomplete {
        /// Bytes needed, from the start of this input.
        needed: usize,
    },
    /// Nothing that follows can be understood: say why, then close.
    Broken(ProtocolError),
}

/// Why a client cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number of arguments is no number, or too great.
    InvalidMultibulkLength,
    /// The length of a string is no number, or too great.
    InvalidBulkLength,
    /// A string does not begin like one.
    ExpectedBulk {
        /// How it begins.
        got: u8,
    },
    /// A line is too long.
    TooBigInline,
    /// A quote in a line does not end, or something follows its end.
    UnbalancedQuotes,
    /// More arguments than a client may send before the password.
    UnauthenticatedMultibulk,
    /// A longer string than a client may send before the password.
    UnauthenticatedBulk,
    /// A command is too long.
    TooBigCommand,
    /// This is HTTP: a browser, or a script that makes one send requests to us. None of what follows may be executed.
    Http,
}

impl ProtocolError {
    /// Tells the client, in Redis's arguments where it has some.
    pub fn write(self, writer: &mut Writer) {
        let text = match self {
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::ExpectedBulk { got } => {
                let mut text = b"ERR Protocol error: expected '$', got '".to_vec();
                text.extend_from_slice(&[got, b'\'']);
                return writer.error(text);
            }
            Self::TooBigInline => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            Self::UnauthenticatedBulk => "unauthenticated bulk length",
            Self::TooBigCommand => "too big request",
            Self::Http => "this is not an HTTP server",
        };
        writer.error(format!("ERR Protocol error: {text}"));
    }
}

/// Parses what `input` starts with.
#[inline]
pub fn parse<'a>(state: &mut State, input: &'a [u8], limits: &Limits) -> Parsed<'a> {
    match *state {
        State::Command => match input.first() {
            None => Parsed::Incomplete { needed: 1 },
            Some(b'*') => multibulk(state, input, limits),
            Some(_) => inline(input),
        },
        State::Keys { command, left } => key(state, input, command, left, limits),
    }
}

/// Parses the `count` arguments that come after the value of a [`Parsed::Upload`]: `Command` with these arguments,
/// `Incomplete` or `Broken`.
pub fn parse_rest<'a>(input: &'a [u8], count: usize, limits: &Limits) -> Parsed<'a> {
    let mut at = 0;
    for index in 0..count {
        let end = match bulk(input, at, limits) {
            Ok(bulk) => bulk.end,
            Err(Stop::Unknown) => return incomplete(input.len() + 1, at, count, index),
            Err(Stop::Broken(error)) => return Parsed::Broken(error),
        };
        if is_too_long(end, count - index - 1, limits) {
            return Parsed::Broken(ProtocolError::TooBigCommand);
        }
        if input.len() < end {
            return incomplete(end, end, count, index + 1);
        }
        at = end;
    }
    Parsed::Command { args: Args::new(&input[..at], count), length: at }
}

#[inline]
fn multibulk<'a>(state: &mut State, input: &'a [u8], limits: &Limits) -> Parsed<'a> {
    let (count, from) = match number(input) {
        Ok(number) => match usize::try_from(number.value) {
            Ok(0) | Err(_) => return Parsed::Skip { length: number.bytes },
            Ok(count) => (count, number.bytes),
        },
        Err(NoNumber::Unknown) => return Parsed::Incomplete { needed: input.len() + 1 },
        Err(NoNumber::Invalid) => return Parsed::Broken(ProtocolError::InvalidMultibulkLength),
    };
    if count > limits.args_max {
        return Parsed::Broken(limits.too_many_args(count));
    }
    let mut at = from;
    for index in 0..count {
        let Bulk { from: arg, end } = match bulk(input, at, limits) {
            Ok(bulk) => bulk,
            Err(Stop::Unknown) => return incomplete(input.len() + 1, at, count, index),
            Err(Stop::Broken(error)) => return Parsed::Broken(error),
        };
        let value_bytes = end - LINE_END_BYTES - arg;
        if value_bytes >= UPLOAD_BYTES_MIN && index > 0 && !limits.are_unauthenticated() {
            let args = Args::new(&input[from..at], index);
            if is_upload(args, count) {
                return Parsed::Upload { args, value_bytes, after: count - index - 1, length: arg };
            }
        }
        let is_whole = input.len() >= end;
        if index == 0 && count > 1 && !limits.are_unauthenticated() {
            // Before the name is known, so is nothing of how much is to be waited for.
            if is_too_long(end, 0, limits) {
                return Parsed::Broken(ProtocolError::TooBigCommand);
            }
            if !is_whole {
                return Parsed::Incomplete { needed: end };
            }
            // With one key, the owner's reply is the whole reply, except that MGET's is an array.
            let is_split = |command: &Command| count > 2 || command.row().handler == Handler::PerKey(Merge::InOrder);
            if let Some(command) = Command::find_per_key(&input[arg..end - LINE_END_BYTES]).filter(is_split) {
                let keys = (count - 1) as u32;
                *state = State::Keys { command, left: keys };
                return Parsed::Split { command, keys, length: end };
            }
        }
        if is_too_long(end, count - index - 1, limits) {
            return Parsed::Broken(ProtocolError::TooBigCommand);
        }
        if !is_whole {
            return incomplete(end, end, count, index + 1);
        }
        at = end;
    }
    Parsed::Command { args: Args::new(&input[from..at], count), length: at }
}

#[inline]
fn key<'a>(state: &mut State, input: &'a [u8], command: Command, left: u32, limits: &Limits) -> Parsed<'a> {
    match bulk(input, 0, limits) {
        Ok(Bulk { end, .. }) if is_too_long(end, 0, limits) => Parsed::Broken(ProtocolError::TooBigCommand),
        Ok(Bulk { end, .. }) if input.len() < end => Parsed::Incomplete { needed: end },
        Ok(Bulk { from, end }) => {
            let last = left <= 1;
            *state = if last { State::Command } else { State::Keys { command, left: left - 1 } };
            Parsed::Key { command, key: &input[from..end - LINE_END_BYTES], last, length: end }
        }
        Err(Stop::Unknown) => Parsed::Incomplete { needed: input.len() + 1 },
        Err(Stop::Broken(error)) => Parsed::Broken(error),
    }
}

/// True if `args`, the first of `count`, precede a value that is streamed, as the command's row says. A command whose
/// key is too long for the engine is refused once it is whole.
fn is_upload(args: Args, count: usize) -> bool {
    let mut first = args.iter();
    let Some(command) = first.next().and_then(Command::find) else { return false };
    if first.next().is_none_or(|key| key.len() > UPLOAD_KEY_BYTES_MAX) {
        return false;
    }
    let row = command.row();
    args.len() == usize::from(row.value_at) && row.accepts(count) && count - args.len() - 1 <= UPLOAD_ARGS_AFTER_MAX
}

/// True if a command is longer than it may be, of which `end` bytes are known and so many arguments are to come.
#[inline]
fn is_too_long(end: usize, args: usize, limits: &Limits) -> bool {
    end.saturating_add(args.saturating_mul(BULK_BYTES_MIN)) > limits.command_bytes_max()
}

/// Not whole before there are `needed` bytes, nor before each argument from `index` on, the first of them at `at`, has
/// the least that arguments have.
fn incomplete<'a>(needed: usize, at: usize, count: usize, index: usize) -> Parsed<'a> {
    if index == 0 || count <= ARGS_LOOKED_AT_AGAIN {
        return Parsed::Incomplete { needed };
    }
    Parsed::Incomplete { needed: needed.max(at + (count - index) * BULK_BYTES_MIN) }
}

/// A string: where its bytes are, and where what follows it starts. They may not all have come.
struct Bulk {
    from: usize,
    end: usize,
}

/// Why there is no string.
enum Stop {
    /// Its line has not all come.
    Unknown,
    Broken(ProtocolError),
}

/// The string whose line starts at `at`.
#[inline]
fn bulk(input: &[u8], at: usize, limits: &Limits) -> Result<Bulk, Stop> {
    let line = &input[at..];
    match line.first() {
        Some(b'$') => {}
        Some(&got) => return Err(Stop::Broken(ProtocolError::ExpectedBulk { got })),
        None => return Err(Stop::Unknown),
    }
    let (length, bytes) = match number(line) {
        Ok(Number { value, bytes }) => (usize::try_from(value), bytes),
        Err(NoNumber::Unknown) => return Err(Stop::Unknown),
        Err(NoNumber::Invalid) => return Err(Stop::Broken(ProtocolError::InvalidBulkLength)),
    };
    match length {
        Ok(length) if length <= limits.bulk_bytes_max => {
            let from = at + bytes;
            Ok(Bulk { from, end: from + length + LINE_END_BYTES })
        }
        Ok(_) if limits.are_unauthenticated() => Err(Stop::Broken(ProtocolError::UnauthenticatedBulk)),
        _ => Err(Stop::Broken(ProtocolError::InvalidBulkLength)),
    }
}

/// The number of a line, and the bytes of the line.
struct Number {
    value: i64,
    bytes: usize,
}

/// Why there is no number.
enum NoNumber {
    /// The line has not all come.
    Unknown,
    Invalid,
}

/// The number after the first byte of a line.
#[inline]
fn number(line: &[u8]) -> Result<Number, NoNumber> {
    let digit = |b: u8| i64::from(b - b'0');
    match *line {
        [_, a @ b'0'..=b'9', b'\r', _, ..] => Ok(Number { value: digit(a), bytes: 4 }),
        [_, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => Ok(Number { value: digit(a) * 10 + digit(b), bytes: 5 }),
        _ => long_number(line),
    }
}

fn long_number(line: &[u8]) -> Result<Number, NoNumber> {
    let line = &line[..line.len().min(NUMBER_LINE_BYTES_MAX)];
    let Some(end) = line.iter().position(|&b| b == b'\r') else {
        return Err(if line.len() < NUMBER_LINE_BYTES_MAX { NoNumber::Unknown } else { NoNumber::Invalid });
    };
    let (negative, digits) = match &line[1..end] {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // A number has one way to be written: no plus, no zeros before it.
    let first = digits.first().ok_or(NoNumber::Invalid)?;
    if *first == b'0' && (negative || digits.len() > 1) {
        return Err(NoNumber::Invalid);
    }
    let value = digits.iter().try_fold(0_i64, |n, &b| match b {
        b'0'..=b'9' if negative => n.checked_mul(10)?.checked_sub(i64::from(b - b'0')),
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(i64::from(b - b'0')),
        _ => None,
    });
    let value = value.ok_or(NoNumber::Invalid)?;
    if line.len() <= end + 1 {
        return Err(NoNumber::Unknown);
    }
    Ok(Number { value, bytes: end + LINE_END_BYTES })
}

#[cfg(test)]
mod tests;
