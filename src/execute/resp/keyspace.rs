//! Commands on all keys of a database, of one shard: its part of them.

use super::arguments::required;
use super::scan::{ScanOptions, cursor};
use super::{Context, Done};
use crate::engine::{Kind, Value};
use crate::protocol::resp::Writer;
use crate::values::glob;

/// Bits of a cursor that say which shard it is at.
pub const CURSOR_SHARD_BITS: u32 = 10;

/// The type of a value.
fn kind_of(value: Value) -> Kind {
    if let Value::Collection(kind, _) = value { kind } else { Kind::String }
}

/// The number of keys.
pub(super) fn size(c: &mut Context, w: &mut Writer) -> Done {
    w.integer(c.engine.database(c.hash.database()).items as i64);
    Ok(())
}

pub(super) fn flush(c: &mut Context, w: &mut Writer, all: bool) -> Done {
    match all {
        true => c.engine.flush(),
        false => c.engine.flush_database(c.hash.database()),
    }
    w.simple("OK");
    Ok(())
}

/// KEYS: all that match a pattern.
pub(super) fn keys(c: &mut Context, w: &mut Writer) -> Done {
    let pattern = required(&mut c.args.into_iter())?;
    let (database, any) = (c.hash.database(), pattern == b"*");
    let array = w.begin_array();
    let (mut cursor, mut count) = (0, 0);
    loop {
        cursor = c.engine.scan(cursor, c.now, |key, hash, _| {
            if hash.database() == database && (any || glob::matches(pattern, key, false)) {
                w.bulk(key);
                count += 1;
            }
        });
        if cursor == 0 {
            break;
        }
    }
    w.end(array, count);
    Ok(())
}

/// A key, whichever; nothing if there is none.
pub(super) fn random(c: &mut Context, w: &mut Writer) -> Done {
    let database = c.hash.database();
    if c.engine.database(database).items == 0 {
        w.null();
        return Ok(());
    }
    let (start, pick) = (c.engine.random() as u32, c.engine.random());
    let mut cursor = start;
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut wrapped = false;
    while found.is_empty() {
        cursor = c.engine.scan(cursor, c.now, |key, hash, _| {
            if hash.database() == database {
                found.push(key.to_vec());
            }
        });
        if cursor == 0 && std::mem::replace(&mut wrapped, true) {
            break;
        }
    }
    match found.len() {
        0 => w.null(),
        count => w.bulk(&found[(pick % count as u64) as usize]),
    }
    Ok(())
}

/// SCAN: this shard's part; its cursors have the shard in their lower bits. `shards` there are.
pub(super) fn scan(c: &mut Context, w: &mut Writer, shards: u64) -> Done {
    let mut args = c.args.into_iter();
    let cursor = cursor(required(&mut args)?)?;
    let options = ScanOptions::read(args, None)?;
    let database = c.hash.database();
    let shard = cursor & ((1 << CURSOR_SHARD_BITS) - 1);
    let mut position = (cursor >> CURSOR_SHARD_BITS) as u32;
    let (mut seen, mut found) = (0, Vec::new());
    loop {
        position = c.engine.scan(position, c.now, |key, hash, item| {
            seen += 1;
            if hash.database() == database
                && options.matches(key)
                && options.kind.is_none_or(|kind| kind == kind_of(item.value))
            {
                found.push(key.to_vec());
            }
        });
        if position == 0 || seen >= options.count {
            break;
        }
    }
    let next = match position {
        0 if shard + 1 == shards => 0,
        0 => shard + 1,
        _ => u64::from(position) << CURSOR_SHARD_BITS | shard,
    };
    w.array(2);
    w.bulk(itoa::Buffer::new().format(next).as_bytes());
    w.array(found.len());
    found.iter().for_each(|key| w.bulk(key));
    Ok(())
}
