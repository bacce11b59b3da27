//! DUMP and RESTORE: values as Redis writes them to files, of any type.

use super::arguments::{Error, SYNTAX, integer, required, text};
use super::{Context, Done, strings};
use crate::command::{End, UnixMs};
use crate::engine::{Attributes, FieldExpiry, Kind, ScoreChange};
use crate::protocol::resp::Writer;
use crate::values::dump::{self, Dumped};
use crate::values::numbers;

pub(super) fn dump(c: &mut Context, w: &mut Writer) -> Done {
    let Some(known) = c.engine.describe(c.hash, c.key, c.now) else {
        w.null();
        return Ok(());
    };
    let mut payload = dump::Writer::new();
    match known.kind {
        Kind::String => {
            let (value, _) = strings::whole(c)?.unwrap_or_default();
            payload.string_value(&value);
        }
        Kind::List => {
            if let Some(list) = c.engine.as_list(c.hash, c.key, c.now)? {
                payload.list(list.len(), list.forward_from(0));
            }
        }
        Kind::Set => {
            if let Some(set) = c.engine.as_set(c.hash, c.key, c.now)? {
                payload.set(set.len(), set.members());
            }
        }
        Kind::SortedSet => {
            if let Some(sorted) = c.engine.as_sorted(c.hash, c.key, c.now)? {
                payload.sorted_set(sorted.len(), sorted.forward_from(0));
            }
        }
        Kind::Hash => {
            if let Some(hash) = c.engine.as_hash(c.hash, c.key, c.now)? {
                payload.hash(hash.live_len(), hash.fields().map(|field| (field.name, field.value)));
            }
        }
    }
    w.bulk(&payload.finish());
    Ok(())
}

pub(super) fn restore(c: &mut Context, w: &mut Writer) -> Done {
    let mut words = c.words.skip(1).into_iter();
    let ttl = integer(required(&mut words)?).map_err(|_| text("ERR Invalid TTL value, must be >= 0"))?;
    let payload = required(&mut words)?;
    let (mut replace, mut absolute) = (false, false);
    while let Some(word) = words.next() {
        match word.to_ascii_uppercase().as_slice() {
            b"REPLACE" => replace = true,
            b"ABSTTL" => absolute = true,
            b"IDLETIME" if integer(required(&mut words)?)? >= 0 => {}
            b"FREQ" if (0..=255).contains(&integer(required(&mut words)?)?) => {}
            _ => return Err(SYNTAX),
        }
    }
    if ttl < 0 {
        return Err(text("ERR Invalid TTL value, must be >= 0"));
    }
    if !replace && c.engine.get(c.hash, c.key, c.now).is_some() {
        return Err(text("BUSYKEY Target key name already exists."));
    }
    let dumped = dump::read(payload).map_err(|error| match error {
        dump::BadDump::Checksum => text("ERR DUMP payload version or checksum are wrong"),
        dump::BadDump::Format => text("ERR Bad data format"),
    })?;
    let expires = match ttl {
        0 => None,
        _ => Some(c.time_of(ttl, 1, !absolute, "restore")? as UnixMs),
    };
    c.engine.remove(c.hash, c.key, c.now);
    if expires.is_some_and(|expires| expires <= c.now) {
        w.simple("OK");
        return Ok(());
    }
    if let Err(error) = rebuild(c, &dumped) {
        // Better nothing than a part of it.
        c.engine.remove(c.hash, c.key, c.now);
        return Err(error);
    }
    if expires.is_some() {
        c.engine.touch(c.hash, c.key, expires, c.now)?;
    }
    w.simple("OK");
    Ok(())
}

fn rebuild(c: &mut Context, dumped: &Dumped) -> Result<(), Error> {
    let (hash, key, now) = (c.hash, c.key, c.now);
    match dumped {
        Dumped::String(value) => strings::put(c, value, Attributes::default())?,
        Dumped::List(values) => {
            let values = values.iter().map(|value| &value[..]);
            c.engine.list_push(hash, key, End::Back, values, true, now)?;
        }
        Dumped::Set(members) => {
            let members = members.iter().map(|member| &member[..]);
            c.engine.set_add(hash, key, members, |member| numbers::integer(member).is_some(), now)?;
        }
        Dumped::SortedSet(members) => {
            let members = members.iter().map(|(member, score)| (*score, &member[..]));
            c.engine.sorted_add(hash, key, members, ScoreChange::default(), now, |_| {})?;
        }
        Dumped::Hash(fields) => {
            let fields = fields.iter().map(|(field, value)| (&field[..], &value[..]));
            c.engine.hash_set(hash, key, fields, FieldExpiry::Set(None), now)?;
        }
    }
    Ok(())
}
