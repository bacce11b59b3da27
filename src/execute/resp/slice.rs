//! Long commands in slices, with other clients' commands in between.
//!
//! A command that has much to do handles a part of it, notes where the next slice begins ([`Slice::go_on`]) and
//! returns; it is then called again with the same arguments. The caller holds its key meanwhile, so the value does not
//! change between two slices and the command is as atomic as any other. The bytes that all slices append make up the
//! reply. Once a slice has appended some, later ones must not fail.

use super::Context;
use crate::command::Args;
use crate::protocol::resp::Writer;

/// Bytes of reply after which a slice ends.
const REPLY_BYTES: usize = 64 << 10;

/// Bytes of a string that a slice visits, per element that it may visit.
const BYTES_PER_ELEMENT: u64 = 512;

/// A bit of [`Slice::from`] that tells the second pass over the arguments from the first.
pub(super) const SECOND_PASS: u64 = 1 << 63;

/// A slice of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where it begins, in the command's own terms: a rank, or an offset into the arguments. 0 for the first slice.
    pub from: u64,
    /// A total of the slices before it.
    pub sum: u64,
    /// The most elements that it visits.
    pub elements_max: usize,
    /// Another slice is to follow; it begins at `from`.
    pub more: bool,
}

impl Slice {
    /// The first slice of a command.
    #[inline]
    pub fn first(elements_max: usize) -> Self {
        Self { from: 0, sum: 0, elements_max, more: false }
    }

    /// The slice after this one.
    pub fn next(self) -> Self {
        Self { more: false, ..self }
    }

    /// Has another slice follow, from a position on.
    pub(super) fn go_on(&mut self, from: u64) {
        (self.from, self.more) = (from, true);
    }

    /// The most bytes of a string that it visits.
    pub(super) fn bytes_max(&self) -> u64 {
        (self.elements_max as u64).saturating_mul(BYTES_PER_ELEMENT)
    }

    /// Has another slice follow if the elements up to `at` of `length` are done.
    #[inline]
    pub(super) fn done_to(&mut self, at: u64, length: u64) {
        if at < length {
            self.go_on(at);
        }
    }

    /// Writes elements until the slice has enough; returns how many.
    #[inline]
    pub(super) fn write<T>(
        &self,
        w: &mut Writer,
        elements: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Writer, T),
    ) -> u64 {
        let start = w.out().len();
        let mut written = 0;
        for element in elements.take(self.elements_max) {
            write(w, element);
            written += 1;
            if w.out().len() - start > REPLY_BYTES {
                break;
            }
        }
        written
    }

    /// Writes an element for each of the arguments that this slice is to handle. `before` comes first of all.
    #[inline]
    pub(super) fn write_each<'a>(
        &mut self,
        w: &mut Writer,
        args: Args<'a>,
        before: impl FnOnce(&mut Writer),
        mut write: impl FnMut(&mut Writer, &'a [u8]),
    ) {
        let mut left = match self.from {
            0 => {
                before(w);
                args.iter()
            }
            from => self.rest(args, from).iter(),
        };
        self.write(w, &mut left, |w, arg| write(w, arg));
        let rest = left.rest().bytes().len();
        if rest > 0 {
            self.go_on((args.bytes().len() - rest) as u64);
        }
    }

    /// The first `count` arguments of this slice.
    pub(super) fn args<'a>(&self, args: Args<'a>, count: usize) -> Args<'a> {
        Args::new(self.rest(args, self.from).bytes(), count)
    }

    /// The arguments from an offset on. Their number is not known: they end with the bytes.
    fn rest<'a>(&self, args: Args<'a>, from: u64) -> Args<'a> {
        Args::new(args.bytes().get((from & !SECOND_PASS) as usize..).unwrap_or_default(), usize::MAX)
    }
}

impl<'e> Context<'e> {
    /// The arguments, of `args`, that this slice is to handle: whole groups of `group`.
    #[inline]
    pub(super) fn some_of(&mut self, args: Args<'e>, group: usize) -> Args<'e> {
        if args.len() <= self.slice.elements_max && self.slice.from & !SECOND_PASS == 0 {
            return args;
        }
        self.cut(args, group)
    }

    #[cold]
    fn cut(&mut self, args: Args<'e>, group: usize) -> Args<'e> {
        let from = self.slice.from;
        let all = self.slice.rest(args, from).bytes();
        let mut left = Args::new(all, usize::MAX).iter();
        let count_max = (self.slice.elements_max / group).max(1) * group;
        let count = left.by_ref().take(count_max).count();
        let rest = left.rest().bytes().len();
        if rest > 0 {
            let pass = from & SECOND_PASS;
            self.slice.go_on(pass | (args.bytes().len() - rest) as u64);
        }
        Args::new(&all[..all.len() - rest], count)
    }

    /// Adds to the total of the slices, which the last one replies.
    #[inline]
    pub(super) fn reply_total(&mut self, w: &mut Writer, count: u64) {
        self.slice.sum += count;
        if !self.slice.more {
            w.integer(self.slice.sum as i64);
        }
    }
}
