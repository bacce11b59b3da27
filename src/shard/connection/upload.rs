//! A long value on its way from a client, from the connection's side.
//!
//! The value goes piece by piece to the owner of the key: straight to the engine, or to a sibling in batches, whose
//! bound is the sender's credit: while a batch is full, the connection waits and its bytes stay in the socket. Nobody
//! holds a second copy of more than that.

use crate::command::Args;
use crate::protocol::memcached::LINE_END;
use crate::protocol::resp::{Limits, Parsed, ProtocolError, parse_rest};

/// What is left of a value is received where it will lie if it has this many bytes or more. Less than that comes as
/// fast through a receive buffer.
const DIRECT_BYTES_MIN: usize = 16 << 10;

/// A value of this length or longer has the armed receive cancelled, so that the rest of it is received where it will
/// lie. A shorter one would pay more for that than it saves: what the socket has comes in several buffers at once.
const MAKES_WAY_BYTES_MIN: usize = 48 << 10;

/// A long value that is being received.
#[derive(Debug)]
pub(in crate::shard) struct UploadSource {
    /// The sibling that owns the key; none if this shard does.
    owner: Option<usize>,
    /// Bytes of the value that are still to come.
    left: usize,
    /// Bytes of the line end that have come, and whether they were right.
    line_end: usize,
    intact: bool,
    /// Arguments of RESP that come after the value, and their bytes so far.
    args_after: usize,
    after: Vec<u8>,
}

/// What the input of a connection is, while it sends a long value.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) enum UploadStep<'a> {
    /// Bytes of the value. Those that the owner takes are reported by [`UploadSource::taken`].
    Piece(&'a [u8]),
    /// All of the input is used; more must come.
    Incomplete,
    /// The value and the arguments after it are complete, with the first `used` bytes of the input.
    Complete { used: usize },
    /// The arguments after the value break the protocol.
    Broken(ProtocolError),
}

impl UploadSource {
    /// A value of `value_bytes` bytes for `owner`, to be followed by `args_after` arguments.
    pub(in crate::shard) fn new(owner: Option<usize>, value_bytes: usize, args_after: usize) -> Self {
        Self { owner, left: value_bytes, line_end: 0, intact: true, args_after, after: Vec::new() }
    }

    /// The sibling that owns the key; none if this shard does.
    pub(in crate::shard) fn owner(&self) -> Option<usize> {
        self.owner
    }

    /// True if enough of the value is still to come for it to be received where it will lie, in this shard's memory.
    pub(in crate::shard) fn is_direct(&self) -> bool {
        self.owner.is_none() && self.left >= DIRECT_BYTES_MIN
    }

    /// True if it is worth cancelling the armed receive at the start of the value.
    pub(in crate::shard) fn makes_way(&self) -> bool {
        self.owner.is_none() && self.left >= MAKES_WAY_BYTES_MIN
    }

    /// Bytes of memory that are held for the arguments after the value.
    pub(in crate::shard) fn memory_bytes(&self) -> usize {
        self.after.capacity()
    }

    /// Bytes of the value that are still to come.
    pub(in crate::shard) fn left(&self) -> usize {
        self.left
    }

    /// What `input` begins with. Bytes of the line end and of the arguments after it are taken; bytes of the value only
    /// by [`UploadSource::taken`].
    pub(in crate::shard) fn step<'a>(&mut self, input: &'a [u8], limits: &Limits) -> UploadStep<'a> {
        if self.left > 0 {
            let count = input.len().min(self.left);
            return if count == 0 { UploadStep::Incomplete } else { UploadStep::Piece(&input[..count]) };
        }
        let count = input.len().min(LINE_END.len() - self.line_end);
        self.intact &= input[..count] == LINE_END[self.line_end..self.line_end + count];
        self.line_end += count;
        if self.line_end < LINE_END.len() {
            return UploadStep::Incomplete;
        }
        if self.args_after == 0 {
            return UploadStep::Complete { used: count };
        }
        let before = self.after.len();
        self.after.extend_from_slice(&input[count..]);
        match parse_rest(&self.after, self.args_after, limits) {
            Parsed::Command { length, .. } => {
                self.after.truncate(length);
                UploadStep::Complete { used: count + length - before }
            }
            Parsed::Broken(error) => UploadStep::Broken(error),
            _ => UploadStep::Incomplete,
        }
    }

    /// Notes that the owner has taken `bytes` bytes of the value.
    pub(in crate::shard) fn taken(&mut self, bytes: usize) {
        self.left -= bytes;
    }

    /// Whether a right line end followed the value, and the arguments after it.
    pub(in crate::shard) fn end(&self) -> (bool, Args<'_>) {
        (self.intact, Args::new(&self.after, self.args_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits::authenticated(1 << 20);

    /// Feeds pieces of input as a connection does; the value, how much input belonged to it, and the arguments after
    /// it.
    fn feed(source: &mut UploadSource, pieces: &[&[u8]]) -> (Vec<u8>, Option<usize>) {
        let (mut value, mut total) = (Vec::new(), 0);
        for piece in pieces {
            let mut at = 0;
            loop {
                match source.step(&piece[at..], &LIMITS) {
                    UploadStep::Piece(bytes) => {
                        // Owners take a part now and then.
                        let count = bytes.len().div_ceil(2);
                        value.extend_from_slice(&bytes[..count]);
                        source.taken(count);
                        at += count;
                    }
                    UploadStep::Incomplete => break,
                    UploadStep::Complete { used } => return (value, Some(total + at + used)),
                    UploadStep::Broken(error) => panic!("{error:?}"),
                }
            }
            total += piece.len();
        }
        (value, None)
    }

    proptest! {
        /// However the network cuts a value and the arguments behind it, the value and its end are found.
        #[test]
        fn any_cut_gives_the_same_value(
            value in prop::collection::vec(any::<u8>(), 1..200),
            options in prop::collection::vec("[a-z]{0,9}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let args: Vec<&[u8]> = options.iter().map(|option| option.as_bytes()).collect();
            let mut input = value.clone();
            input.extend_from_slice(b"\r\n");
            input.extend_from_slice(&crate::command::args::encode(&args));
            let end = input.len();
            input.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for to in cuts.into_iter().chain([input.len()]) {
                pieces.push(&input[from..to]);
                from = to;
            }
            let mut source = UploadSource::new(None, value.len(), args.len());
            let (got, used) = feed(&mut source, &pieces);
            prop_assert_eq!((got, used), (value, Some(end)));
            let (intact, after) = source.end();
            prop_assert!(intact);
            prop_assert_eq!(after.iter().collect::<Vec<_>>(), args);
        }
    }

    #[test]
    fn a_wrong_line_end_is_noticed() {
        let mut source = UploadSource::new(Some(1), 3, 0);
        assert_eq!(feed(&mut source, &[b"abcX\n"]), (b"abc".to_vec(), Some(5)));
        assert_eq!((source.end().0, source.owner()), (false, Some(1)));
    }

    #[test]
    fn arguments_that_break_the_protocol_are_reported() {
        let mut source = UploadSource::new(None, 1, 1);
        source.taken(1);
        assert!(matches!(
            source.step(b"\r\n+x\r\n", &LIMITS),
            UploadStep::Broken(ProtocolError::ExpectedBulk { got: b'+' })
        ));
    }
}
