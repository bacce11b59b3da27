//! HyperLogLogs: strings that estimate the number of distinct elements.

use super::arguments::{Error, text};
use super::{Context, Done, strings};
use crate::engine::Attributes;
use crate::protocol::resp::Writer;
use crate::values::hyperloglog::{self, Corrupt};

impl From<Corrupt> for Error {
    fn from(_: Corrupt) -> Self {
        text("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// The sketch at the key; None if the key does not exist.
fn sketch(c: &mut Context) -> Result<Option<(Vec<u8>, Attributes)>, Error> {
    match strings::whole(c)? {
        Some((value, _)) if !hyperloglog::is_valid(&value) => {
            Err(text("WRONGTYPE Key is not a valid HyperLogLog string value."))
        }
        found => Ok(found),
    }
}

/// PFADD.
pub(super) fn add(c: &mut Context, w: &mut Writer) -> Done {
    let found = sketch(c)?;
    let mut changed = found.is_none();
    let (mut sketch, attributes) = found.unwrap_or_else(|| (hyperloglog::create(), Attributes::default()));
    for element in c.some_of(c.args.skip(1), 1) {
        changed |= hyperloglog::add(&mut sketch, element)?;
    }
    if changed {
        strings::put(c, &sketch, attributes)?;
    }
    c.slice.sum |= u64::from(changed);
    c.reply_total(w, 0);
    Ok(())
}

/// PFCOUNT of one key. The estimate is cached in the string, where it is valid until the next change.
pub(super) fn count(c: &mut Context, w: &mut Writer) -> Done {
    let found = sketch(c);
    c.looked_up(&found);
    let Some((mut sketch, _)) = found? else {
        w.integer(0);
        return Ok(());
    };
    let is_kept = hyperloglog::cached_count(&sketch).is_some();
    let count = hyperloglog::count(&mut sketch)?;
    if !is_kept {
        strings::write_at(c, hyperloglog::COUNT.start, &sketch[hyperloglog::COUNT])?;
    }
    w.integer(count as i64);
    Ok(())
}
