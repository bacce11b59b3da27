//! The commands of RESP, one row each: what dispatch, the check of arity, the finding of keys, COMMAND's replies and
//! the documentation are made from.
//!
//! The rows are in `rows.rs`. Their facts (arity, flags, key positions, categories, since when) are those of Redis,
//! which clients rely on.

mod declare;
mod flags;
mod rows;
pub mod syntax;

pub use flags::{Access, Categories, Flags, Keys};
pub use rows::Command;
pub(crate) use rows::with_handlers;
use rows::{COUNT, ROWS};

/// What is known of a command, or of a subcommand.
#[derive(Debug)]
pub struct Row {
    /// The command; of a subcommand, the one that contains it.
    pub command: Command,
    /// The name in lower case; of a subcommand, without that of the command.
    pub name: &'static str,
    /// How many arguments it has, its name included; where negative, at least so many. Of a subcommand, both names
    /// count.
    pub arity: i8,
    /// What it does, and when it may be done.
    pub flags: Flags,
    /// Which of its arguments are keys.
    pub keys: Keys,
    /// What access lists know it by, those that follow from the flags included.
    pub categories: Categories,
    /// What it belongs to in the documentation.
    pub group: &'static str,
    /// The version of Redis that had it first.
    pub since: &'static str,
    /// How its time grows.
    pub complexity: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The arguments after the name. `[…]` is optional, `{…}` belongs together, `a|b` is a choice, `a ...` may be
    /// repeated. What is in capitals is meant literally. A type follows a name after a colon: `int`, `num` (a double),
    /// `time` (a Unix time), `pattern`, `key`. A argument named `key` is one; any other is a string.
    pub syntax: &'static str,
    /// Where it is executed, and how its reply comes about.
    pub handler: Handler,
    /// The argument, counted from the name, that is a value and is streamed when it is long; 0 if there is none.
    pub value_at: u8,
    /// What a container contains.
    pub subcommands: &'static [Row],
}

/// Where a command is executed, and how its reply comes about. The functions themselves stand in the rows too:
/// `with_handlers!` hands them to the modules that define them (`execute::resp`, `shard::commands`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The shard that owns the key executes it.
    Keyed,
    /// With more than one key, it is taken apart: the owner of each key contributes a part.
    PerKey(Merge),
    /// Every shard contributes a part.
    EveryShard(Merge),
    /// The shard that the cursor is at executes it.
    Cursor,
    /// The client's own shard executes it.
    Local,
    /// The owner of the key executes a subcommand that has one; the client's own shard executes the others.
    Container,
}

/// How parts become one reply. An error in any part is the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Counts are added.
    Sum,
    /// One array element per key, in the order of the keys: nothing is merged.
    InOrder,
    /// Arrays are concatenated.
    Array,
    /// The first string that any part has.
    First,
    /// OK, once every part is done.
    Status,
    /// Texts are concatenated.
    Text,
    /// OK if the counts add up to at least one, else Redis's `No such client` error.
    Killed,
}

impl Row {
    /// The name that clients know it by: of a subcommand, `client|id`.
    pub fn full_name(&self) -> String {
        let command = self.command.row();
        if std::ptr::eq(self, command) { self.name.to_owned() } else { format!("{}|{}", command.name, self.name) }
    }

    /// True if the command may have so many arguments, its name included.
    #[inline]
    pub fn accepts(&self, count: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= least } else { count == least }
    }

    /// How its parts become one reply, if it has parts.
    pub fn merge(&self) -> Option<Merge> {
        match self.handler {
            Handler::PerKey(merge) | Handler::EveryShard(merge) => Some(merge),
            Handler::Keyed | Handler::Cursor | Handler::Local | Handler::Container => None,
        }
    }

    /// True if it may take long, so that it is worth to measure how long.
    #[inline]
    pub fn may_be_slow(&self) -> bool {
        !self.flags.has(Flags::FAST) && self.complexity != "O(1)"
    }

    /// The subcommand of this name, in whatever case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Row> {
        self.subcommands.iter().find(|s| s.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

impl Command {
    /// Every command.
    pub const ALL: &'static [Self] = rows::ALL;

    /// What is known of it.
    #[inline]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The command of this name, in whatever case, if it is taken apart key by key ([`Handler::PerKey`]).
    #[inline]
    pub fn find_per_key(name: &[u8]) -> Option<Self> {
        let (lengths, letters) = PER_KEY;
        if name.len() > NAME_BYTES_MAX || lengths >> name.len() & 1 == 0 || letters >> (name[0] & 31) & 1 == 0 {
            return None;
        }
        Self::find(name).filter(|command| matches!(command.row().handler, Handler::PerKey(_)))
    }

    /// The command of this name, in whatever case.
    #[inline]
    pub fn find(name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let ends = Ends::of(name);
        let mut place = ends.place();
        loop {
            let found = PLACES[place];
            if found == NONE {
                return None;
            }
            let command = Self::ALL[usize::from(found)];
            let (own, is_all) = NAMES[usize::from(found)];
            if own == ends && (is_all || command.name().as_bytes().eq_ignore_ascii_case(name)) {
                return Some(command);
            }
            place = (place + 1) % PLACES.len();
        }
    }
}

/// Lengths of the names of commands that are taken apart key by key, and their first letters: one bit each. They rule
/// out nearly all other names before the table is searched.
const PER_KEY: (u64, u32) = {
    let (mut lengths, mut letters, mut n) = (0, 0, 0);
    while n < COUNT {
        if let Handler::PerKey(_) = ROWS[n].handler {
            let name = ROWS[n].name.as_bytes();
            lengths |= 1 << name.len();
            letters |= 1 << (name[0] & 31);
        }
        n += 1;
    }
    (lengths, letters)
};

/// Places for names: so many that most commands are found at the first.
const PLACES_BITS: u32 = 11;

/// Odd, and found by trying: with it no two of today's commands have the same place.
const MULTIPLIER: u64 = 0x75b0_db67_1b72_098b;

/// A place without a command.
const NONE: u8 = u8::MAX;

const _: () = assert!(COUNT < NONE as usize, "a command's number fits in a place");

const _: () = assert!(NAME_BYTES_MAX < u64::BITS as usize, "a name's length is a bit of PER_KEY");

const NAME_BYTES_MAX: usize = {
    let (mut n, mut most) = (0, 0);
    while n < COUNT {
        if ROWS[n].name.len() > most {
            most = ROWS[n].name.len();
        }
        n += 1;
    }
    most
};

/// Commands by the hash of their names; one whose place is taken has the next that is free.
static PLACES: [u8; 1 << PLACES_BITS] = {
    let mut places = [NONE; 1 << PLACES_BITS];
    let mut n = 0;
    while n < COUNT {
        let mut place = Ends::of(ROWS[n].name.as_bytes()).place();
        while places[place] != NONE {
            place = (place + 1) % places.len();
        }
        places[place] = n as u8;
        n += 1;
    }
    places
};

/// The ends of each name, and whether they are all of it, and letters alone: then nothing else is to be compared.
static NAMES: [(Ends, bool); COUNT] = {
    let mut names = [(Ends { head: 0, tail: 0, length: 0 }, false); COUNT];
    let mut n = 0;
    while n < COUNT {
        let name = ROWS[n].name.as_bytes();
        let (mut at, mut letters) = (0, true);
        while at < name.len() {
            letters &= name[at].is_ascii_alphabetic();
            at += 1;
        }
        names[n] = (Ends::of(name), letters && name.len() <= 16);
        n += 1;
    }
    names
};

/// First and last bytes of a name, in capitals, and its length. They tell nearly all commands apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    head: u64,
    tail: u64,
    length: usize,
}

impl Ends {
    /// Clearing one bit makes letters capitals, and makes nothing else a letter.
    #[inline]
    const fn of(name: &[u8]) -> Self {
        const CAPITALS: u64 = 0xdfdf_dfdf_dfdf_dfdf;
        let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
            (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
            _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
                (Some(head), Some(tail)) => (u32::from_le_bytes(*head) as u64, u32::from_le_bytes(*tail) as u64),
                _ => match name {
                    [a] => (*a as u64, 0),
                    [a, b] => (*a as u64, *b as u64),
                    [a, b, c] => (*a as u64 | (*b as u64) << 8, *c as u64),
                    _ => (0, 0),
                },
            },
        };
        Self { head: head & CAPITALS, tail: tail & CAPITALS, length: name.len() }
    }

    /// The place of a name with such ends.
    #[inline]
    const fn place(self) -> usize {
        let mixed = self.head ^ self.tail.rotate_left(29) ^ self.length as u64;
        (mixed.wrapping_mul(MULTIPLIER) >> (u64::BITS - PLACES_BITS)) as usize
    }
}

#[cfg(test)]
mod tests;
