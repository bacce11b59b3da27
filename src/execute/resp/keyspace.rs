//! One shard's part of commands on all keys of a database.

use super::Context;
use super::arguments::{Error, required};
use super::scan::{Filter, ScanOptions, cursor};
use crate::command::Part;
use crate::engine::{KEY_CURSOR_BITS, Kind, Value};
use crate::protocol::resp::Writer;

/// The number of bits in a cursor that name its shard.
pub const CURSOR_SHARD_BITS: u32 = 10;

/// The type of a value.
fn kind_of(value: Value) -> Kind {
    if let Value::Collection(kind, _) = value { kind } else { Kind::String }
}

/// DBSIZE: the number of keys of this shard.
pub(super) fn size(c: &mut Context, _: &mut Vec<u8>) -> Result<Part, Error> {
    Ok(Part::Count(c.engine.database(c.hash.database()).items as i64))
}

/// FLUSHDB and FLUSHALL.
pub(super) fn flush(c: &mut Context, _: &mut Vec<u8>, all: bool) -> Result<Part, Error> {
    match all {
        true => c.engine.flush(),
        false => c.engine.flush_database(c.hash.database()),
    }
    Ok(Part::Done)
}

/// KEYS: the keys of this shard that match a pattern, in slices. Keys that exist from its start to its end are all
/// returned; keys created or removed meanwhile may be.
pub(super) fn keys(c: &mut Context, out: &mut Vec<u8>) -> Result<Part, Error> {
    let filter = Filter::new(required(&mut c.args.into_iter())?)?;
    let database = c.hash.database();
    let mut w = Writer::new(out, false);
    let (mut cursor, mut seen, mut count) = (c.slice.from as u32, 0, 0);
    loop {
        cursor = c.engine.scan(cursor, c.now, |key, hash, _| {
            if hash.database() != database {
                seen += 1;
                return;
            }
            let (matches, elements) = filter.matches(key);
            seen += elements;
            if matches {
                w.bulk(key);
                count += 1;
            }
        });
        if cursor == 0 || seen >= c.slice.elements_max {
            if cursor != 0 {
                c.slice.go_on(cursor.into());
            }
            return Ok(Part::Elements(count));
        }
    }
}

/// RANDOMKEY: a random key of this shard. Its rank is lower, the more keys the shard has: each shard's is the lowest as
/// often as its share of the keys (a weighted sample by exponential clocks; Efraimidis and Spirakis, 2006).
pub(super) fn random(c: &mut Context, out: &mut Vec<u8>) -> Result<Part, Error> {
    let database = c.hash.database();
    if !c.engine.random_key(database, c.now, out) {
        return Ok(Part::Nothing);
    }
    let uniform = ((c.engine.random() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    let clock = -uniform.ln() / c.engine.database(database).items as f64;
    // Floats that are not negative are in the order of their bits.
    Ok(Part::Drawn(clock.abs().to_bits()))
}

/// SCAN: one page of this shard's keys; cursors carry the shard in their lower bits.
pub(super) fn scan(c: &mut Context, out: &mut Vec<u8>) -> Result<Part, Error> {
    let mut args = c.args.into_iter();
    let cursor = cursor(required(&mut args)?)?;
    let options = ScanOptions::read(args, None)?;
    let database = c.hash.database();
    let shard = cursor & ((1 << CURSOR_SHARD_BITS) - 1);
    let cursors = c.engine.cursors();
    let mut position = cursors.open(cursor >> CURSOR_SHARD_BITS, KEY_CURSOR_BITS) as u32;
    let mut w = Writer::new(out, false);
    let (mut seen, mut elements) = (0, 0);
    loop {
        position = c.engine.scan(position, c.now, |key, hash, item| {
            if hash.database() != database || options.kind.is_some_and(|kind| kind != kind_of(item.value)) {
                seen += 1;
                return;
            }
            let (matches, visited) = options.matches(key);
            seen += visited;
            if matches {
                w.bulk(key);
                elements += 1;
            }
        });
        if position == 0 || seen >= options.count {
            break;
        }
    }
    let next = match position {
        0 if shard + 1 == c.shards as u64 => 0,
        0 => shard + 1,
        _ => cursors.seal(position.into(), KEY_CURSOR_BITS) << CURSOR_SHARD_BITS | shard,
    };
    Ok(Part::Page { elements, next, left: options.count.saturating_sub(seen) as u64 })
}
