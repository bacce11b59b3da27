//! Parses arguments, and defines the errors that clients recognise by their texts.

use super::Context;
use crate::command::UnixMs;
use crate::engine::PutError;
use crate::protocol::resp::Writer;
use crate::values::numbers;
use std::borrow::Cow;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A text, starting with the error code.
    Text(Cow<'static, str>),
    /// An error of the engine.
    Put(PutError),
}

pub(super) const SYNTAX: Error = text("ERR syntax error");
pub(super) const NOT_AN_INTEGER: Error = text("ERR value is not an integer or out of range");
pub(super) const NOT_A_FLOAT: Error = text("ERR value is not a valid float");
pub(super) const OUT_OF_RANGE: Error = text("ERR index out of range");
pub(super) const NO_SUCH_KEY: Error = text("ERR no such key");
pub(super) const NOT_POSITIVE: Error = text("ERR value is out of range, must be positive");

pub(super) const fn text(text: &'static str) -> Error {
    Error::Text(Cow::Borrowed(text))
}

impl From<PutError> for Error {
    fn from(error: PutError) -> Self {
        Self::Put(error)
    }
}

impl Error {
    /// The text for the client, starting with the error code.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Put(PutError::WrongType) => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Self::Put(PutError::OutOfMemory) => "OOM command not allowed when used memory > 'maxmemory'.",
            Self::Put(PutError::TooLarge) => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.error(self.text());
    }
}

/// Returns the next argument, or a syntax error.
pub(super) fn required<'w>(args: &mut impl Iterator<Item = &'w [u8]>) -> Result<&'w [u8], Error> {
    args.next().ok_or(SYNTAX)
}

pub(super) fn integer(arg: &[u8]) -> Result<i64, Error> {
    numbers::integer(arg).ok_or(NOT_AN_INTEGER)
}

/// Parses a count that must not be negative.
pub(super) fn natural(arg: &[u8]) -> Result<u64, Error> {
    u64::try_from(integer(arg).map_err(|_| NOT_POSITIVE)?).map_err(|_| NOT_POSITIVE)
}

/// Parses a count whose sign is significant; its absolute value must fit in an `i64`.
pub(super) fn symmetric(arg: &[u8]) -> Result<i64, Error> {
    let number = integer(arg)?;
    if number == i64::MIN {
        let limit = i64::MAX;
        return Err(Error::Text(format!("ERR value is out of range, value must between -{limit} and {limit}").into()));
    }
    Ok(number)
}

/// Redis's error for a wrong number of arguments.
pub(super) fn wrong_arity(command: &str) -> Error {
    Error::Text(format!("ERR wrong number of arguments for '{command}' command").into())
}

pub(super) fn is(arg: &[u8], name: &str) -> bool {
    arg.eq_ignore_ascii_case(name.as_bytes())
}

/// Resolves a range of indexes, in which negative ones count from the end, to its first index and the index behind its
/// last. (0, 0) if it is empty.
pub(super) fn index_range(start: i64, stop: i64, length: u64) -> (u64, u64) {
    let length = length as i64;
    let start = if start < 0 { (length.saturating_add(start)).max(0) } else { start };
    let stop = if stop < 0 { length.saturating_add(stop) } else { stop.min(length - 1) };
    if start > stop || start >= length || stop < 0 { (0, 0) } else { (start as u64, stop as u64 + 1) }
}

impl Context<'_> {
    /// Parses a time of expiry in units of `unit` milliseconds, from now if `relative`, else as a Unix time. Returns
    /// milliseconds by the shard's clock. `command` is named in the error.
    pub(super) fn time(&self, arg: &[u8], unit: i64, relative: bool, command: &str) -> Result<i64, Error> {
        let number = integer(arg)?;
        self.time_of(number, unit, relative, command)
    }

    pub(super) fn time_of(&self, number: i64, unit: i64, relative: bool, command: &str) -> Result<i64, Error> {
        // `now` is rounded down to a millisecond. Counting from the end of that millisecond, nothing expires early;
        // times that are not positive still expire at once.
        let base = if relative { self.now as i64 + i64::from(number > 0) } else { -self.wall_ahead_ms };
        let time = number.checked_mul(unit).and_then(|n| n.checked_add(base));
        // A Unix time that is not negative stays so, whatever the wall clock says.
        let least = if relative || number < 0 { i64::MIN } else { 0 };
        time.map(|time| time.max(least))
            .ok_or_else(|| Error::Text(format!("ERR invalid expire time in '{command}' command").into()))
    }

    /// The Unix time of a time of expiry by the shard's clock.
    pub(super) fn unix_ms(&self, expires: UnixMs) -> UnixMs {
        expires.saturating_add_signed(self.wall_ahead_ms)
    }

    /// Parses a time of expiry as [`Context::time`] does, and rejects numbers that are not positive.
    pub(super) fn future(&self, arg: &[u8], unit: i64, relative: bool, command: &str) -> Result<UnixMs, Error> {
        let number = integer(arg)?;
        let invalid = || Error::Text(format!("ERR invalid expire time in '{command}' command").into());
        if number <= 0 {
            return Err(invalid());
        }
        Ok(self.time_of(number, unit, relative, command)? as UnixMs)
    }
}
