//! The parser: parses one request at a time from the bytes that a connection has received.
//!
//! It keeps no bytes. Input that it cannot use yet stays with the caller, which calls again with more; between two
//! calls, a connection remembers only a [`State`] of a few bytes.
//!
//! A get line is parsed key by key, so that a multi-get of any length takes bounded memory. The parser waits for the
//! end of lines of up to [`LINE_BYTES_MAX`], so that an error in one is found before any of its keys is executed: the
//! caller discards the command's keys when an `Invalid` follows them. Longer lines must be gets; their keys are
//! executed as they arrive.

use super::foreign::Foreign;
use crate::command::{
    Administration, Condition, Control, End, Expiry, Failure, Operation, Request, Session, StatsTopic,
};
use memchr::{memchr, memchr_iter, memchr2};

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 250;

/// The longest command line, in bytes, except for gets.
pub const LINE_BYTES_MAX: usize = 2048;

/// The most spaces before the verb of a line longer than [`LINE_BYTES_MAX`]: so the verb is within the bytes that are
/// parsed first, however the line is cut.
const INDENT_BYTES_MAX: usize = LINE_BYTES_MAX / 2;

/// The largest exptime, and the largest magnitude of a negative one, as in memcached.
const EXPTIME_MAX: u64 = i32::MAX as u64;

/// An expiry of more seconds than this (30 days) is a Unix time, as in memcached.
const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

/// The longest value, in bytes, that a length field may announce.
const ANNOUNCED_BYTES_MAX: u64 = i32::MAX as u64 - 2;

/// Values of at least this length are streamed: the parser does not wait until they are complete.
const UPLOAD_BYTES_MIN: usize = 16 << 10;

/// The most tokens of a command other than get: those of cas with noreply.
const TOKENS_MAX: usize = 7;

/// The line end after a value.
pub const LINE_END: &[u8; 2] = b"\r\n";

const NOREPLY: &[u8] = b"noreply";

/// A connection's position in the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// At the start of a command.
    #[default]
    Command,
    /// Between two keys of a get.
    Keys {
        /// True for gets and gats, which reply with versions.
        versions: bool,
        /// The new expiry, for gat and gats.
        touch: Option<Expiry>,
    },
    /// Within the data of a rejected value: this many bytes are discarded.
    Discard(u64),
    /// Within a rejected line: the rest of it is discarded.
    SkipLine,
}

/// The result of parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A request in the first `length` bytes.
    Request {
        /// The request.
        request: Request<&'a [u8]>,
        /// Bytes that it occupies.
        length: usize,
    },
    /// A command without a key in the first `length` bytes.
    Control {
        /// The command.
        control: Control,
        /// The reply is suppressed.
        noreply: bool,
        /// Bytes that it occupies.
        length: usize,
    },
    /// The command line, of `length` bytes, of a store with a long value. The caller consumes what follows:
    /// `value_bytes` bytes and a line end. The next command comes after them.
    Upload {
        /// The request, without the value.
        request: Request<&'a [u8]>,
        /// Bytes of the value.
        value_bytes: usize,
        /// Bytes of the command line.
        length: usize,
    },
    /// The first `length` bytes hold no request: the caller drops them.
    Skip {
        /// Bytes to drop.
        length: usize,
    },
    /// The input is incomplete: parsing it again is useless before it has `needed` bytes.
    Incomplete {
        /// Bytes needed, from the start of this input.
        needed: usize,
    },
    /// The client quits: close once the earlier requests are answered.
    Close,
    /// The line is too long to be a command: reply with an error, and close.
    TooLong,
    /// The client speaks another protocol: close once the earlier requests are answered, and execute nothing that
    /// follows.
    Foreign(Foreign),
}

/// Parses the request at the start of `input`. Values longer than `value_bytes_max` are rejected and discarded.
#[inline]
pub fn parse<'a>(state: &mut State, input: &'a [u8], value_bytes_max: usize) -> Parsed<'a> {
    match *state {
        State::Command => command(state, input, value_bytes_max),
        State::Keys { versions, touch } => key(state, input, 0, versions, touch, false),
        State::Discard(bytes) => {
            let length = input.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            let left = bytes - length as u64;
            *state = if left == 0 { State::Command } else { State::Discard(left) };
            if length == 0 { Parsed::Incomplete { needed: 1 } } else { Parsed::Skip { length } }
        }
        State::SkipLine if input.is_empty() => Parsed::Incomplete { needed: 1 },
        State::SkipLine => match memchr(b'\n', input) {
            Some(end) => {
                *state = State::Command;
                Parsed::Skip { length: end + 1 }
            }
            None => Parsed::Skip { length: input.len() },
        },
    }
}

#[inline]
fn command<'a>(state: &mut State, input: &'a [u8], value_bytes_max: usize) -> Parsed<'a> {
    // The most frequent command first: a get of one key needs no tokenizing.
    if input.starts_with(b"get ")
        && let Some(end) = memchr2(b' ', b'\n', &input[4..])
        && input[4 + end] == b'\n'
        && (1..=KEY_BYTES_MAX).contains(&end)
        && input[4] != b'\r'
    {
        let key = without_cr(&input[4..4 + end]);
        let operation = Operation::Get { versions: false, touch: None, first: true, last: true };
        return Parsed::Request {
            request: Request { key, operation, session: Session::default() },
            length: 4 + end + 1,
        };
    }
    if let Some(foreign) = Foreign::starting(input) {
        return Parsed::Foreign(foreign);
    }
    let Some(end) = memchr(b'\n', input) else { return unfinished_line(state, input) };
    let length = end + 1;
    if end > LINE_BYTES_MAX {
        return long_line(state, &input[..length]);
    }
    let line = without_cr(&input[..end]);
    let spaces = line.iter().take_while(|&&b| b == b' ').count();
    let (verb, rest) = split_verb(&line[spaces..]);
    if let Some((versions, touches)) = retrieval(verb) {
        return keys(state, &input[..length], spaces + verb.len(), versions, touches);
    }
    other_command(state, input, length, verb, rest, value_bytes_max)
}

/// Handles a line whose end has not arrived.
fn unfinished_line<'a>(state: &mut State, input: &'a [u8]) -> Parsed<'a> {
    if input.len() <= LINE_BYTES_MAX {
        return Parsed::Incomplete { needed: input.len() + 1 };
    }
    long_line(state, input)
}

/// Handles a line longer than `LINE_BYTES_MAX`, whose end may not have arrived.
fn long_line<'a>(state: &mut State, input: &'a [u8]) -> Parsed<'a> {
    let spaces = input.iter().take_while(|&&b| b == b' ').count();
    let (verb, _) = split_verb(&input[spaces..]);
    match retrieval(verb) {
        Some((versions, touches)) if spaces <= INDENT_BYTES_MAX => {
            keys(state, input, spaces + verb.len(), versions, touches)
        }
        _ => Parsed::TooLong,
    }
}

/// Classifies a retrieval verb as (shows versions, changes expiry); None for other verbs.
fn retrieval(verb: &[u8]) -> Option<(bool, bool)> {
    match verb {
        b"get" => Some((false, false)),
        b"gets" => Some((true, false)),
        b"gat" => Some((false, true)),
        b"gats" => Some((true, true)),
        _ => None,
    }
}

/// Parses the operands of a get from `at` on: first an expiry if it `touches`, then keys.
fn keys<'a>(state: &mut State, input: &'a [u8], at: usize, versions: bool, touches: bool) -> Parsed<'a> {
    if !touches {
        return key(state, input, at, versions, None, true);
    }
    match next_token(input, at) {
        Token::Some { token, after, last } => match expiry(token) {
            _ if last => invalid(state, input, Failure::BadFormat),
            Some(expiry) => key(state, input, after, versions, Some(expiry), true),
            None => invalid(state, input, Failure::InvalidExpiry),
        },
        Token::None => invalid(state, input, Failure::BadFormat),
        Token::TooLong => invalid(state, input, Failure::InvalidExpiry),
        Token::Incomplete => Parsed::Incomplete { needed: input.len() + 1 },
    }
}

/// Parses one key of a get, at or after `at`.
#[inline]
fn key<'a>(
    state: &mut State,
    input: &'a [u8],
    at: usize,
    versions: bool,
    touch: Option<Expiry>,
    first: bool,
) -> Parsed<'a> {
    match next_token(input, at) {
        Token::Some { token, after, last } => {
            *state = if last { State::Command } else { State::Keys { versions, touch } };
            let operation = Operation::Get { versions, touch, first, last };
            Parsed::Request { request: Request { key: token, operation, session: Session::default() }, length: after }
        }
        Token::None => invalid(state, input, Failure::BadFormat),
        Token::TooLong => invalid(state, input, Failure::BadFormat),
        Token::Incomplete => Parsed::Incomplete { needed: input.len() + 1 },
    }
}

enum Token<'a> {
    /// A token, the start of the next one (or the position after the line end), and whether it is the line's last.
    Some { token: &'a [u8], after: usize, last: bool },
    /// The line ends without another token.
    None,
    /// The token, or the space around it, is longer than allowed.
    TooLong,
    /// The input ends within the token.
    Incomplete,
}

#[inline]
fn next_token(input: &[u8], at: usize) -> Token<'_> {
    let from = match next_word(input, at) {
        Word::At(from) => from,
        Word::LineEnd(_) => return Token::None,
        Word::TooFar => return Token::TooLong,
        Word::Unknown => return Token::Incomplete,
    };
    let length = memchr2(b' ', b'\n', &input[from..]);
    // The token may include the line's carriage return, hence one byte more than a key.
    if length.unwrap_or(input.len() - from) > KEY_BYTES_MAX + 1 {
        return Token::TooLong;
    }
    let Some(length) = length else { return Token::Incomplete };
    let end = from + length;
    let (token, after, last) = if input[end] == b'\n' {
        (without_cr(&input[from..end]), end + 1, true)
    } else {
        match next_word(input, end) {
            Word::At(next) => (&input[from..end], next, false),
            Word::LineEnd(next) => (&input[from..end], next, true),
            Word::TooFar => return Token::TooLong,
            Word::Unknown => return Token::Incomplete,
        }
    };
    if token.len() > KEY_BYTES_MAX { Token::TooLong } else { Token::Some { token, after, last } }
}

enum Word {
    /// The next token starts here.
    At(usize),
    /// The line ends before this position.
    LineEnd(usize),
    /// Too many spaces: without a limit they would grow a connection's memory without bound.
    TooFar,
    /// The input ends within the spaces.
    Unknown,
}

#[inline]
fn next_word(input: &[u8], at: usize) -> Word {
    let spaces = input[at..].iter().take_while(|&&b| b == b' ').count();
    if spaces > LINE_BYTES_MAX {
        return Word::TooFar;
    }
    let at = at + spaces;
    match input[at..] {
        [] | [b'\r'] => Word::Unknown,
        [b'\n', ..] => Word::LineEnd(at + 1),
        [b'\r', b'\n', ..] => Word::LineEnd(at + 2),
        _ => Word::At(at),
    }
}

/// Reports an error in a line of keys and discards the rest of the line.
fn invalid<'a>(state: &mut State, input: &'a [u8], failure: Failure) -> Parsed<'a> {
    let length = match memchr(b'\n', input) {
        Some(end) => {
            *state = State::Command;
            end + 1
        }
        None => {
            *state = State::SkipLine;
            input.len()
        }
    };
    failed(failure, false, length)
}

fn other_command<'a>(
    state: &mut State,
    input: &'a [u8],
    line_bytes: usize,
    verb: &[u8],
    rest: &'a [u8],
    value_bytes_max: usize,
) -> Parsed<'a> {
    let arguments = Arguments::split(rest);
    let kind = match verb {
        b"set" => Some(Store::When(Condition::Always)),
        b"add" => Some(Store::When(Condition::Absent)),
        b"replace" => Some(Store::When(Condition::Present)),
        b"cas" => Some(Store::When(Condition::Version(0))),
        b"append" => Some(Store::To(End::Back)),
        b"prepend" => Some(Store::To(End::Front)),
        b"quit" => return Parsed::Close,
        _ => None,
    };
    if let Some(kind) = kind {
        return store(state, input, line_bytes, &arguments, kind, value_bytes_max);
    }
    let noreply = arguments.noreply();
    let args = arguments.args();
    let session = Session { noreply, ..Session::default() };
    let fail = |failure| failed(failure, noreply, line_bytes);
    let control = |control| Parsed::Control { control, noreply, length: line_bytes };
    let keyed = |key: &'a [u8], operation| match key.len() {
        0..=KEY_BYTES_MAX => Parsed::Request { request: Request { key, operation, session }, length: line_bytes },
        _ => fail(Failure::BadFormat),
    };
    match (verb, args) {
        (b"delete", [key] | [key, b"0"]) => keyed(key, Operation::Delete),
        (b"delete", [_, _, ..]) => fail(Failure::DeleteUsage),
        (b"incr" | b"decr", [key, delta, ..]) => match unsigned(delta) {
            Some(delta) => keyed(key, Operation::Arithmetic { decrement: verb == b"decr", delta }),
            None => fail(Failure::InvalidDelta),
        },
        (b"touch", [key, time, ..]) => match expiry(time) {
            Some(expiry) => keyed(key, Operation::Touch { expiry }),
            None => fail(Failure::InvalidExpiry),
        },
        (b"flush_all", []) => control(Control::EveryShard(Administration::Flush { delay: Expiry::Never })),
        (b"flush_all", [delay, ..]) => match expiry(delay) {
            Some(Expiry::Now) => control(Control::EveryShard(Administration::Flush { delay: Expiry::Never })),
            Some(delay) => control(Control::EveryShard(Administration::Flush { delay })),
            None => fail(Failure::InvalidExpiry),
        },
        (b"eviction", [policy]) => match std::str::from_utf8(policy).ok().and_then(|name| name.parse().ok()) {
            Some(eviction) => control(Control::EveryShard(Administration::SetEviction(eviction))),
            None => fail(Failure::InvalidEviction),
        },
        (b"version", _) => Parsed::Control { control: Control::Version, noreply: false, length: line_bytes },
        (b"verbosity", [level, ..]) if unsigned(level).is_some() => control(Control::Verbosity),
        (b"stats", [b"detail", args @ ..]) => {
            stats_detail(args).map_or_else(fail, |topic| control(Control::Stats(topic)))
        }
        (b"stats", [b"cachedump", args @ ..]) => {
            stats_cachedump(args).map_or_else(fail, |topic| control(Control::Stats(topic)))
        }
        (b"stats", topic) if !noreply => match stats_topic(topic) {
            Some(topic) => control(Control::Stats(topic)),
            None => fail(Failure::Unknown),
        },
        (b"shutdown", _) => fail(Failure::ShutdownDisabled),
        (b"delete" | b"incr" | b"decr" | b"touch" | b"verbosity" | b"eviction", _) => fail(Failure::BadFormat),
        _ if Foreign::is_http(rest) => Parsed::Foreign(Foreign::Http),
        // An unknown command has no `noreply` option: the error is always sent.
        _ => failed(Failure::Unknown, false, line_bytes),
    }
}

fn stats_topic(args: &[&[u8]]) -> Option<StatsTopic> {
    Some(match args {
        [] => StatsTopic::General,
        [b"settings", ..] => StatsTopic::Settings,
        [b"shards", ..] => StatsTopic::Shards,
        [b"reset", ..] => StatsTopic::Reset,
        [b"conns", ..] => StatsTopic::Connections,
        [b"items" | b"slabs" | b"sizes", ..] => StatsTopic::Empty,
        _ => return None,
    })
}

/// Parses `stats detail`. There are no statistics by prefix: those that it dumps are empty.
fn stats_detail(args: &[&[u8]]) -> Result<StatsTopic, Failure> {
    match args {
        [b"on" | b"off", ..] => Ok(StatsTopic::Detail),
        [b"dump", ..] => Ok(StatsTopic::Empty),
        _ => Err(Failure::DetailUsage),
    }
}

/// Parses `stats cachedump <slab class> <limit>`. There are no slab classes of items: all are empty.
fn stats_cachedump(args: &[&[u8]]) -> Result<StatsTopic, Failure> {
    match args {
        [class, limit, ..] if unsigned(class).and(unsigned(limit)).is_some() => Ok(StatsTopic::Empty),
        [_, _, ..] => Err(Failure::BadFormat),
        _ => Err(Failure::BadLine),
    }
}

fn failed<'a>(failure: Failure, noreply: bool, length: usize) -> Parsed<'a> {
    Parsed::Control { control: Control::Invalid(failure), noreply, length }
}

#[derive(Clone, Copy)]
enum Store {
    When(Condition),
    To(End),
}

/// `<verb> <key> <flags> <exptime> <bytes> [<version>] [noreply]\r\n<value>\r\n`
fn store<'a>(
    state: &mut State,
    input: &'a [u8],
    line_bytes: usize,
    arguments: &Arguments<'a>,
    kind: Store,
    value_bytes_max: usize,
) -> Parsed<'a> {
    let noreply = arguments.noreply();
    let session = Session { noreply, ..Session::default() };
    let fail = |failure, length| failed(failure, noreply, length);
    let is_cas = matches!(kind, Store::When(Condition::Version(_)));
    let [key, flags, time, bytes, more @ ..] = arguments.args() else {
        return failed(Failure::BadFormat, false, line_bytes);
    };
    // Without a valid length, the value cannot be skipped: whatever follows is parsed as commands, as in memcached.
    let Some(value_bytes) = unsigned(bytes).filter(|&n| n <= ANNOUNCED_BYTES_MAX) else {
        return fail(Failure::BadFormat, line_bytes);
    };
    let version = if is_cas { more.first().and_then(|v| unsigned(v)) } else { Some(0) };
    let flags = unsigned(flags).and_then(|f| u32::try_from(f).ok());
    let (Some(flags), Some(expiry), Some(version), 1..=KEY_BYTES_MAX) =
        (flags, stored_expiry(time), version, key.len())
    else {
        // Discard the announced value, which would otherwise be parsed as commands.
        *state = State::Discard(value_bytes + 2);
        return fail(Failure::BadFormat, line_bytes);
    };
    // Rejected by the owner of the key, since a set that is too large also deletes the old value.
    if value_bytes > value_bytes_max as u64 {
        *state = State::Discard(value_bytes + 2);
        let operation = Operation::RefuseTooLarge { drop_old: matches!(kind, Store::When(Condition::Always)) };
        return Parsed::Request { request: Request { key, operation, session }, length: line_bytes };
    }
    let operation = |value: &'a [u8]| match kind {
        Store::When(Condition::Version(_)) => {
            Operation::Store { condition: Condition::Version(version), flags, expiry, value }
        }
        Store::When(condition) => Operation::Store { condition, flags, expiry, value },
        Store::To(end) => Operation::Extend { end, value, bytes_max: value_bytes_max as u32 },
    };
    let value_bytes = value_bytes as usize;
    // A long value is streamed: the command line suffices to begin the upload.
    if value_bytes >= UPLOAD_BYTES_MIN {
        let request = Request { key: *key, operation: operation(&[]), session };
        return Parsed::Upload { request, value_bytes, length: line_bytes };
    }
    let value_end = line_bytes + value_bytes;
    let length = value_end + LINE_END.len();
    if input.len() < length {
        return Parsed::Incomplete { needed: length };
    }
    // The announced length was wrong. As many bytes as announced are consumed.
    if input[value_end..length] != *LINE_END {
        return fail(Failure::BadDataChunk, length);
    }
    let request = Request { key: *key, operation: operation(&input[line_bytes..value_end]), session };
    Parsed::Request { request, length }
}

/// The tokens after the verb, at most `TOKENS_MAX` of them.
struct Arguments<'a> {
    args: [&'a [u8]; TOKENS_MAX],
    count: usize,
}

impl<'a> Arguments<'a> {
    fn split(line: &'a [u8]) -> Self {
        let mut arguments = Self { args: [&[]; TOKENS_MAX], count: 0 };
        let mut from = 0;
        for end in memchr_iter(b' ', line).chain([line.len()]) {
            if end > from && arguments.count < TOKENS_MAX {
                arguments.args[arguments.count] = &line[from..end];
                arguments.count += 1;
            }
            from = end + 1;
        }
        arguments
    }

    fn noreply(&self) -> bool {
        self.args[..self.count].last() == Some(&NOREPLY)
    }

    /// The tokens without a trailing `noreply`.
    fn args(&self) -> &[&'a [u8]] {
        &self.args[..self.count - usize::from(self.noreply())]
    }
}

fn split_verb(line: &[u8]) -> (&[u8], &[u8]) {
    line.split_at(memchr(b' ', line).unwrap_or(line.len()))
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Parses a number of decimal digits that fits in 64 bits.
fn unsigned(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |n, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 { None } else { n.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// Parses the exptime of a store. Clients that print −1 as an unsigned number of 32 bits mean that the item is gone at
/// once.
fn stored_expiry(arg: &[u8]) -> Option<Expiry> {
    match unsigned(arg) {
        Some(seconds) if seconds > EXPTIME_MAX && seconds <= u64::from(u32::MAX) => Some(Expiry::Now),
        _ => expiry(arg),
    }
}

/// Parses an exptime: a number of 32 bits, with its sign.
fn expiry(arg: &[u8]) -> Option<Expiry> {
    let (negative, digits) = match arg {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let seconds = unsigned(digits).filter(|&seconds| seconds <= EXPTIME_MAX + u64::from(negative))?;
    Some(match seconds {
        0 => Expiry::Never,
        _ if negative => Expiry::Now,
        _ if seconds <= RELATIVE_SECONDS_MAX as u64 => Expiry::AfterSeconds(seconds as u32),
        _ => Expiry::AtSeconds(seconds),
    })
}

#[cfg(test)]
mod tests;
