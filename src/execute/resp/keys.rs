//! Commands on keys of any type: deletion, expiry, introspection.

use super::arguments::{Error, SYNTAX, integer, is, required, text};
use super::{Context, Done};
use crate::command::UnixMs;
use crate::engine::{Encoding, Kind, Value};
use crate::metrics::Counter;
use crate::protocol::resp::Writer;

/// The longest string, in bytes, whose encoding Redis reports as `embstr`.
const EMBEDDED_BYTES_MAX: usize = 44;

/// DEL of one key: 1 if it existed.
pub(super) fn del(c: &mut Context) -> Result<i64, Error> {
    let existed = c.engine.remove(c.hash, c.key, c.now);
    c.counters.add(if existed { Counter::DeleteHits } else { Counter::DeleteMisses });
    Ok(existed.into())
}

/// EXISTS of one key: 1 if it exists.
pub(super) fn exists(c: &mut Context) -> Result<i64, Error> {
    let exists = c.engine.get(c.hash, c.key, c.now).is_some();
    c.looked(exists);
    Ok(exists.into())
}

/// TOUCH of one key: 1 if it exists.
pub(super) fn touch(c: &mut Context) -> Result<i64, Error> {
    let exists = c.engine.get(c.hash, c.key, c.now).is_some();
    c.counters.add(Counter::CmdTouch);
    c.counters.add(if exists { Counter::TouchHits } else { Counter::TouchMisses });
    c.looked(exists);
    Ok(exists.into())
}

/// The options NX, XX, GT and LT: whether a new expiry may replace the old one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExpireCondition {
    absent: bool,
    present: bool,
    later: bool,
    earlier: bool,
}

impl ExpireCondition {
    /// Parses an option; false if `arg` is not one.
    pub(super) fn take(&mut self, arg: &[u8]) -> bool {
        match arg.to_ascii_uppercase().as_slice() {
            b"NX" => self.absent = true,
            b"XX" => self.present = true,
            b"GT" => self.later = true,
            b"LT" => self.earlier = true,
            _ => return false,
        }
        true
    }

    pub(super) fn check(self) -> Result<(), Error> {
        if self.absent && (self.present || self.later || self.earlier) {
            return Err(text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if self.later && self.earlier {
            return Err(text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(())
    }

    /// True if the expiry may change from `old` to `new`. As in Redis, a key without an expiry counts as expiring at
    /// infinity.
    pub(super) fn holds(self, old: Option<UnixMs>, new: i64) -> bool {
        // GT: nothing is later than infinity.
        let after = old.is_some_and(|old| new > old as i64);
        // LT: every time is earlier than infinity.
        let before = old.is_none_or(|old| new < old as i64);
        !(self.absent && old.is_some()
            || self.present && old.is_none()
            || self.later && !after
            || self.earlier && !before)
    }
}

pub(super) fn expire(c: &mut Context, w: &mut Writer, unit: i64, relative: bool) -> Done {
    let command = match (unit, relative) {
        (1000, true) => "expire",
        (_, true) => "pexpire",
        (1000, false) => "expireat",
        (_, false) => "pexpireat",
    };
    let mut args = c.args.skip(1).into_iter();
    let expires = c.time(required(&mut args)?, unit, relative, command)?;
    let mut condition = ExpireCondition::default();
    for arg in args {
        if !condition.take(arg) {
            return Err(Error::Text(format!("ERR Unsupported option {}", String::from_utf8_lossy(arg)).into()));
        }
    }
    condition.check()?;
    c.counters.add(Counter::CmdTouch);
    // The key does not exist: no condition applies.
    let Some(old) = c.engine.get(c.hash, c.key, c.now).map(|item| item.expires) else {
        c.counters.add(Counter::TouchMisses);
        w.integer(0);
        return Ok(());
    };
    c.counters.add(Counter::TouchHits);
    let changes = condition.holds(old, expires);
    // As in Redis, a time in the past deletes the key.
    if changes && expires <= c.now as i64 {
        c.engine.remove(c.hash, c.key, c.now);
    } else if changes {
        c.engine.touch(c.hash, c.key, Some(expires as UnixMs), c.now)?;
    }
    w.integer(changes.into());
    Ok(())
}

/// TTL and its relatives: replies the time of expiry in units of `unit` milliseconds, from now if `relative`, else as a
/// Unix time.
pub(super) fn ttl(c: &mut Context, w: &mut Writer, unit: u64, relative: bool) -> Done {
    let found = c.engine.get(c.hash, c.key, c.now).map(|item| item.expires);
    c.looked(found.is_some());
    w.integer(match found {
        None => -2,
        Some(None) => -1,
        // `Context::time_of` adds a millisecond to a relative expiry: subtract it, then round to the nearest unit.
        Some(Some(expires)) if relative => ((expires.saturating_sub(c.now + 1) + unit / 2) / unit) as i64,
        Some(Some(expires)) => ((c.unix_ms(expires) + unit / 2) / unit) as i64,
    });
    Ok(())
}

pub(super) fn persist(c: &mut Context, w: &mut Writer) -> Done {
    let expires = c.engine.get(c.hash, c.key, c.now).and_then(|item| item.expires).is_some();
    if expires {
        c.engine.touch(c.hash, c.key, None, c.now)?;
    }
    w.integer(expires.into());
    Ok(())
}

/// The name of a type.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::List => "list",
        Kind::Set => "set",
        Kind::SortedSet => "zset",
        Kind::Hash => "hash",
    }
}

pub(super) fn kind(c: &mut Context, w: &mut Writer) -> Done {
    let kind = c.engine.get(c.hash, c.key, c.now).map(|item| match item.value {
        Value::Collection(kind, _) => kind,
        _ => Kind::String,
    });
    c.looked(kind.is_some());
    w.simple(kind.map_or("none", kind_name));
    Ok(())
}

pub(super) fn object(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.into_iter();
    let subcommand = required(&mut args)?;
    let eviction = c.engine.eviction();
    let known = c.engine.describe(c.hash, c.key, c.now);
    c.looked(known.is_some());
    let Some(known) = known else {
        w.null();
        return Ok(());
    };
    match subcommand.to_ascii_uppercase().as_slice() {
        b"ENCODING" => w.bulk(encoding_name(known.encoding).as_bytes()),
        b"REFCOUNT" => w.integer(1),
        b"FREQ" => match known.frequency {
            Some(frequency) => w.integer(frequency.into()),
            None => {
                return Err(text(
                    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                     switching between policies at runtime LRU and LFU data will take some time to adjust.",
                ));
            }
        },
        b"IDLETIME" => match known.idle_ms {
            Some(idle) => w.integer((idle / 1000) as i64),
            None => {
                let text = format!("ERR idle time is not tracked by the policy {eviction}; it is by lru");
                return Err(Error::Text(text.into()));
            }
        },
        _ => return Err(SYNTAX),
    }
    Ok(())
}

/// Redis's name of an encoding.
fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Integer => "int",
        Encoding::Bytes(length) if length <= EMBEDDED_BYTES_MAX => "embstr",
        Encoding::Bytes(_) | Encoding::Raw => "raw",
        Encoding::Compact(Kind::Set, true) => "intset",
        Encoding::Compact(..) => "listpack",
        Encoding::Wide(Kind::List) => "quicklist",
        Encoding::Wide(Kind::SortedSet) => "skiplist",
        Encoding::Wide(_) => "hashtable",
    }
}

pub(super) fn memory(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(2).into_iter();
    if let Some(option) = args.next() {
        if !is(option, "SAMPLES") {
            return Err(SYNTAX);
        }
        // SAMPLES has no effect: memory usage is known exactly.
        if integer(required(&mut args)?)? < 0 || args.next().is_some() {
            return Err(SYNTAX);
        }
    }
    match c.engine.describe(c.hash, c.key, c.now) {
        Some(known) => w.integer(known.memory_bytes as i64),
        None => w.null(),
    }
    Ok(())
}
