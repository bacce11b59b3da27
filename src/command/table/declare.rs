//! The macro that generates the enum of commands, their rows and the list of their handlers from one declaration
//! (`rows.rs`).

/// Declares the commands, and their rows in the same order.
macro_rules! commands {
    ($($group:literal { $(
        $command:ident $name:literal, $arity:literal, $($flag:ident)|+, $keys:expr, $($category:ident)|+,
            $since:literal, $complexity:literal, $summary:literal, $syntax:literal
            $({ $(
                $sub_name:literal, $sub_arity:literal, $($sub_flag:ident)|+, $sub_keys:expr,
                    $($sub_category:ident)|+, $sub_since:literal, $sub_complexity:literal, $sub_summary:literal,
                    $sub_syntax:literal;
            )* })?
            => $kind:ident $(($merge:ident))? $(value $value:literal)? [$($handler:ident)::+ $(($($arg:expr),*))?]
                $(else $local:ident)?;
    )* })*) => {
        /// A command of RESP.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Command { $($(#[doc = $summary] $command,)*)* }

        /// Every command.
        pub(super) const ALL: &[Command] = &[$($(Command::$command,)*)*];

        /// The number of commands.
        pub(super) const COUNT: usize = ALL.len();

        /// A row for each command.
        pub(super) static ROWS: [Row; COUNT] = [$($({
            const FLAGS: Flags = Flags::EMPTY$(.and(Flags::$flag))+;
            const HANDLER: Handler = handler!($kind $($merge)?);
            Row {
                command: Command::$command,
                name: $name,
                arity: $arity,
                flags: FLAGS,
                keys: $keys,
                categories: Categories::EMPTY$(.and(Categories::$category))+.implied_by(FLAGS),
                group: $group,
                since: $since,
                complexity: $complexity,
                summary: $summary,
                syntax: $syntax,
                handler: HANDLER,
                value_at: 0 $(+ $value)?,
                subcommands: &[$($({
                    const FLAGS: Flags = Flags::EMPTY$(.and(Flags::$sub_flag))+;
                    Row {
                        command: Command::$command,
                        name: $sub_name,
                        arity: $sub_arity,
                        flags: FLAGS,
                        keys: $sub_keys,
                        categories: Categories::EMPTY$(.and(Categories::$sub_category))+.implied_by(FLAGS),
                        group: $group,
                        since: $sub_since,
                        complexity: $sub_complexity,
                        summary: $sub_summary,
                        syntax: $sub_syntax,
                        handler: HANDLER,
                        value_at: 0,
                        subcommands: &[],
                    }
                },)*)?],
            }
        },)*)*];

        /// Calls a macro with every command: its kind, how its parts are merged, its function with constant arguments,
        /// and the function for subcommands without a key.
        macro_rules! with_handlers {
            ($callback:ident) => {
                $callback! { $($({
                    $command $kind [$($merge)?] [$($handler)::+] [$($($arg),*)?] [$($local)?]
                })*)* }
            };
        }
        pub(crate) use with_handlers;
    };
}

/// The [`Handler`] of a kind.
macro_rules! handler {
    (keyed) => {
        Handler::Keyed
    };
    (per_key $merge:ident) => {
        Handler::PerKey(Merge::$merge)
    };
    (every_shard $merge:ident) => {
        Handler::EveryShard(Merge::$merge)
    };
    (cursor) => {
        Handler::Cursor
    };
    (local) => {
        Handler::Local
    };
    (container) => {
        Handler::Container
    };
}

pub(super) use {commands, handler};
