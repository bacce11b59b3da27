//! The flags, categories and key positions of the command table's rows.

/// Declares a set of named bits.
macro_rules! bits {
    ($(#[$attribute:meta])* $set:ident { $($(#[$doc:meta])* $name:ident $text:literal,)* }) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        $(#[$attribute])*
        pub struct $set(u32);

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Bit { $($name,)* }

        impl $set {
            /// The empty set.
            pub const EMPTY: Self = Self(0);
            $($(#[$doc])* pub const $name: Self = Self(1 << Bit::$name as u32);)*

            /// Each bit, and the name that clients know it by.
            pub const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)*];

            /// The union of both sets.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// True if all bits of `other` are set.
            #[inline]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The names of the bits that are set.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().filter(move |(bit, _)| self.has(*bit)).map(|&(_, name)| name)
            }
        }
    };
}

mod flag {
    bits! {
        /// Properties of a command, and states of the server in which it may be executed.
        Flags {
            /// It may change keys.
            WRITE "write",
            /// It reads keys and changes none.
            READONLY "readonly",
            /// It may need memory, and is rejected when memory is exhausted.
            DENYOOM "denyoom",
            /// It is for administrators.
            ADMIN "admin",
            /// It may not be called by scripts.
            NOSCRIPT "noscript",
            /// It is answered while data is loaded.
            LOADING "loading",
            /// It is answered by a replica that has lost its primary.
            STALE "stale",
            /// It takes constant time, or time that grows with the logarithm of the data.
            FAST "fast",
            /// It is answered before the client authenticates.
            NO_AUTH "no_auth",
            /// It is answered while a script runs.
            ALLOW_BUSY "allow_busy",
            /// It accesses keys that are not among its arguments.
            TOUCHES_ARBITRARY_KEYS "touches_arbitrary_keys",
            /// The positions of its keys depend on other arguments.
            MOVABLE_KEYS "movablekeys",
        }
    }
}
pub use flag::Flags;

mod category {
    bits! {
        /// The categories of commands in access lists.
        Categories {
            /// Commands on keys of any type.
            KEYSPACE "keyspace",
            /// Commands that read.
            READ "read",
            /// Commands that write.
            WRITE "write",
            /// Sets.
            SET "set",
            /// Sorted sets.
            SORTEDSET "sortedset",
            /// Lists.
            LIST "list",
            /// Hashes.
            HASH "hash",
            /// Strings.
            STRING "string",
            /// Strings as arrays of bits.
            BITMAP "bitmap",
            /// HyperLogLogs, which estimate numbers of distinct elements.
            HYPERLOGLOG "hyperloglog",
            /// Geographic positions.
            GEO "geo",
            /// Commands for administrators.
            ADMIN "admin",
            /// Commands with the flag `fast`.
            FAST "fast",
            /// Commands without the flag `fast`.
            SLOW "slow",
            /// Commands that may harm the service.
            DANGEROUS "dangerous",
            /// Connections.
            CONNECTION "connection",
        }
    }
}
pub use category::Categories;

impl Categories {
    /// Adds the categories implied by a command's flags.
    pub(super) const fn implied_by(self, flags: Flags) -> Self {
        let speed = if flags.has(Flags::FAST) { Self::FAST } else { Self::SLOW };
        let read = if flags.has(Flags::READONLY) { Self::READ } else { Self::EMPTY };
        let write = if flags.has(Flags::WRITE) { Self::WRITE } else { Self::EMPTY };
        let admin = if flags.has(Flags::ADMIN) { Self::ADMIN.and(Self::DANGEROUS) } else { Self::EMPTY };
        self.and(speed).and(read).and(write).and(admin)
    }
}

/// How a command accesses a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads metadata, not the data.
    Look,
    /// Returns data.
    Read,
    /// Modifies data.
    Update,
    /// Modifies data and returns some.
    ReadUpdate,
    /// Modifies data or returns some, depending on other arguments.
    Varies,
    /// Adds data.
    Insert,
    /// Removes data.
    Delete,
    /// Removes the key.
    Remove,
    /// Replaces the value.
    Overwrite,
    /// Creates the key.
    Create,
    /// Removes data and returns it.
    Take,
}

impl Access {
    /// The flags of a key specification.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Look => &["RO"],
            Self::Read => &["RO", "access"],
            Self::Update => &["RW", "update"],
            Self::ReadUpdate => &["RW", "access", "update"],
            Self::Varies => &["RW", "access", "update", "variable_flags"],
            Self::Insert => &["RW", "insert"],
            Self::Delete => &["RW", "delete"],
            Self::Remove => &["RM", "delete"],
            Self::Overwrite => &["OW", "update"],
            Self::Create => &["OW", "insert"],
            Self::Take => &["RW", "access", "delete"],
        }
    }
}

/// The positions of a command's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first key's position; 0 if there are no keys. The name is argument 0.
    pub first: u8,
    /// The last key's position; a negative one counts from the end.
    pub last: i8,
    /// The distance from one key to the next.
    pub step: u8,
    /// How the keys are accessed.
    pub access: Access,
    /// A key to store into may follow an argument STORE or STOREDIST.
    pub stored: bool,
}

/// No keys.
pub(super) const fn none() -> Keys {
    Keys { first: 0, last: 0, step: 0, access: Access::Look, stored: false }
}

/// One key, after the name.
pub(super) const fn one(access: Access) -> Keys {
    Keys { first: 1, last: 1, step: 1, access, stored: false }
}

/// One key, after the subcommand's name.
pub(super) const fn second(access: Access) -> Keys {
    Keys { first: 2, last: 2, step: 1, access, stored: false }
}

/// Keys only, after the name.
pub(super) const fn all(access: Access) -> Keys {
    Keys { first: 1, last: -1, step: 1, access, stored: false }
}

/// One key, after the name, and optionally one to store into.
pub(super) const fn stored(access: Access) -> Keys {
    Keys { first: 1, last: 1, step: 1, access, stored: true }
}
