//! The commands of RESP, one row each. Dispatch, the check of arity, the finding of keys, COMMAND's replies and the
//! documentation are derived from the rows.
//!
//! The rows are in `rows.rs`. Their facts (arity, flags, key positions, categories, first version) are those of Redis,
//! which clients rely on.

mod declare;
mod flags;
mod rows;
pub mod syntax;

pub use flags::{Access, Categories, Flags, Keys};
pub use rows::Command;
pub(crate) use rows::with_handlers;
use rows::{COUNT, ROWS};

/// The description of a command, or of a subcommand.
#[derive(Debug)]
pub struct Row {
    /// The command; for a subcommand, its container.
    pub command: Command,
    /// The name in lower case; for a subcommand, without the container's name.
    pub name: &'static str,
    /// The number of arguments, the name included; a negative arity -n means at least n. For a subcommand, both names
    /// count.
    pub arity: i8,
    /// Properties of the command, and states of the server in which it may be executed.
    pub flags: Flags,
    /// The positions of its keys.
    pub keys: Keys,
    /// Its categories in access lists, including those implied by the flags.
    pub categories: Categories,
    /// Its group in the documentation.
    pub group: &'static str,
    /// The first version of Redis that had it.
    pub since: &'static str,
    /// Its time complexity.
    pub complexity: &'static str,
    /// Its description in one sentence.
    pub summary: &'static str,
    /// The arguments after the name. `[…]` is optional, `{…}` is a group, `a|b` is a choice, `a ...` may be repeated.
    /// Capitals are literal. A type may follow a name after a colon: `int`, `num` (a double), `time` (a Unix time),
    /// `pattern`, `key`. An argument named `key` is a key; any other without a type is a string.
    pub syntax: &'static str,
    /// Which shard executes it, and how its reply is produced.
    pub handler: Handler,
    /// The position, counted from the name, of the value that is streamed if it is long; 0 if there is no such
    /// argument.
    pub value_at: u8,
    /// The subcommands of a container.
    pub subcommands: &'static [Row],
}

/// Which shard executes a command, and how its reply is produced. The rows name the functions too: `with_handlers!`
/// passes them to the modules that define them (`execute::resp`, `shard::commands`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// The shard that owns the key executes it.
    Keyed,
    /// With several keys, it is split: the owner of each key contributes a part.
    PerKey(Merge),
    /// Every shard contributes a part.
    EveryShard(Merge),
    /// The shard that the cursor names executes it.
    Cursor,
    /// The client's own shard executes it.
    Local,
    /// A subcommand with a key is executed by the key's owner, any other by the client's own shard.
    Container,
}

/// How parts are merged into one reply. An error in any part becomes the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Adds counts.
    Sum,
    /// One array element per key, in the order of the keys: nothing is merged.
    InOrder,
    /// Concatenates arrays.
    Array,
    /// Concatenates the slices of one reply, which goes out as they come.
    Slices,
    /// The string that was drawn with the lowest rank.
    Drawn,
    /// Concatenates pages of a scan; the cursor is the last one's.
    Page,
    /// Replies OK once every part is done.
    Status,
    /// Concatenates texts.
    Text,
    /// Concatenates lines of memcached's `stats`, and ends them.
    Stats,
    /// Replies OK if the counts add up to at least one, else Redis's `No such client` error.
    Killed,
}

impl Row {
    /// The name that clients use; for a subcommand, `client|id`.
    pub fn full_name(&self) -> String {
        let command = self.command.row();
        if std::ptr::eq(self, command) { self.name.to_owned() } else { format!("{}|{}", command.name, self.name) }
    }

    /// True if the command accepts `count` arguments, its name included.
    #[inline]
    pub fn accepts(&self, count: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= least } else { count == least }
    }

    /// How its parts are merged; None if its reply has no parts.
    pub fn merge(&self) -> Option<Merge> {
        match self.handler {
            Handler::PerKey(merge) | Handler::EveryShard(merge) => Some(merge),
            Handler::Keyed | Handler::Cursor | Handler::Local | Handler::Container => None,
        }
    }

    /// True if its time grows with the data, so that its duration is always measured.
    pub fn may_be_slow(&self) -> bool {
        !self.flags.has(Flags::FAST) && self.complexity != "O(1)"
    }

    /// The row that a call of this command with these arguments is counted under: its own, or the subcommand's.
    pub fn executed_by<'a>(&'static self, mut args: impl Iterator<Item = &'a [u8]>) -> &'static Self {
        match args.next().filter(|_| !self.subcommands.is_empty()) {
            Some(name) => self.subcommand(name).unwrap_or(self),
            None => self,
        }
    }

    /// Its number among all rows ([`Row::all`]). A command's is its position among the commands.
    pub fn number(&self) -> usize {
        let command = self.command.row();
        match command.subcommands.iter().position(|subcommand| std::ptr::eq(subcommand, self)) {
            Some(n) => SUBCOMMANDS_FROM[self.command as usize] + n,
            None => self.command as usize,
        }
    }

    /// All rows in the order of their numbers: first those of the commands, then those of subcommands.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        ROWS.iter().chain(ROWS.iter().flat_map(|row| row.subcommands))
    }

    /// Finds a subcommand by name, ignoring case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Row> {
        self.subcommands.iter().find(|s| s.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

impl Command {
    /// Every command.
    pub const ALL: &'static [Self] = rows::ALL;

    /// The command's row.
    #[inline]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Finds a command that is split key by key ([`Handler::PerKey`]) by its name, ignoring case.
    #[inline]
    pub fn find_per_key(name: &[u8]) -> Option<Self> {
        let (lengths, letters) = PER_KEY;
        if name.len() > NAME_BYTES_MAX || lengths >> name.len() & 1 == 0 || letters >> (name[0] & 31) & 1 == 0 {
            return None;
        }
        Self::find(name).filter(|command| matches!(command.row().handler, Handler::PerKey(_)))
    }

    /// Finds a command by its name, ignoring case.
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

/// The number of the first subcommand's row, per command.
const SUBCOMMANDS_FROM: [usize; COUNT] = {
    let mut from = [COUNT; COUNT];
    let mut n = 1;
    while n < COUNT {
        from[n] = from[n - 1] + ROWS[n - 1].subcommands.len();
        n += 1;
    }
    from
};

/// The number of rows, those of subcommands included.
pub const ROWS_COUNT: usize = SUBCOMMANDS_FROM[COUNT - 1] + ROWS[COUNT - 1].subcommands.len();

/// The lengths of the names of commands that are split key by key, and their first letters, as bit sets. They exclude
/// nearly all other names before the table is searched.
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

/// The size of the hash table of names, in bits: large enough that most commands are found at the first probe.
const PLACES_BITS: u32 = 11;

/// Odd, found by trial: with it, no two of today's commands collide.
const MULTIPLIER: u64 = 0x75b0_db67_1b72_098b;

/// An empty place in the hash table.
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

/// Commands by the hash of their names; a collision takes the next free place.
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

/// The ends of each name, and whether they cover the whole name with nothing but letters: then comparing the ends
/// suffices.
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

/// The first and last bytes of a name, in capitals, and its length. They distinguish nearly all commands.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    head: u64,
    tail: u64,
    length: usize,
}

impl Ends {
    /// Clearing one bit makes letters capitals, and turns no other byte into a letter.
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

    /// The hash table place of a name with these ends.
    #[inline]
    const fn place(self) -> usize {
        let mixed = self.head ^ self.tail.rotate_left(29) ^ self.length as u64;
        (mixed.wrapping_mul(MULTIPLIER) >> (u64::BITS - PLACES_BITS)) as usize
    }
}

#[cfg(test)]
mod tests;
