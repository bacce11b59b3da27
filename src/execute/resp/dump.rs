//! DUMP and RESTORE: values of any type in the format of Redis's files.

use super::arguments::{Error, SYNTAX, integer, required, text};
use super::slice::SECOND_PASS;
use super::{Context, Done, strings};
use crate::command::{End, UnixMs};
use crate::engine::{Attributes, FieldExpiry, Kind, ScoreChange};
use crate::protocol::resp::Writer;
use crate::values::dump::{self, Dumped};
use crate::values::numbers;

/// Bytes of a payload after which a slice ends.
const SLICE_BYTES: usize = 64 << 10;

/// DUMP. A value of several slices is visited twice: the first pass adds up how long the payload is, since that comes
/// first in the reply, and the second one writes it.
pub(super) fn dump(c: &mut Context, w: &mut Writer) -> Done {
    let slice = c.slice;
    let (is_second_pass, from) = (slice.from & SECOND_PASS != 0, slice.from & !SECOND_PASS);
    let mut payload = match is_second_pass {
        true => dump::Writer::continued(slice.sum),
        false => dump::Writer::continued(0),
    };
    let visited = visit(c, from, &mut payload, is_second_pass);
    if slice.from == 0 {
        c.looked_up(&visited);
    }
    let Some(Visited { to, length, left_out }) = visited? else {
        w.null();
        return Ok(());
    };
    let is_last = to == length;
    if slice.from == 0 && is_last && left_out == 0 {
        w.bulk(&payload.finish());
        return Ok(());
    }
    if !is_second_pass {
        c.slice.sum += payload.len() as u64 + left_out;
        match is_last {
            false => c.slice.go_on(to),
            true => {
                w.bulk_head(c.slice.sum as usize + dump::FOOTER_BYTES);
                c.slice.sum = 0;
                c.slice.go_on(SECOND_PASS);
            }
        }
        return Ok(());
    }
    if is_last {
        w.out().extend_from_slice(&payload.finish());
        w.out().extend_from_slice(b"\r\n");
        return Ok(());
    }
    let (bytes, crc) = payload.take();
    w.out().extend_from_slice(&bytes);
    c.slice.sum = crc;
    c.slice.go_on(SECOND_PASS | to);
    Ok(())
}

/// How far a value was visited, in bytes of a string or elements.
struct Visited {
    to: u64,
    length: u64,
    /// Bytes that were not added to the payload, since their number is all that the first pass is for.
    left_out: u64,
}

/// Adds the elements from a position on to a payload, as many as a slice visits. None if there is no value.
fn visit(
    c: &mut Context,
    from: u64,
    payload: &mut dump::Writer,
    is_second_pass: bool,
) -> Result<Option<Visited>, Error> {
    let Some(known) = c.engine.describe(c.hash, c.key, c.now) else { return Ok(None) };
    let (elements_max, start) = (c.slice.elements_max, payload.len());
    let is_first = from == 0;
    Ok(match known.kind {
        Kind::String => return visit_string(c, from, payload, is_second_pass),
        Kind::List => c.engine.as_list(c.hash, c.key, c.now)?.map(|list| {
            payload.head(is_first, dump::Kind::List, list.len());
            let elements = list.forward_from(from).take(elements_max);
            let to = from + put_all(payload, start, elements, |payload, element| payload.string(&element));
            Visited { to, length: list.len(), left_out: 0 }
        }),
        Kind::Set => c.engine.as_set(c.hash, c.key, c.now)?.map(|set| {
            payload.head(is_first, dump::Kind::Set, set.len());
            let members = set.from(from).take(elements_max);
            let to = from + put_all(payload, start, members, |payload, member| payload.string(&member));
            Visited { to, length: set.len(), left_out: 0 }
        }),
        Kind::SortedSet => c.engine.as_sorted(c.hash, c.key, c.now)?.map(|sorted| {
            payload.head(is_first, dump::Kind::SortedSet, sorted.len());
            let members = sorted.backward_from(sorted.len() - 1 - from).take(elements_max);
            let to = from
                + put_all(payload, start, members, |payload, (member, score)| {
                    payload.string(&member);
                    payload.score(score);
                });
            Visited { to, length: sorted.len(), left_out: 0 }
        }),
        Kind::Hash => {
            let hash = c.engine.as_hash(c.hash, c.key, c.now)?;
            hash.filter(|hash| from > 0 || hash.live_len() > 0).map(|hash| {
                if is_first {
                    payload.head(true, dump::Kind::Hash, hash.live_len());
                }
                let fields = hash.ranks_from(from).take(elements_max);
                let to = from
                    + put_all(payload, start, fields, |payload, field| {
                        if let Some(field) = field {
                            payload.string(&field.name);
                            payload.string(&field.value);
                        }
                    });
                Visited { to, length: hash.len(), left_out: 0 }
            })
        }
    })
}

/// Adds elements to a payload until it has enough; returns how many.
fn put_all<T>(
    payload: &mut dump::Writer,
    start: usize,
    elements: impl Iterator<Item = T>,
    mut put: impl FnMut(&mut dump::Writer, T),
) -> u64 {
    let mut count = 0;
    for element in elements {
        put(payload, element);
        count += 1;
        if payload.len() - start > SLICE_BYTES {
            break;
        }
    }
    count
}

fn visit_string(
    c: &mut Context,
    from: u64,
    payload: &mut dump::Writer,
    is_second_pass: bool,
) -> Result<Option<Visited>, Error> {
    let Some(bytes) = strings::length(c)? else { return Ok(None) };
    let (length, step) = (bytes as u64, c.slice.bytes_max());
    if length <= step {
        payload.kind(dump::Kind::String);
        payload.string(&strings::whole(c)?.unwrap_or_default().0);
        return Ok(Some(Visited { to: length, length, left_out: 0 }));
    }
    // Integers, which have an encoding of their own, are shorter than this.
    payload.head(from == 0, dump::Kind::String, length);
    if !is_second_pass {
        return Ok(Some(Visited { to: length, length, left_out: length }));
    }
    let to = length.min(from + step);
    c.engine.read_range(c.hash, c.key, from as usize..to as usize, c.now, |piece| payload.bytes(piece));
    Ok(Some(Visited { to, length, left_out: 0 }))
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
