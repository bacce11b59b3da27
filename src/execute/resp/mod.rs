//! The commands of RESP: one file per family.
//!
//! `dispatch` is generated from the rows of the command table, which name the functions. A command parses its
//! arguments, works on the engine and writes its reply; one that fails returns an [`Error`], which replaces the output
//! written so far.

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
mod slice;
mod sorted;
mod strings;
#[cfg(test)]
mod tests;
mod upload;

use crate::command::table::{Flags, with_handlers};
use crate::command::{Args, Command, End, Part, UnixMs};
use crate::engine::{Engine, KeyHash, PutError, Reader, Upload};
use crate::metrics::{Counter, Counters};
use crate::protocol::resp::Writer;
use crate::slots::Group;
pub use arguments::Error;
use arguments::text;
use ranges::By;
pub use slice::Slice;
use std::borrow::Cow;

/// The context of a command: its key, its engine, its arguments, the time.
pub(super) struct Context<'e> {
    pub(super) engine: &'e mut Engine,
    pub(super) hash: KeyHash,
    pub(super) key: &'e [u8],
    /// The arguments after the command's name.
    pub(super) args: Args<'e>,
    /// The time by the shard's clock, by which everything expires.
    pub(super) now: UnixMs,
    /// How far the wall clock is ahead of `now`, in milliseconds.
    pub(super) wall_ahead_ms: i64,
    pub(super) counters: &'e mut Counters,
    /// The number of shards of the node.
    pub(super) shards: usize,
    /// The longest reply of a command that only reads, in bytes.
    pub(super) reply_bytes_max: usize,
    /// The slice of the command that is to be executed.
    pub(super) slice: Slice,
}

/// A long value to stream as the reply.
#[derive(Debug)]
pub struct Streamed {
    /// Its length in bytes.
    pub length: usize,
    /// Reads the value; to be closed.
    pub reader: Reader,
}

type Done = Result<(), Error>;

impl Context<'_> {
    fn group(&self) -> Group {
        Group::of(self.key)
    }

    /// Counts an error that is the reply.
    fn count_error(&mut self, command: Command, error: &Error) {
        self.counters.replied_error(error.text().as_bytes());
        self.counters.failed(command.row().executed_by(self.args.iter()));
        match error {
            Error::Put(PutError::OutOfMemory) => self.counters.add(Counter::StoreNoMemory),
            Error::Put(PutError::TooLarge) => self.counters.add(Counter::StoreTooLarge),
            _ => {}
        }
    }

    /// Counts a lookup of a key, whatever the command is for.
    fn looked(&mut self, found: bool) {
        count_look(self.counters, found);
    }

    /// Counts a lookup by its result: a value of the wrong type was found too.
    fn looked_up<T, E>(&mut self, found: &Result<Option<T>, E>) {
        count_look(self.counters, !matches!(found, Ok(None)));
    }
}

/// Counts a lookup as a hit or a miss. As in Redis, commands that write do not count, unless they return the string
/// that they replace.
#[inline]
fn count_look(counters: &mut Counters, found: bool) {
    counters.add(Counter::CmdGet);
    counters.add(if found { Counter::GetHits } else { Counter::GetMisses });
}

/// Converts the result of a handler: a reply that is already written, or one that is to be streamed.
trait IntoStreamed {
    fn into_streamed(self) -> Option<Streamed>;
}

impl IntoStreamed for () {
    #[inline]
    fn into_streamed(self) -> Option<Streamed> {
        None
    }
}

impl IntoStreamed for Option<Streamed> {
    #[inline]
    fn into_streamed(self) -> Option<Streamed> {
        self
    }
}

/// Executes a command and appends its reply to `out`. If it returns a long value, the value is to follow the bytes
/// appended.
#[inline]
pub(super) fn call(command: Command, resp3: bool, context: &mut Context, out: &mut Vec<u8>) -> Option<Streamed> {
    let start = out.len();
    let mut writer = Writer::new(out, resp3);
    if command.row().flags.has(Flags::READONLY) {
        writer.limit(context.reply_bytes_max);
    }
    let mut done = dispatch(command, context, &mut writer);
    if writer.is_cut() {
        done = Err(Error::Text(Cow::Owned(format!(
            "ERR the reply is longer than {} bytes, a shard's part of --client-memory",
            context.reply_bytes_max
        ))));
    }
    match done {
        Ok(streamed) => streamed,
        Err(error) => {
            // The error is the whole reply, whatever the slice had planned.
            context.slice.more = false;
            context.count_error(command, &error);
            writer.out().truncate(start);
            error.write(&mut writer);
            None
        }
    }
}

/// Executes a command's part for one key or one shard, and appends the part's bytes to `out`.
pub(super) fn part(command: Command, context: &mut Context, out: &mut Vec<u8>) -> Part {
    let start = out.len();
    match dispatch_part(command, context, out) {
        Ok(part) => part,
        Err(error) => {
            context.count_error(command, &error);
            out.truncate(start);
            out.extend_from_slice(error.text().as_bytes());
            Part::Error
        }
    }
}

/// The error for a command that reached a shard that cannot execute it: the table and the router disagree.
const MISDIRECTED: Error = text("ERR internal error: the command was sent to a shard that does not execute it");

/// Executes a whole command on the shard that its row names.
macro_rules! whole {
    (local $($rest:tt)*) => { Err(MISDIRECTED) };
    (every_shard $($rest:tt)*) => { Err(MISDIRECTED) };
    (cursor $($rest:tt)*) => { Err(MISDIRECTED) };
    (per_key $c:ident $w:ident [InOrder] [$($f:tt)*] [$($arg:expr),*]) => {
        Ok($($f)*($c, $w $(, $arg)*)?.into_streamed())
    };
    (per_key $c:ident $w:ident [Sum] [$($f:tt)*] [$($arg:expr),*]) => {{
        $w.integer($($f)*($c $(, $arg)*)?);
        Ok(None)
    }};
    ($keyed:ident $c:ident $w:ident [] [$($f:tt)*] [$($arg:expr),*]) => {
        Ok($($f)*($c, $w $(, $arg)*)?.into_streamed())
    };
}

/// Executes one part of a command.
macro_rules! one_part {
    (per_key $c:ident $out:ident [Sum] [$($f:tt)*] [$($arg:expr),*]) => { Ok(Part::Count($($f)*($c $(, $arg)*)?)) };
    (every_shard $c:ident $out:ident [$merge:ident] [$($f:tt)*] [$($arg:expr),*]) => {
        Ok($($f)*($c, $out $(, $arg)*)?)
    };
    (cursor $c:ident $out:ident [] [$($f:tt)*] []) => { Ok($($f)*($c, $out)?) };
    ($($rest:tt)*) => { Err(MISDIRECTED) };
}

macro_rules! dispatchers {
    ($({ $command:ident $kind:ident [$($merge:ident)?] [$($f:tt)*] [$($arg:expr),*] [$($local:ident)?] })*) => {
        #[inline]
        fn dispatch(command: Command, c: &mut Context, w: &mut Writer) -> Result<Option<Streamed>, Error> {
            match command {
                $(Command::$command => whole!($kind c w [$($merge)?] [$($f)*] [$($arg),*]),)*
            }
        }

        fn dispatch_part(command: Command, c: &mut Context, out: &mut Vec<u8>) -> Result<Part, Error> {
            match command {
                $(Command::$command => one_part!($kind c out [$($merge)?] [$($f)*] [$($arg),*]),)*
            }
        }
    };
}
with_handlers!(dispatchers);

/// Stores an upload according to its command: the context has the arguments before the value, `after` has those behind
/// it. Appends the reply. The upload is consumed.
pub(super) fn finish_upload(
    command: Command,
    resp3: bool,
    context: &mut Context,
    upload: Result<Upload, PutError>,
    after: Args,
    out: &mut Vec<u8>,
) {
    let mut writer = Writer::new(out, resp3);
    let done = match upload {
        Ok(upload) => upload::finish(command, context, upload, after, &mut writer),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = done {
        context.count_error(command, &error);
        error.write(&mut writer);
    }
}
