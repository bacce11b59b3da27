//! DUMP and RESTORE: values of any type in the format of Redis's files.

use super::arguments::{Error, SYNTAX, integer, required, text};
use super::{Context, Done, strings};
use crate::command::{End, UnixMs};
use crate::engine::{Attributes, Bytes, FieldExpiry, Hash, Kind, ScoreChange, Sorted};
use crate::protocol::resp::Writer;
use crate::values::dump::{self, Dumped};
use crate::values::numbers;

pub(super) fn dump(c: &mut Context, w: &mut Writer) -> Done {
    let payload = payload(c);
    c.looked_up(&payload);
    match payload? {
        Some(payload) => w.bulk(&payload.finish()),
        None => w.null(),
    }
    Ok(())
}

fn payload(c: &mut Context) -> Result<Option<dump::Writer>, Error> {
    let Some(known) = c.engine.describe(c.hash, c.key, c.now) else { return Ok(None) };
    Ok(match known.kind {
        Kind::String => strings::whole(c)?.map(|(value, _)| {
            let mut payload = dump::Writer::new(dump::Kind::String);
            payload.string(&value);
            payload
        }),
        Kind::List => {
            let list = c.engine.as_list(c.hash, c.key, c.now)?;
            list.map(|list| elements(dump::Kind::List, list.len(), list.forward_from(0)))
        }
        Kind::Set => {
            let set = c.engine.as_set(c.hash, c.key, c.now)?;
            set.map(|set| elements(dump::Kind::Set, set.len(), set.members()))
        }
        Kind::SortedSet => c.engine.as_sorted(c.hash, c.key, c.now)?.map(|sorted| scored(&sorted)),
        Kind::Hash => {
            let hash = c.engine.as_hash(c.hash, c.key, c.now)?;
            hash.filter(|hash| hash.live_len() > 0).map(|hash| fields(&hash))
        }
    })
}

fn elements<'b>(kind: dump::Kind, length: u64, elements: impl Iterator<Item = Bytes<'b>>) -> dump::Writer {
    let mut payload = dump::Writer::new(kind);
    payload.length(length as usize);
    elements.for_each(|element| payload.string(&element));
    payload
}

fn scored(sorted: &Sorted) -> dump::Writer {
    let mut payload = dump::Writer::new(dump::Kind::SortedSet);
    payload.length(sorted.len() as usize);
    for (member, score) in sorted.backward_from(sorted.len() - 1) {
        payload.string(&member);
        payload.score(score);
    }
    payload
}

fn fields(hash: &Hash) -> dump::Writer {
    let mut payload = dump::Writer::new(dump::Kind::Hash);
    payload.length(hash.live_len() as usize);
    for field in hash.fields() {
        payload.string(&field.name);
        payload.string(&field.value);
    }
    payload
}

/// The options of RESTORE that have an effect.
#[derive(Clone, Copy, Debug, Default)]
struct RestoreOptions {
    replace: bool,
    /// The time to live is given as a Unix time.
    absolute: bool,
}

impl RestoreOptions {
    /// Parses the options. IDLETIME and FREQ are validated, then ignored: the eviction policies keep too little state
    /// to use them.
    fn read<'w>(mut args: impl Iterator<Item = &'w [u8]>) -> Result<Self, Error> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            match arg.to_ascii_uppercase().as_slice() {
                b"REPLACE" => options.replace = true,
                b"ABSTTL" => options.absolute = true,
                b"IDLETIME" => {
                    if integer(required(&mut args)?)? < 0 {
                        return Err(text("ERR Invalid IDLETIME value, must be >= 0"));
                    }
                }
                b"FREQ" => {
                    if !(0..=255).contains(&integer(required(&mut args)?)?) {
                        return Err(text("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                    }
                }
                _ => return Err(SYNTAX),
            }
        }
        Ok(options)
    }
}

pub(super) fn restore(c: &mut Context, w: &mut Writer) -> Done {
    let mut args = c.args.skip(1).into_iter();
    let (ttl, payload) = (required(&mut args)?, required(&mut args)?);
    let RestoreOptions { replace, absolute } = RestoreOptions::read(args)?;
    if !replace && c.engine.get(c.hash, c.key, c.now).is_some() {
        return Err(text("BUSYKEY Target key name already exists."));
    }
    let ttl = integer(ttl)?;
    if ttl < 0 {
        return Err(text("ERR Invalid TTL value, must be >= 0"));
    }
    // What takes more memory to build than the shard has could not be stored either.
    let bytes_max = usize::try_from(c.engine.memory_bytes()).unwrap_or(usize::MAX);
    let dumped = dump::read(payload, bytes_max).map_err(|error| match error {
        dump::BadDump::Footer => text("ERR DUMP payload version or checksum are wrong"),
        dump::BadDump::Type(_) | dump::BadDump::Format => text("ERR Bad data format"),
        dump::BadDump::TooLarge => text("OOM the dump takes more memory to restore than this server has"),
    })?;
    let expires = match ttl {
        0 => None,
        _ => Some(c.time_of(ttl, 1, !absolute, "restore")? as UnixMs),
    };
    c.engine.remove(c.hash, c.key, c.now);
    // A value that has already expired replaces the old value by nothing.
    if expires.is_some_and(|expires| expires <= c.now) {
        w.simple("OK");
        return Ok(());
    }
    if let Err(error) = rebuild(c, &dumped) {
        // Never keep a partly restored value.
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
            // As in ZADD, zero has no sign.
            let members = members.iter().map(|(member, score)| (*score + 0.0, &member[..]));
            c.engine.sorted_add(hash, key, members, ScoreChange::default(), now, |_| {})?;
        }
        Dumped::Hash(fields) => {
            let fields = fields.iter().map(|(field, value)| (&field[..], &value[..]));
            c.engine.hash_set(hash, key, fields, FieldExpiry::Set(None), now)?;
        }
    }
    Ok(())
}
