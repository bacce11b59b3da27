//! The commands of RESP: one file per family.
//!
//! [`call`] dispatches by the command's row. A command reads its arguments, works on the engine and writes its reply; one that
//! fails returns an [`Error`], which is written in place of what it has written.

mod arguments;
mod bitfield;
mod bits;
mod dump;
mod fields;
mod geo;
mod hashes;
mod hyperloglog;
mod keys;
pub mod keyspace;
mod lists;
mod random;
mod ranges;
pub mod scan;
mod sets;
mod sorted;
mod strings;
#[cfg(test)]
mod tests;
mod upload;

use crate::command::{Args, Call, Command, End, UnixMs};
use crate::engine::{Engine, KeyHash, PutError, Reader, Upload};
use crate::metrics::{Counter, Counters};
use crate::protocol::resp::Writer;
use crate::slots::Group;
pub use arguments::Error;
use ranges::By;

/// A command at work: its key on its engine, its arguments, the time.
pub(super) struct Context<'e> {
    pub(super) engine: &'e mut Engine,
    pub(super) hash: KeyHash,
    pub(super) key: &'e [u8],
    /// The arguments after the command's name.
    pub(super) args: Args<'e>,
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
        count_look(self.counters, found);
    }
}

#[inline]
fn count_look(counters: &mut Counters, found: bool) {
    counters.add(Counter::CmdGet);
    counters.add(if found { Counter::GetHits } else { Counter::GetMisses });
}

/// Executes a command that concerns a key, or a shard's part of one that concerns all, and appends its reply to `out`: all
/// of it, unless a long value is returned, which is to follow what was appended.
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
    let args = Args::new(call.args, call.count as usize);
    let mut context = Context { engine, hash, key, args, now, counters, shards };
    let start = out.len();
    let mut writer = Writer::new(out, call.resp3);
    match dispatch(call.command, &mut context, &mut writer) {
        Ok(streamed) => streamed,
        Err(error) => {
            match error {
                Error::Put(PutError::OutOfMemory) => counters.add(Counter::StoreNoMemory),
                Error::Put(PutError::TooLarge) => counters.add(Counter::StoreTooLarge),
                _ => {}
            }
            writer.out().truncate(start);
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
        Command::ZAdd => sorted::add(c, w),
        Command::ZIncrBy => sorted::increment(c, w),
        Command::ZRem => sorted::remove(c, w),
        Command::ZCard => sorted::card(c, w),
        Command::ZScore => sorted::score_of(c, w),
        Command::ZMScore => sorted::scores_of(c, w),
        Command::ZRank => sorted::rank(c, w, false),
        Command::ZRevRank => sorted::rank(c, w, true),
        Command::ZPopMin => sorted::pop(c, w, false),
        Command::ZPopMax => sorted::pop(c, w, true),
        Command::ZRandMember => sorted::random(c, w),
        Command::ZCount => ranges::count(c, w, By::Score),
        Command::ZLexCount => ranges::count(c, w, By::Name),
        Command::ZRange => ranges::range(c, w),
        Command::ZRevRange => ranges::range_by(c, w, By::Rank, true),
        Command::ZRangeByScore => ranges::range_by(c, w, By::Score, false),
        Command::ZRevRangeByScore => ranges::range_by(c, w, By::Score, true),
        Command::ZRangeByLex => ranges::range_by(c, w, By::Name, false),
        Command::ZRevRangeByLex => ranges::range_by(c, w, By::Name, true),
        Command::ZRemRangeByRank => ranges::remove(c, w, By::Rank),
        Command::ZRemRangeByScore => ranges::remove(c, w, By::Score),
        Command::ZRemRangeByLex => ranges::remove(c, w, By::Name),
        Command::PfAdd => hyperloglog::add(c, w),
        Command::PfCount => hyperloglog::count(c, w),
        Command::GeoAdd => geo::add(c, w),
        Command::GeoPos => geo::positions(c, w),
        Command::GeoHash => geo::hashes(c, w),
        Command::GeoDist => geo::distance(c, w),
        Command::GeoSearch => geo::search(c, w),
        Command::GeoRadius | Command::GeoRadiusRo => geo::radius(c, w, false),
        Command::GeoRadiusByMember | Command::GeoRadiusByMemberRo => geo::radius(c, w, true),
        Command::ZScan => sorted::scan(c, w),
        Command::Dump => dump::dump(c, w),
        Command::Restore => dump::restore(c, w),
        Command::LPush => lists::push(c, w, End::Front, true),
        Command::RPush => lists::push(c, w, End::Back, true),
        Command::LPushX => lists::push(c, w, End::Front, false),
        Command::RPushX => lists::push(c, w, End::Back, false),
        Command::LPop => lists::pop(c, w, End::Front),
        Command::RPop => lists::pop(c, w, End::Back),
        Command::LLen => lists::llen(c, w),
        Command::LRange => lists::lrange(c, w),
        Command::LIndex => lists::lindex(c, w),
        Command::LSet => lists::lset(c, w),
        Command::LInsert => lists::linsert(c, w),
        Command::LRem => lists::lrem(c, w),
        Command::LTrim => lists::ltrim(c, w),
        Command::LPos => lists::lpos(c, w),
        Command::SAdd => sets::sadd(c, w),
        Command::SRem => sets::srem(c, w),
        Command::SCard => sets::scard(c, w),
        Command::SIsMember => sets::sismember(c, w),
        Command::SMIsMember => sets::smismember(c, w),
        Command::SMembers => sets::smembers(c, w),
        Command::SRandMember => sets::srandmember(c, w),
        Command::SPop => sets::spop(c, w),
        Command::SScan => sets::sscan(c, w),
        Command::HSet => hashes::hset(c, w),
        Command::HMSet => hashes::hmset(c, w),
        Command::HSetNx => hashes::hsetnx(c, w),
        Command::HGet => hashes::hget(c, w),
        Command::HMGet => hashes::hmget(c, w),
        Command::HGetAll => hashes::hgetall(c, w),
        Command::HDel => hashes::hdel(c, w),
        Command::HExists => hashes::hexists(c, w),
        Command::HLen => hashes::hlen(c, w),
        Command::HKeys => hashes::hkeys(c, w),
        Command::HVals => hashes::hvals(c, w),
        Command::HIncrBy => hashes::hincrby(c, w),
        Command::HIncrByFloat => hashes::hincrbyfloat(c, w),
        Command::HStrLen => hashes::hstrlen(c, w),
        Command::HRandField => hashes::hrandfield(c, w),
        Command::HScan => hashes::hscan(c, w),
        Command::HExpire => fields::hexpire(c, w, 1000, true),
        Command::HPExpire => fields::hexpire(c, w, 1, true),
        Command::HExpireAt => fields::hexpire(c, w, 1000, false),
        Command::HPExpireAt => fields::hexpire(c, w, 1, false),
        Command::HTtl => fields::httl(c, w, 1000, true),
        Command::HPTtl => fields::httl(c, w, 1, true),
        Command::HExpireTime => fields::httl(c, w, 1000, false),
        Command::HPExpireTime => fields::httl(c, w, 1, false),
        Command::HPersist => fields::hpersist(c, w),
        Command::HGetEx => fields::hgetex(c, w),
        Command::HGetDel => fields::hgetdel(c, w),
        Command::HSetEx => fields::hsetex(c, w),
        Command::SetBit => bits::setbit(c, w),
        Command::GetBit => bits::getbit(c, w),
        Command::BitCount => bits::bitcount(c, w),
        Command::BitPos => bits::bitpos(c, w),
        Command::BitField => bitfield::bitfield(c, w, false),
        Command::BitFieldRo => bitfield::bitfield(c, w, true),
        _ => unreachable!("the shard answers what concerns no key"),
    }
    .map(|()| None)
}

/// Stores a value that has come as an upload, as its command says: `call` has the arguments before it, `after` those that follow
/// it. Appends the reply. The upload is gone afterwards.
#[allow(clippy::too_many_arguments)]
pub fn finish_upload(
    call: &Call<&[u8]>,
    key: &[u8],
    hash: KeyHash,
    upload: Result<Upload, PutError>,
    after: Args,
    engine: &mut Engine,
    now: UnixMs,
    counters: &mut Counters,
    out: &mut Vec<u8>,
) {
    let args = Args::new(call.args, call.count as usize);
    let mut context = Context { engine, hash, key, args, now, counters, shards: 0 };
    let mut writer = Writer::new(out, call.resp3);
    let done = match upload {
        Ok(upload) => upload::finish(call.command, &mut context, upload, after, &mut writer),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = done {
        error.write(&mut writer);
    }
}
