//! The parser: parses one command at a time from the bytes that a connection has received.
//!
//! ```text
//! *3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n      or, from people:      SET key value\r\n
//! ```
//!
//! It keeps no bytes: input that it cannot use yet stays with the caller, which calls again with more, and a connection
//! remembers only a [`State`] between two calls. Two kinds of commands are parsed before they are complete: those with
//! a long value, and those that are executed key by key. The length of all others is bounded.
//!
//! As in Redis, the two bytes at the end of a line or of a string are skipped without a check, except for the carriage
//! return that ends a number.

use super::Writer;
use super::inline::inline;
use crate::command::table::{Handler, Merge};
use crate::command::{Args, Command};

/// Values of at least this length are streamed: the parser does not wait until they are complete.
pub const UPLOAD_BYTES_MIN: usize = 16 << 10;

/// A command with a longer key, or with more arguments after its value, is not parsed as an upload. It is an error,
/// which is reported once the command is complete.
pub const UPLOAD_KEY_BYTES_MAX: usize = 3900;
const UPLOAD_ARGS_AFTER_MAX: usize = 16;

/// The overhead, in bytes, that a command may have in addition to two strings of the greatest length.
const COMMAND_BYTES_MORE: usize = 1 << 20;
/// The absolute bound, in bytes, of a command whose value is not streamed: it is kept until it is complete.
const COMMAND_BYTES_MAX: usize = 64 << 20;

/// A command with up to this many arguments is parsed again from its start whenever more bytes arrive. In a longer one,
/// those that have been parsed are not parsed again.
const ARGS_LOOKED_AT_AGAIN: usize = 64;

/// The length of the shortest bulk string: `$0\r\n\r\n`.
const BULK_BYTES_MIN: usize = 6;

/// A longer line cannot hold a number that fits in 64 bits.
const NUMBER_LINE_BYTES_MAX: usize = 32;

/// The most arguments that a command may announce.
const ARGS_MAX: usize = i32::MAX as usize;

/// Bytes of the line end after a string or a number.
const LINE_END_BYTES: usize = 2;

/// A connection's position in the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// At the start of a command.
    #[default]
    Command,
    /// Before a key of a command that is split into its keys.
    Keys {
        /// The command.
        command: Command,
        /// How many keys remain.
        left: u32,
    },
    /// In a command with many arguments, which starts where the input does.
    Args {
        /// How many arguments have been parsed, in three bytes, so that a state has eight.
        index: [u8; 3],
        /// Where the next one starts.
        at: u32,
    },
}

const _: () = assert!(size_of::<State>() == 8, "a state is copied for each command");
const _: () = assert!(COMMAND_BYTES_MAX / BULK_BYTES_MIN < 1 << 24, "an index has three bytes");

/// Limits on one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest string, in bytes.
    pub bulk_bytes_max: usize,
    /// The most arguments of a command.
    pub args_max: usize,
    /// Every command is handed out whole, neither streamed nor split into its keys: it will be refused.
    pub whole: bool,
}

impl Limits {
    /// For clients that have not authenticated yet: Redis's limits.
    pub const UNAUTHENTICATED: Self = Self { bulk_bytes_max: 16384, args_max: 10, whole: true };

    /// For clients that have authenticated, or need not.
    pub const fn authenticated(bulk_bytes_max: usize) -> Self {
        Self { bulk_bytes_max, args_max: ARGS_MAX, whole: false }
    }

    /// For clients that have authenticated and whose commands are refused.
    pub const fn refused(bulk_bytes_max: usize) -> Self {
        Self { bulk_bytes_max, args_max: ARGS_MAX, whole: true }
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

    /// The longest command, in bytes, that the parser waits for until it is complete.
    fn command_bytes_max(&self) -> usize {
        self.bulk_bytes_max.saturating_mul(2).saturating_add(COMMAND_BYTES_MORE).min(COMMAND_BYTES_MAX)
    }
}

/// The result of parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A command in the first `length` bytes.
    Command {
        /// Its arguments, the name included.
        args: Args<'a>,
        /// Bytes that it occupies.
        length: usize,
    },
    /// An inline command: a line, as a person types it.
    Inline {
        /// The bytes of its [`Args`], the name included.
        args: Vec<u8>,
        /// How many arguments there are.
        count: usize,
        /// Bytes that it occupies.
        length: usize,
    },
    /// The head of a command that is split into its keys: MGET, or DEL, UNLINK, EXISTS or TOUCH with more than one key.
    /// Each key is parsed as it arrives, so that any number of them takes bounded memory.
    Split {
        /// The command.
        command: Command,
        /// How many keys will come.
        keys: u32,
        /// Bytes that it occupies.
        length: usize,
    },
    /// A key of a split command.
    Key {
        /// The command.
        command: Command,
        /// The key.
        key: &'a [u8],
        /// True if this is the last key.
        last: bool,
        /// Bytes that it occupies.
        length: usize,
    },
    /// A command up to its long value. The caller consumes what follows: the value, its line end of two bytes, and the
    /// arguments after it ([`parse_rest`] parses these). The next command comes after them.
    Upload {
        /// The arguments before the value.
        args: Args<'a>,
        /// Bytes of the value.
        value_bytes: usize,
        /// How many arguments follow the value.
        after: usize,
        /// Bytes up to the value.
        length: usize,
    },
    /// The first `length` bytes hold no command: an empty line, or a command without arguments.
    Skip {
        /// Bytes to skip.
        length: usize,
    },
    /// The input is incomplete: parsing it again is useless before it has `needed` bytes.
    Incomplete {
        /// Bytes needed, from the start of this input.
        needed: usize,
    },
    /// A protocol error: nothing after it can be parsed. The caller reports it and closes the connection.
    Broken(ProtocolError),
}

/// Why the input violates the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number of arguments is not a number, or too large.
    InvalidMultibulkLength,
    /// The length of a string is not a number, or too large.
    InvalidBulkLength,
    /// A string does not start with `$`.
    ExpectedBulk {
        /// The byte found instead.
        got: u8,
    },
    /// A line is too long.
    TooBigInline,
    /// A quote in a line is not closed, or is closed in the middle of an argument.
    UnbalancedQuotes,
    /// More arguments than a client may send before it authenticates.
    UnauthenticatedMultibulk,
    /// A longer string than a client may send before it authenticates.
    UnauthenticatedBulk,
    /// A command is too long.
    TooBigCommand,
    /// An HTTP request, from a browser or from a script that makes one send requests to us. None of the following input
    /// may be executed.
    Http,
}

impl ProtocolError {
    /// Writes the error reply, with Redis's text where Redis has one.
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

/// Parses the command, or the part of one, at the start of `input`.
#[inline]
pub fn parse<'a>(state: &mut State, input: &'a [u8], limits: &Limits) -> Parsed<'a> {
    match *state {
        State::Command => match input.first() {
            None => Parsed::Incomplete { needed: 1 },
            Some(b'*') => multibulk(state, input, limits),
            Some(_) => inline(input),
        },
        State::Args { index: [a, b, c], at } => {
            continue_multibulk(state, input, limits, (u32::from_le_bytes([a, b, c, 0]) as usize, at as usize))
        }
        State::Keys { command, left } => key(state, input, command, left, limits),
    }
}

/// Parses the `count` arguments that follow the value of a [`Parsed::Upload`]. Returns `Command` with only these
/// arguments, `Incomplete` or `Broken`.
pub fn parse_rest<'a>(input: &'a [u8], count: usize, limits: &Limits) -> Parsed<'a> {
    let mut at = 0;
    for index in 0..count {
        let end = match bulk(input, at, limits) {
            Ok(bulk) => bulk.end,
            // The argument's length is not known yet.
            Err(Stop::Unknown) => return incomplete(input.len() + 1, at, count, index),
            Err(Stop::Broken(error)) => return Parsed::Broken(error),
        };
        // Checked before its bytes are there: an argument must not be waited for if the command will be rejected.
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
    multibulk_from(state, input, limits, None)
}

/// Goes on in a command of which some arguments have been parsed: how many, and where the next one starts.
#[cold]
fn continue_multibulk<'a>(state: &mut State, input: &'a [u8], limits: &Limits, parsed: (usize, usize)) -> Parsed<'a> {
    let parsed = multibulk_from(state, input, limits, Some(parsed));
    // After an error too, whatever pieces the command came in.
    if !matches!(parsed, Parsed::Incomplete { .. }) {
        *state = State::Command;
    }
    parsed
}

#[inline(always)]
fn multibulk_from<'a>(
    state: &mut State,
    input: &'a [u8],
    limits: &Limits,
    parsed: Option<(usize, usize)>,
) -> Parsed<'a> {
    let (count, from) = match number(input) {
        Ok(number) => match usize::try_from(number.value) {
            // Redis ignores commands of zero or fewer arguments.
            Ok(0) | Err(_) => return Parsed::Skip { length: number.bytes },
            Ok(count) => (count, number.bytes),
        },
        // The line is not complete. Its length is unknown, so the next byte may complete it.
        Err(NoNumber::Unknown) => return Parsed::Incomplete { needed: input.len() + 1 },
        Err(NoNumber::Invalid) => return Parsed::Broken(ProtocolError::InvalidMultibulkLength),
    };
    // Checked first, since the loop below is bounded by `count`.
    if count > limits.args_max {
        return Parsed::Broken(limits.too_many_args(count));
    }
    let (first, mut at) = parsed.unwrap_or((0, from));
    for index in first..count {
        let Bulk { from: arg, end } = match bulk(input, at, limits) {
            Ok(bulk) => bulk,
            // The length of this argument is not known yet.
            Err(Stop::Unknown) => {
                note_position(state, index, at);
                return incomplete(input.len() + 1, at, count, index);
            }
            Err(Stop::Broken(error)) => return Parsed::Broken(error),
        };
        let value_bytes = end - LINE_END_BYTES - arg;
        // A long value is streamed as soon as its length is known, if the command will be executed.
        if value_bytes >= UPLOAD_BYTES_MIN && index > 0 && !limits.whole {
            let args = Args::new(&input[from..at], index);
            if is_upload(args, count) {
                return Parsed::Upload { args, value_bytes, after: count - index - 1, length: arg };
            }
        }
        let is_whole = input.len() >= end;
        if index == 0 && count > 1 && !limits.whole {
            // Until the name is known, whether the command is split is unknown too: only the name is waited for.
            if is_too_long(end, 0, limits) {
                return Parsed::Broken(ProtocolError::TooBigCommand);
            }
            if !is_whole {
                return Parsed::Incomplete { needed: end };
            }
            // With one key, the owner's reply is the whole reply, except that MGET's is an array.
            let is_split = |command: &Command| count > 2 || command.row().handler == Handler::PerKey(Merge::InOrder);
            // Hand out the command before its keys are parsed: they need not have arrived.
            if let Some(command) = Command::find_per_key(&input[arg..end - LINE_END_BYTES]).filter(is_split) {
                let keys = (count - 1) as u32;
                *state = State::Keys { command, left: keys };
                return Parsed::Split { command, keys, length: end };
            }
        }
        // This command is kept until it is complete: reject it as soon as its announced lengths exceed the limit.
        if is_too_long(end, count - index - 1, limits) {
            return Parsed::Broken(ProtocolError::TooBigCommand);
        }
        if !is_whole {
            note_position(state, index, at);
            return incomplete(end, end, count, index + 1);
        }
        at = end;
    }
    Parsed::Command { args: Args::new(&input[from..at], count), length: at }
}

/// Notes that the first `index` arguments of a command, up to `at`, need not be parsed again.
fn note_position(state: &mut State, index: usize, at: usize) {
    if index > ARGS_LOOKED_AT_AGAIN {
        // Both are bounded by `COMMAND_BYTES_MAX`.
        let [a, b, c, _] = (index as u32).to_le_bytes();
        *state = State::Args { index: [a, b, c], at: at as u32 };
    }
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

/// True if `args`, the first of the command's `count` arguments, precede a value that is streamed according to the
/// command's row. A command whose key is too long for the engine is not an upload: it is rejected once it is complete.
fn is_upload(args: Args, count: usize) -> bool {
    let mut first = args.iter();
    let Some(command) = first.next().and_then(Command::find) else { return false };
    if first.next().is_none_or(|key| key.len() > UPLOAD_KEY_BYTES_MAX) {
        return false;
    }
    let row = command.row();
    args.len() == usize::from(row.value_at) && row.accepts(count) && count - args.len() - 1 <= UPLOAD_ARGS_AFTER_MAX
}

/// True if a command exceeds its limit: its first `end` bytes are accounted for, and at least `args` arguments follow.
#[inline]
fn is_too_long(end: usize, args: usize, limits: &Limits) -> bool {
    end.saturating_add(args.saturating_mul(BULK_BYTES_MIN)) > limits.command_bytes_max()
}

/// The command is incomplete until `needed` bytes have arrived. Where it has many arguments, the shortest possible
/// encodings of some from `index` on, which start at `at`, must have arrived as well.
fn incomplete<'a>(needed: usize, at: usize, count: usize, index: usize) -> Parsed<'a> {
    // Few arguments, or a name whose length is unknown: parse again with any progress, to report errors at once.
    if index == 0 || count <= ARGS_LOOKED_AT_AGAIN {
        return Parsed::Incomplete { needed };
    }
    Parsed::Incomplete { needed: needed.max(at + (count - index).min(ARGS_LOOKED_AT_AGAIN) * BULK_BYTES_MIN) }
}

/// Positions of a string, whose bytes may not all have arrived: `from` is its first byte, `end` is behind its line end.
struct Bulk {
    from: usize,
    end: usize,
}

/// Why a string could not be parsed.
enum Stop {
    /// Its length line is incomplete.
    Unknown,
    Broken(ProtocolError),
}

/// Parses the string whose length line starts at `at`.
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

/// The number in a line, and the length of the line in bytes.
struct Number {
    value: i64,
    bytes: usize,
}

/// Why a number could not be parsed.
enum NoNumber {
    /// The line is incomplete.
    Unknown,
    Invalid,
}

/// Parses the number that follows the first byte of a line.
#[inline]
fn number(line: &[u8]) -> Result<Number, NoNumber> {
    let digit = |b: u8| i64::from(b - b'0');
    // Numbers of one or two digits are by far the most frequent.
    match *line {
        [_, a @ b'0'..=b'9', b'\r', _, ..] => Ok(Number { value: digit(a), bytes: 4 }),
        [_, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => Ok(Number { value: digit(a) * 10 + digit(b), bytes: 5 }),
        _ => long_number(line),
    }
}

fn long_number(line: &[u8]) -> Result<Number, NoNumber> {
    let line = &line[..line.len().min(NUMBER_LINE_BYTES_MAX)];
    let Some(end) = line.iter().position(|&b| b == b'\r') else {
        // The line end is missing: wait for it, unless no valid number is that long.
        return Err(if line.len() < NUMBER_LINE_BYTES_MAX { NoNumber::Unknown } else { NoNumber::Invalid });
    };
    let (negative, digits) = match &line[1..end] {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // As in Redis, a number has only one spelling: no plus sign, no leading zeros.
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
    // The byte after the carriage return is skipped, so it must have arrived too.
    if line.len() <= end + 1 {
        return Err(NoNumber::Unknown);
    }
    Ok(Number { value, bytes: end + LINE_END_BYTES })
}

#[cfg(test)]
mod tests;
