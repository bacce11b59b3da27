//! What rows of the command table say with single bits, and which arguments are keys.

/// Declares a set of named bits.
macro_rules! bits {
    ($(#[$attribute:meta])* $set:ident { $($(#[$doc:meta])* $name:ident $text:literal,)* }) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        $(#[$attribute])*
        pub struct $set(u32);

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Bit { $($name,)* }

        impl $set {
            /// None of them.
            pub const EMPTY: Self = Self(0);
            $($(#[$doc])* pub const $name: Self = Self(1 << Bit::$name as u32);)*

            /// Each of them, and what clients call it.
            pub const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)*];

            /// Those of both.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// True if all of `other` are among them.
            #[inline]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// What clients call those that are set.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().filter(move |(bit, _)| self.has(*bit)).map(|&(_, name)| name)
            }
        }
    };
}

mod flag {
    bits! {
        /// What a command does, and when it may be done.
        Flags {
            /// It may change keys.
            WRITE "write",
            /// It reads keys and changes none.
            READONLY "readonly",
            /// It may need memory, and is refused when there is none.
            DENYOOM "denyoom",
            /// For administrators.
            ADMIN "admin",
            /// Not to be used in scripts.
            NOSCRIPT "noscript",
            /// Answered while data is loaded.
            LOADING "loading",
            /// Answered by a replica that has lost its owner.
            STALE "stale",
            /// Its time does not grow with the data, or by its logarithm.
            FAST "fast",
            /// Answered before the password is known.
            NO_AUTH "no_auth",
            /// Answered while a script runs.
            ALLOW_BUSY "allow_busy",
            /// It concerns keys that it is not given.
            TOUCHES_ARBITRARY_KEYS "touches_arbitrary_keys",
            /// Which arguments are keys depends on other arguments.
            MOVABLE_KEYS "movablekeys",
        }
    }
}
pub use flag::Flags;

mod category {
    bits! {
        /// What access lists know a command by.
        Categories {
            /// Keys of any type.
            KEYSPACE "keyspace",
            /// Reads.
            READ "read",
            /// Writes.
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
            /// Strings as bits.
            BITMAP "bitmap",
            /// Estimates of how many different elements there are.
            HYPERLOGLOG "hyperloglog",
            /// Places on the globe.
            GEO "geo",
            /// For administrators.
            ADMIN "admin",
            /// Quick.
            FAST "fast",
            /// Not quick.
            SLOW "slow",
            /// To be thought about first.
            DANGEROUS "dangerous",
            /// Connections.
            CONNECTION "connection",
        }
    }
}
pub use category::Categories;

impl Categories {
    /// With those that follow from a command's flags.
    pub(super) const fn implied_by(self, flags: Flags) -> Self {
        let speed = if flags.has(Flags::FAST) { Self::FAST } else { Self::SLOW };
        let read = if flags.has(Flags::READONLY) { Self::READ } else { Self::EMPTY };
        let write = if flags.has(Flags::WRITE) { Self::WRITE } else { Self::EMPTY };
        let admin = if flags.has(Flags::ADMIN) { Self::ADMIN.and(Self::DANGEROUS) } else { Self::EMPTY };
        self.and(speed).and(read).and(write).and(admin)
    }
}

/// What a command does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looks at what is there, not at the data.
    Look,
    /// Returns data.
    Read,
    /// Changes data.
    Update,
    /// Changes data and returns some.
    ReadUpdate,
    /// Changes data or returns some, as other arguments say.
    Varies,
    /// Adds data.
    Insert,
    /// Removes data.
    Delete,
    /// Removes the key.
    Remove,
    /// Puts something in the place of what was there.
    Overwrite,
    /// Makes the key.
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

/// Which arguments of a command are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first; 0 if there is none. The name is argument 0.
    pub first: u8,
    /// The last; where negative, counted from the end.
    pub last: i8,
    /// From one to the next.
    pub step: u8,
    /// What is done with them.
    pub access: Access,
    /// A key to store into may follow the arguments STORE and STOREDIST.
    pub stored: bool,
}

/// No argument is a key.
pub(super) const fn none() -> Keys {
    Keys { first: 0, last: 0, step: 0, access: Access::Look, stored: false }
}

/// The argument after the name.
pub(super) const fn one(access: Access) -> Keys {
    Keys { first: 1, last: 1, step: 1, access, stored: false }
}

/// The argument after the subcommand's name.
pub(super) const fn second(access: Access) -> Keys {
    Keys { first: 2, last: 2, step: 1, access, stored: false }
}

/// All arguments after the name.
pub(super) const fn all(access: Access) -> Keys {
    Keys { first: 1, last: -1, step: 1, access, stored: false }
}

/// The argument after the name, and one to store into.
pub(super) const fn stored(access: Access) -> Keys {
    Keys { first: 1, last: 1, step: 1, access, stored: true }
}
