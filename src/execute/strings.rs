//! Executes the commands of memcached's protocol.

use crate::command::{Condition, End, Expiry, Failure, Operation, Reply, Request, UnixMs, ValueHead};
use crate::engine::{Attributes, Engine, Fetched, KeyHash, PutError, Reader, Upload, Value};
use crate::metrics::{Counter, Counters};
use crate::slots::Group;

/// The result of one of memcached's commands.
#[derive(Debug)]
pub(super) enum Outcome<'k, 'e> {
    /// A complete reply, which borrows from the request and the engine.
    Ready(Reply<'e>),
    /// A value that is to be read from the engine piece by piece.
    Long {
        /// The header to send before the value.
        head: ValueHead<'k>,
        /// The value's length in bytes.
        length: usize,
        /// Reads the value; to be closed.
        reader: Reader,
    },
}

impl<'e> From<Reply<'e>> for Outcome<'_, 'e> {
    fn from(reply: Reply<'e>) -> Self {
        Self::Ready(reply)
    }
}

/// Executes one of memcached's commands on the key of `target`.
#[inline]
pub(super) fn execute<'k: 'e, 'e>(request: &Request<&'k [u8]>, target: Target<'k, 'e>) -> Outcome<'k, 'e> {
    let reply = match request.operation {
        Operation::Get { versions, touch: None, first, last } => return target.get(versions, [first, last]),
        Operation::Get { versions, touch: Some(expiry), first, last } => {
            return target.get_and_touch(versions, expiry, [first, last]);
        }
        Operation::Store { condition, flags, expiry, value } => target.store(condition, flags, expiry, value),
        Operation::Extend { end, value, bytes_max } => target.extend(end, value, bytes_max),
        Operation::RefuseTooLarge { drop_old } => target.refuse(drop_old, PutError::TooLarge),
        Operation::Delete => target.delete(),
        Operation::Arithmetic { decrement, delta } => target.arithmetic(decrement, delta),
        Operation::Touch { expiry } => target.touch(expiry),
        // Commands of RESP are executed in `resp` instead.
        Operation::Call(_) => Reply::Failed(Failure::Unknown),
    };
    reply.into()
}

/// The key that a command works on, and its engine.
pub(super) struct Target<'k, 'e> {
    pub(super) engine: &'e mut Engine,
    pub(super) hash: KeyHash,
    pub(super) key: &'k [u8],
    pub(super) now: UnixMs,
    /// How far the wall clock is ahead of `now`.
    pub(super) wall_ahead_ms: i64,
    pub(super) counters: &'e mut Counters,
}

impl<'k: 'e, 'e> Target<'k, 'e> {
    #[inline]
    pub(super) fn get(self, versions: bool, [first, last]: [bool; 2]) -> Outcome<'k, 'e> {
        self.counters.add(Counter::CmdGet);
        match self.engine.fetch(self.hash, self.key, self.now) {
            Some(fetched) => {
                self.counters.add(Counter::GetHits);
                found(self.key, fetched, versions, [first, last])
            }
            None => {
                self.counters.add(Counter::GetMisses);
                Reply::Miss { last }.into()
            }
        }
    }

    pub(super) fn get_and_touch(self, versions: bool, expiry: Expiry, [first, last]: [bool; 2]) -> Outcome<'k, 'e> {
        self.counters.add(Counter::CmdGet);
        self.counters.add(Counter::CmdTouch);
        let expires = expiry.resolve(self.now, self.wall_ahead_ms);
        match self.engine.fetch_and_touch(self.hash, self.key, expires, self.now) {
            Ok(Some(fetched)) => {
                self.counters.add(Counter::GetHits);
                self.counters.add(Counter::TouchHits);
                found(self.key, fetched, versions, [first, last])
            }
            Ok(None) => {
                self.counters.add(Counter::GetMisses);
                self.counters.add(Counter::TouchMisses);
                Reply::Miss { last }.into()
            }
            Err(error) => failed(error, self.counters).into(),
        }
    }

    #[inline]
    pub(super) fn store(mut self, condition: Condition, flags: u32, expiry: Expiry, value: &[u8]) -> Reply<'e> {
        self.counters.add(Counter::CmdSet);
        if condition != Condition::Always
            && let Some(reply) = self.unmet(condition)
        {
            return reply;
        }
        let Self { engine, hash, key, now, wall_ahead_ms, counters } = self;
        let attributes = Attributes { flags, expires: expiry.resolve(now, wall_ahead_ms) };
        let done = engine.put(hash, Group::of(key), key, value, attributes, now);
        if done.is_err() && condition == Condition::Always {
            // A miss is better than a value that the client believes it has replaced.
            engine.remove(hash, key, now);
        }
        stored(done.map(Some), counters)
    }

    /// Stores a value that arrived as an upload.
    pub(super) fn commit(mut self, condition: Condition, upload: Upload) -> Reply<'static> {
        self.counters.add(Counter::CmdSet);
        if condition != Condition::Always
            && let Some(reply) = self.unmet(condition)
        {
            self.engine.abort(upload);
            return reply;
        }
        let Self { engine, hash, key, now, counters, .. } = self;
        let done = engine.commit(hash, Group::of(key), upload, now);
        if done.is_err() && condition == Condition::Always {
            engine.remove(hash, key, now);
        }
        stored(done.map(Some), counters)
    }

    /// Adds an upload to an end of the stored value.
    pub(super) fn extend_by(mut self, end: End, upload: Upload, bytes_max: u32) -> Reply<'static> {
        self.counters.add(Counter::CmdSet);
        if self.would_be_too_long(self.engine.uploaded(&upload), bytes_max) {
            self.engine.abort(upload);
            return failed(PutError::TooLarge, self.counters);
        }
        let done = self.engine.extend_by(self.hash, Group::of(self.key), self.key, end, upload, self.now);
        stored(done, self.counters)
    }

    /// The reply to a store whose condition does not hold; None if it holds.
    fn unmet(&mut self, condition: Condition) -> Option<Reply<'static>> {
        let version = self.engine.get(self.hash, self.key, self.now).map(|item| item.version);
        let (counter, reply) = match (condition, version) {
            (Condition::Absent, Some(_)) | (Condition::Present, None) => return Some(Reply::NotStored),
            (Condition::Always | Condition::Absent | Condition::Present, _) => return None,
            (Condition::Version(_), None) => (Counter::CasMisses, Some(Reply::NotFound)),
            (Condition::Version(wanted), Some(version)) if wanted != version => {
                (Counter::CasBadval, Some(Reply::Exists))
            }
            (Condition::Version(_), Some(_)) => (Counter::CasHits, None),
        };
        self.counters.add(counter);
        reply
    }

    pub(super) fn extend(mut self, end: End, value: &[u8], bytes_max: u32) -> Reply<'e> {
        self.counters.add(Counter::CmdSet);
        if self.would_be_too_long(value.len(), bytes_max) {
            return failed(PutError::TooLarge, self.counters);
        }
        stored(self.engine.extend(self.hash, Group::of(self.key), self.key, end, value, self.now), self.counters)
    }

    /// True if `bytes` more bytes would make the value longer than `bytes_max`.
    fn would_be_too_long(&mut self, bytes: usize, bytes_max: u32) -> bool {
        let old = self.engine.get(self.hash, self.key, self.now).map_or(0, |item| item.value.length());
        old + bytes > bytes_max as usize
    }

    /// Replies with an error to a set. If `drop_old`, the old value is removed: a miss is better than a value that the
    /// client believes it has replaced.
    pub(super) fn refuse(self, drop_old: bool, error: PutError) -> Reply<'static> {
        if drop_old {
            self.engine.remove(self.hash, self.key, self.now);
        }
        failed(error, self.counters)
    }

    pub(super) fn delete(self) -> Reply<'e> {
        if self.engine.remove(self.hash, self.key, self.now) {
            self.counters.add(Counter::DeleteHits);
            Reply::Deleted
        } else {
            self.counters.add(Counter::DeleteMisses);
            Reply::NotFound
        }
    }

    pub(super) fn touch(self, expiry: Expiry) -> Reply<'e> {
        self.counters.add(Counter::CmdTouch);
        let expires = expiry.resolve(self.now, self.wall_ahead_ms);
        match self.engine.touch(self.hash, self.key, expires, self.now) {
            Ok(true) => {
                self.counters.add(Counter::TouchHits);
                Reply::Touched
            }
            Ok(false) => {
                self.counters.add(Counter::TouchMisses);
                Reply::NotFound
            }
            Err(error) => failed(error, self.counters),
        }
    }

    /// Executes incr, which wraps at 2^64, and decr, which stops at 0. The number is stored without padding: memcached
    /// pads a shorter result with spaces, which its protocol allows but does not require.
    pub(super) fn arithmetic(self, decrement: bool, delta: u64) -> Reply<'e> {
        let Self { engine, hash, key, now, counters, .. } = self;
        let (hits, misses) = match decrement {
            true => (Counter::DecrHits, Counter::DecrMisses),
            false => (Counter::IncrHits, Counter::IncrMisses),
        };
        let Some(item) = engine.get(hash, key, now) else {
            counters.add(misses);
            return Reply::NotFound;
        };
        if let Value::Collection(..) = item.value {
            return Reply::Failed(Failure::WrongType);
        }
        let Some(number) = item.value.whole().and_then(number) else { return Reply::Failed(Failure::NotANumber) };
        let attributes = Attributes { flags: item.flags, expires: item.expires };
        let result = if decrement { number.saturating_sub(delta) } else { number.wrapping_add(delta) };
        let mut digits = itoa::Buffer::new();
        match engine.put(hash, Group::of(key), key, digits.format(result).as_bytes(), attributes, now) {
            Ok(_) => {
                counters.add(hits);
                Reply::Number(result)
            }
            Err(error) => failed(error, counters),
        }
    }
}

#[inline]
fn found<'k: 'e, 'e>(key: &'k [u8], fetched: Fetched<'e>, versions: bool, [first, last]: [bool; 2]) -> Outcome<'k, 'e> {
    let Fetched { item, reader } = fetched;
    let head = ValueHead { key, flags: item.flags, version: versions.then_some(item.version), last };
    match (item.value, reader) {
        (Value::Whole(value), _) => Reply::Value { head, value }.into(),
        (Value::Long(length), Some(reader)) => Outcome::Long { head, length, reader },
        (Value::Long(_), None) => unreachable!("a long value is fetched with its reader"),
        // In a get of several keys, a key of another type cannot be answered with an error: it is a miss.
        (Value::Collection(..), _) if first && last => Reply::Failed(Failure::WrongType).into(),
        (Value::Collection(..), _) => Reply::Miss { last }.into(),
    }
}

fn stored(outcome: Result<Option<u64>, PutError>, counters: &mut Counters) -> Reply<'static> {
    match outcome {
        Ok(Some(_)) => Reply::Stored,
        Ok(None) => Reply::NotStored,
        Err(error) => failed(error, counters),
    }
}

fn failed(error: PutError, counters: &mut Counters) -> Reply<'static> {
    match error {
        PutError::TooLarge => {
            counters.add(Counter::StoreTooLarge);
            Reply::Failed(Failure::TooLarge)
        }
        PutError::WrongType => Reply::Failed(Failure::WrongType),
        PutError::OutOfMemory => {
            counters.add(Counter::StoreNoMemory);
            Reply::Failed(Failure::OutOfMemory)
        }
    }
}

/// Parses a stored number as memcached does: spaces, a plus sign and leading zeros may come before it, and anything
/// after a space that follows it.
fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii_start();
    let value = value.strip_prefix(b"+").unwrap_or(value);
    let end = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
    let ends = value.get(end).is_none_or(u8::is_ascii_whitespace);
    // The digits are ASCII, so parsing fails only if there are none or the number is too large.
    str::from_utf8(&value[..end]).ok().filter(|_| ends)?.parse().ok()
}
