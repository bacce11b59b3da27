//! Commands on plain values: memcached's, and later the strings of RESP.

use crate::command::{Condition, End, Expiry, Failure, Reply, UnixMs};
use crate::engine::{Attributes, Engine, Item, KeyHash, TooLarge};
use crate::metrics::{Counter, Counters};

/// Digits of the largest number.
const NUMBER_DIGITS_MAX: usize = 20;

/// A key on its engine: what a command works on.
pub(super) struct Target<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) hash: KeyHash,
    pub(super) key: &'a [u8],
    pub(super) now: UnixMs,
    pub(super) counters: &'a mut Counters,
}

impl<'a> Target<'a> {
    #[inline]
    pub(super) fn get(self, versions: bool, last: bool) -> Reply<'a> {
        self.counters.add(Counter::CmdGet);
        match self.engine.get(self.hash, self.key, self.now) {
            Some(item) => {
                self.counters.add(Counter::GetHits);
                found(self.key, item, versions, last)
            }
            None => {
                self.counters.add(Counter::GetMisses);
                Reply::Miss { last }
            }
        }
    }

    pub(super) fn get_and_touch(self, versions: bool, expiry: Expiry, last: bool) -> Reply<'a> {
        self.counters.add(Counter::CmdGet);
        self.counters.add(Counter::CmdTouch);
        match self.engine.touch(self.hash, self.key, expiry.resolve(self.now), self.now) {
            Some(item) => {
                self.counters.add(Counter::GetHits);
                self.counters.add(Counter::TouchHits);
                found(self.key, item, versions, last)
            }
            None => {
                self.counters.add(Counter::GetMisses);
                self.counters.add(Counter::TouchMisses);
                Reply::Miss { last }
            }
        }
    }

    #[inline]
    pub(super) fn store(mut self, condition: Condition, flags: u32, expiry: Expiry, value: &[u8]) -> Reply<'a> {
        self.counters.add(Counter::CmdSet);
        if condition != Condition::Always
            && let Some(reply) = self.unmet(condition)
        {
            return reply;
        }
        let Self { engine, hash, key, now, counters } = self;
        let attributes = Attributes { flags, expires: expiry.resolve(now) };
        stored(engine.put(hash, key, value, attributes, now).map(Some), counters)
    }

    /// The reply to a store whose condition does not hold.
    fn unmet(&mut self, condition: Condition) -> Option<Reply<'a>> {
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

    pub(super) fn extend(self, end: End, value: &[u8]) -> Reply<'a> {
        self.counters.add(Counter::CmdSet);
        stored(self.engine.extend(self.hash, self.key, end, value, self.now), self.counters)
    }

    /// A set that failed drops the old value: better a miss than a value that the client thinks it replaced.
    pub(super) fn refuse(self, drop_old: bool) -> Reply<'a> {
        if drop_old {
            self.engine.remove(self.hash, self.key, self.now);
        }
        too_large(self.counters)
    }

    pub(super) fn delete(self) -> Reply<'a> {
        if self.engine.remove(self.hash, self.key, self.now) {
            self.counters.add(Counter::DeleteHits);
            Reply::Deleted
        } else {
            self.counters.add(Counter::DeleteMisses);
            Reply::NotFound
        }
    }

    pub(super) fn touch(self, expiry: Expiry) -> Reply<'a> {
        self.counters.add(Counter::CmdTouch);
        if self.engine.touch(self.hash, self.key, expiry.resolve(self.now), self.now).is_some() {
            self.counters.add(Counter::TouchHits);
            Reply::Touched
        } else {
            self.counters.add(Counter::TouchMisses);
            Reply::NotFound
        }
    }

    /// incr wraps at 2^64, decr stops at 0. What is stored is the number's digits and nothing else: memcached pads a
    /// shorter result with spaces, which its protocol allows but does not ask for.
    pub(super) fn arithmetic(self, decrement: bool, delta: u64) -> Reply<'a> {
        let Self { engine, hash, key, now, counters } = self;
        let (hits, misses) = match decrement {
            true => (Counter::DecrHits, Counter::DecrMisses),
            false => (Counter::IncrHits, Counter::IncrMisses),
        };
        let Some(item) = engine.get(hash, key, now) else {
            counters.add(misses);
            return Reply::NotFound;
        };
        let Some(number) = number(item.value) else { return Reply::Failed(Failure::NotANumber) };
        let attributes = Attributes { flags: item.flags, expires: item.expires };
        let result = if decrement { number.saturating_sub(delta) } else { number.wrapping_add(delta) };
        let mut digits = itoa::Buffer::new();
        match engine.put(hash, key, digits.format(result).as_bytes(), attributes, now) {
            Ok(_) => {
                counters.add(hits);
                Reply::Number(result)
            }
            Err(TooLarge) => too_large(counters),
        }
    }
}

fn found<'a>(key: &'a [u8], item: Item<'a>, versions: bool, last: bool) -> Reply<'a> {
    Reply::Value { key, flags: item.flags, version: versions.then_some(item.version), value: item.value, last }
}

fn stored(outcome: Result<Option<u64>, TooLarge>, counters: &mut Counters) -> Reply<'static> {
    match outcome {
        Ok(Some(_)) => Reply::Stored,
        Ok(None) => Reply::NotStored,
        Err(TooLarge) => too_large(counters),
    }
}

fn too_large(counters: &mut Counters) -> Reply<'static> {
    counters.add(Counter::StoreTooLarge);
    Reply::Failed(Failure::TooLarge)
}

/// A stored number: digits, with spaces around them where another server padded them.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || digits.len() > NUMBER_DIGITS_MAX {
        return None;
    }
    std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}
