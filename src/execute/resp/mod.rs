//! The commands of RESP: one file per family.
//!
//! [`call`] dispatches by the command's row. A command reads its words, works on the engine and writes its reply; one that
//! fails before it has written anything returns an [`Error`], which is written for it.

mod arguments;
mod keys;
pub mod keyspace;
mod strings;
#[cfg(test)]
mod tests;
mod upload;

use crate::command::{Call, Command, UnixMs, Words};
use crate::engine::{Engine, KeyHash, PutError, Reader, Upload};
use crate::metrics::{Counter, Counters};
use crate::protocol::resp::Writer;
use crate::slots::Group;
pub use arguments::Error;

/// A command at work: its key on its engine, its words, the time.
pub(super) struct Context<'e> {
    pub(super) engine: &'e mut Engine,
    pub(super) hash: KeyHash,
    pub(super) key: &'e [u8],
    /// The words after the command's name.
    pub(super) words: Words<'e>,
    pub(super) now: UnixMs,
    pub(super) counters: &'e mut Counters,
    /// How many shards there are.
    pub(super) shards: usize,
}

/// A long value that is the reply.
#[derive(Debug)]
pub struct Streamed {
    /// Its length in bytes.
    pub length: usize,
    /// Where to read it; to be closed.
    pub reader: Reader,
}

type Done = Result<(), Error>;

impl Context<'_> {
    fn group(&self) -> Group {
        Group::of(self.key)
    }

    /// Counts a look at a key.
    fn looked(&mut self, found: bool) {
        self.counters.add(Counter::CmdGet);
        self.counters.add(if found { Counter::GetHits } else { Counter::GetMisses });
    }
}

/// Executes a command that concerns a key, or a shard's part of one that concerns all, and appends its reply to `out`: all of it, unless a long value is returned, which
/// is to follow what was appended.
#[allow(clippy::too_many_arguments)]
#[inline]
pub fn call(
    call: &Call<&[u8]>,
    key: &[u8],
    hash: KeyHash,
    engine: &mut Engine,
    now: UnixMs,
    counters: &mut Counters,
    shards: usize,
    out: &mut Vec<u8>,
) -> Option<Streamed> {
    let words = Words::new(call.words, call.count as usize);
    let mut context = Context { engine, hash, key, words, now, counters, shards };
    let mut writer = Writer::new(out, call.resp3);
    match dispatch(call.command, &mut context, &mut writer) {
        Ok(streamed) => streamed,
        Err(error) => {
            match error {
                Error::Put(PutError::OutOfMemory) => counters.add(Counter::StoreNoMemory),
                Error::Put(PutError::TooLarge) => counters.add(Counter::StoreTooLarge),
                _ => {}
            }
            error.write(&mut writer);
            None
        }
    }
}

#[inline]
fn dispatch(command: Command, c: &mut Context, w: &mut Writer) -> Result<Option<Streamed>, Error> {
    match command {
        Command::Get => return strings::get(c, w),
        Command::MGet => return strings::element(c, w),
        Command::GetEx => return strings::getex(c, w),
        Command::GetDel => strings::getdel(c, w),
        Command::GetSet => strings::getset(c, w),
        Command::Set => strings::set(c, w),
        Command::SetEx => strings::setex(c, w, 1000),
        Command::PSetEx => strings::setex(c, w, 1),
        Command::SetNx => strings::setnx(c, w),
        Command::Append => strings::append(c, w),
        Command::StrLen => strings::strlen(c, w),
        Command::Incr => strings::add(c, w, 1),
        Command::Decr => strings::add(c, w, -1),
        Command::IncrBy => strings::incrby(c, w, false),
        Command::DecrBy => strings::incrby(c, w, true),
        Command::IncrByFloat => strings::incrbyfloat(c, w),
        Command::GetRange | Command::SubStr => strings::getrange(c, w),
        Command::SetRange => strings::setrange(c, w),
        Command::Scan => keyspace::scan(c, w, c.shards as u64),
        Command::Keys => keyspace::keys(c, w),
        Command::RandomKey => keyspace::random(c, w),
        Command::DbSize => keyspace::size(c, w),
        Command::FlushDb => keyspace::flush(c, w, false),
        Command::FlushAll => keyspace::flush(c, w, true),
        Command::Del | Command::Unlink => keys::del(c, w),
        Command::Exists => keys::exists(c, w),
        Command::Touch => keys::touch(c, w),
        Command::Expire => keys::expire(c, w, 1000, true),
        Command::PExpire => keys::expire(c, w, 1, true),
        Command::ExpireAt => keys::expire(c, w, 1000, false),
        Command::PExpireAt => keys::expire(c, w, 1, false),
        Command::Ttl => keys::ttl(c, w, 1000, true),
        Command::PTtl => keys::ttl(c, w, 1, true),
        Command::ExpireTime => keys::ttl(c, w, 1000, false),
        Command::PExpireTime => keys::ttl(c, w, 1, false),
        Command::Persist => keys::persist(c, w),
        Command::Type => keys::kind(c, w),
        Command::Object => keys::object(c, w),
        Command::Memory => keys::memory(c, w),
        _ => unreachable!("the shard answers what concerns no key"),
    }
    .map(|()| None)
}

/// Stores a value that has come as an upload, as its command says: `call` has the words before it, `after` those that follow
/// it. Appends the reply. The upload is gone afterwards.
#[allow(clippy::too_many_arguments)]
pub fn finish_upload(
    call: &Call<&[u8]>,
    key: &[u8],
    hash: KeyHash,
    upload: Result<Upload, PutError>,
    after: Words,
    engine: &mut Engine,
    now: UnixMs,
    counters: &mut Counters,
    out: &mut Vec<u8>,
) {
    let words = Words::new(call.words, call.count as usize);
    let mut context = Context { engine, hash, key, words, now, counters, shards: 0 };
    let mut writer = Writer::new(out, call.resp3);
    let done = match upload {
        Ok(upload) => upload::finish(call.command, &mut context, upload, after, &mut writer),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = done {
        if call.command == Command::Set {
            // Better a miss than a value that the client thinks it replaced.
            engine.remove(hash, key, now);
        }
        error.write(&mut writer);
    }
}
