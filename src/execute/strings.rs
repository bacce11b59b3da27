//! Commands on plain values: memcached's, and later the strings of RESP.

use crate::command::{Condition, End, Expiry, Failure, Reply, UnixMs};
use crate::engine::{Attributes, Engine, Item, KeyHash, TooLarge};
use crate::metrics::{Counter, Counters};

/// Digits of the largest number.
const NUMBER_DIGITS_MAX: usize = 20;

#[inline]
pub(super) fn get<'a>(
    engine: &'a mut Engine,
    hash: KeyHash,
    key: &'a [u8],
    versions: bool,
    last: bool,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'a> {
    counters.add(Counter::CmdGet);
    match engine.get(hash, key, now) {
        Some(item) => {
            counters.add(Counter::GetHits);
            found(key, item, versions, last)
        }
        None => {
            counters.add(Counter::GetMisses);
            Reply::Miss { last }
        }
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn get_and_touch<'a>(
    engine: &'a mut Engine,
    hash: KeyHash,
    key: &'a [u8],
    versions: bool,
    expiry: Expiry,
    last: bool,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'a> {
    counters.add(Counter::CmdGet);
    counters.add(Counter::CmdTouch);
    match engine.touch(hash, key, expiry.resolve(now), now) {
        Some(item) => {
            counters.add(Counter::GetHits);
            counters.add(Counter::TouchHits);
            found(key, item, versions, last)
        }
        None => {
            counters.add(Counter::GetMisses);
            counters.add(Counter::TouchMisses);
            Reply::Miss { last }
        }
    }
}

fn found<'a>(key: &'a [u8], item: Item<'a>, versions: bool, last: bool) -> Reply<'a> {
    Reply::Value { key, flags: item.flags, version: versions.then_some(item.version), value: item.value, last }
}

#[allow(clippy::too_many_arguments)]
#[inline]
pub(super) fn store(
    engine: &mut Engine,
    hash: KeyHash,
    key: &[u8],
    condition: Condition,
    flags: u32,
    expiry: Expiry,
    value: &[u8],
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
    counters.add(Counter::CmdSet);
    let version = match condition {
        Condition::Always => None,
        _ => engine.get(hash, key, now).map(|item| item.version),
    };
    match (condition, version) {
        (Condition::Absent, Some(_)) | (Condition::Present, None) => return Reply::NotStored,
        (Condition::Version(_), None) => {
            counters.add(Counter::CasMisses);
            return Reply::NotFound;
        }
        (Condition::Version(wanted), Some(version)) if wanted != version => {
            counters.add(Counter::CasBadval);
            return Reply::Exists;
        }
        (Condition::Version(_), Some(_)) => counters.add(Counter::CasHits),
        _ => {}
    }
    let attributes = Attributes { flags, expires: expiry.resolve(now) };
    stored(engine.put(hash, key, value, attributes, now).map(Some), counters)
}

pub(super) fn extend(
    engine: &mut Engine,
    hash: KeyHash,
    key: &[u8],
    end: End,
    value: &[u8],
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
    counters.add(Counter::CmdSet);
    stored(engine.extend(hash, key, end, value, now), counters)
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

/// A set that failed drops the old value: better a miss than a value that the client thinks it replaced.
pub(super) fn refuse(
    engine: &mut Engine,
    hash: KeyHash,
    key: &[u8],
    drop_old: bool,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
    if drop_old {
        engine.remove(hash, key, now);
    }
    too_large(counters)
}

pub(super) fn delete(
    engine: &mut Engine,
    hash: KeyHash,
    key: &[u8],
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
    if engine.remove(hash, key, now) {
        counters.add(Counter::DeleteHits);
        Reply::Deleted
    } else {
        counters.add(Counter::DeleteMisses);
        Reply::NotFound
    }
}

pub(super) fn touch(
    engine: &mut Engine,
    hash: KeyHash,
    key: &[u8],
    expiry: Expiry,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
    counters.add(Counter::CmdTouch);
    if engine.touch(hash, key, expiry.resolve(now), now).is_some() {
        counters.add(Counter::TouchHits);
        Reply::Touched
    } else {
        counters.add(Counter::TouchMisses);
        Reply::NotFound
    }
}

/// incr wraps at 2^64, decr stops at 0. What is stored is the number's digits and nothing else: memcached pads a shorter
/// result with spaces, which its protocol allows but does not ask for.
pub(super) fn arithmetic(
    engine: &mut Engine,
    hash: KeyHash,
    key: &[u8],
    decrement: bool,
    delta: u64,
    now: UnixMs,
    counters: &mut Counters,
) -> Reply<'static> {
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

/// A stored number: digits, with spaces around them where another server padded them.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || digits.len() > NUMBER_DIGITS_MAX {
        return None;
    }
    std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}
