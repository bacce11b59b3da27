//! Parses the arguments of a command from the [`syntax`](super::Row::syntax) of its row.
//!
//! ```text
//! key [NX|XX] {score:num member} ...      a key; one of two tokens, or none; pairs, at least one
//! ```

/// An argument, or a group of arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name; a group has the names of its members.
    pub name: String,
    /// What kind of argument it is.
    pub kind: Kind,
    /// The literal token that precedes it, or that it consists of.
    pub token: Option<&'static str>,
    /// True if it may be omitted.
    pub optional: bool,
    /// True if it may be repeated.
    pub multiple: bool,
    /// The members of a choice or block.
    pub arguments: Vec<Argument>,
}

/// Kinds of arguments, as COMMAND DOCS names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    String,
    /// An integer.
    Integer,
    /// A floating-point number.
    Double,
    /// A key.
    Key,
    /// A glob pattern.
    Pattern,
    /// A Unix time.
    UnixTime,
    /// The token alone.
    PureToken,
    /// A choice of one of several.
    OneOf,
    /// A sequence of several.
    Block,
}

impl Kind {
    /// The name that clients know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Double => "double",
            Self::Key => "key",
            Self::Pattern => "pattern",
            Self::UnixTime => "unix-time",
            Self::PureToken => "pure-token",
            Self::OneOf => "oneof",
            Self::Block => "block",
        }
    }
}

/// Parses the arguments that a syntax describes. Where it is malformed, the arguments after the mistake are missing.
pub fn arguments(syntax: &'static str) -> Vec<Argument> {
    let mut left = syntax;
    sequence(&mut left)
}

/// Parses arguments up to the end, or up to the delimiter that ends a choice or a group.
fn sequence(left: &mut &'static str) -> Vec<Argument> {
    let mut arguments = Vec::new();
    loop {
        *left = left.trim_start();
        if left.is_empty() || left.starts_with(['|', ']', '}']) {
            return arguments;
        }
        if let Some(rest) = left.strip_prefix("...") {
            *left = rest;
            arguments.last_mut().into_iter().for_each(|a: &mut Argument| a.multiple = true);
        } else {
            arguments.push(argument(left));
        }
    }
}

fn argument(left: &mut &'static str) -> Argument {
    if left.starts_with(['[', '{']) {
        let optional = left.starts_with('[');
        let mut group = choice(left);
        group.optional |= optional;
        return group;
    }
    let arg = arg(left);
    if arg.contains(|c: char| c.is_ascii_lowercase()) {
        return named(arg);
    }
    let after = left.trim_start();
    let is_before_another = after.starts_with(|c: char| c.is_ascii_lowercase() || c == '{');
    if is_before_another {
        *left = after;
        let mut argument = argument(left);
        argument.token = Some(arg);
        return argument;
    }
    single(arg.to_lowercase(), Kind::PureToken, Some(arg))
}

/// Parses the content of brackets or braces.
fn choice(left: &mut &'static str) -> Argument {
    let mut choices = Vec::new();
    while left.starts_with(['[', '{', '|']) {
        *left = &left[1..];
        choices.push(together(sequence(left), Kind::Block));
    }
    *left = left.get(1..).unwrap_or("");
    together(choices, Kind::OneOf)
}

/// Groups several arguments.
fn together(mut arguments: Vec<Argument>, kind: Kind) -> Argument {
    if arguments.len() == 1 {
        return arguments.remove(0);
    }
    let names: Vec<&str> = arguments.iter().map(|a| a.name.as_str()).collect();
    let name = names.join("-");
    Argument { arguments, ..single(name, kind, None) }
}

fn arg(left: &mut &'static str) -> &'static str {
    let end = left.find([' ', '|', '[', ']', '{', '}']).unwrap_or(left.len());
    let (arg, rest) = left.split_at(end);
    *left = rest;
    arg
}

/// Parses `name`, or `name:type`.
fn named(arg: &'static str) -> Argument {
    let (name, kind) = match arg.split_once(':') {
        Some((name, "int")) => (name, Kind::Integer),
        Some((name, "num")) => (name, Kind::Double),
        Some((name, "time")) => (name, Kind::UnixTime),
        Some((name, "pattern")) => (name, Kind::Pattern),
        Some((name, "key")) => (name, Kind::Key),
        _ if arg == "key" => (arg, Kind::Key),
        _ => (arg, Kind::String),
    };
    single(name.to_owned(), kind, None)
}

fn single(name: String, kind: Kind, token: Option<&'static str>) -> Argument {
    Argument { name, kind, token, optional: false, multiple: false, arguments: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;

    /// Formats an argument with all its attributes in one line.
    fn shown(argument: &Argument) -> String {
        let inner: Vec<String> = argument.arguments.iter().map(shown).collect();
        format!(
            "{}{}{}{}{}",
            argument.token.map(|t| format!("{t}=")).unwrap_or_default(),
            argument.kind.name(),
            if inner.is_empty() { String::new() } else { format!("({})", inner.join(" ")) },
            if argument.optional { "?" } else { "" },
            if argument.multiple { "*" } else { "" },
        )
    }

    fn all(syntax: &'static str) -> String {
        arguments(syntax).iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_form() {
        assert_eq!(all(""), "");
        assert_eq!(all("key value"), "key string");
        assert_eq!(all("a:int b:num c:time d:pattern e:key f"), "integer double unix-time pattern key string");
        assert_eq!(all("key ..."), "key*");
        assert_eq!(all("[NX|XX] [GET]"), "oneof(NX=pure-token XX=pure-token)? GET=pure-token?");
        assert_eq!(all("[EX s:int|KEEPTTL]"), "oneof(EX=integer KEEPTTL=pure-token)?");
        assert_eq!(all("{score:num member} ..."), "block(double string)*");
        assert_eq!(all("[LIMIT {a:int b:int}]"), "LIMIT=block(integer integer)?");
        assert_eq!(all("[COUNT n:int [ANY]] x"), "block(COUNT=integer ANY=pure-token?)? string");
        assert_eq!(all("[GET {a b} ...]"), "GET=block(string string)?*");
    }

    #[test]
    fn the_syntax_of_every_command_is_well_formed() {
        for row in Command::ALL.iter().flat_map(|c| std::iter::once(c.row()).chain(c.row().subcommands)) {
            let mut left = row.syntax;
            let arguments = sequence(&mut left);
            assert_eq!(left, "", "{}: {}", row.name, row.syntax);
            let container = usize::from(!std::ptr::eq(row, row.command.row()));
            let needed = arguments.iter().filter(|a| !a.optional).count();
            if row.arity > 0 {
                assert!(needed + 1 + container <= row.arity as usize, "{}: {}", row.name, row.syntax);
            }
            let has_key = arguments.iter().any(|a| a.kind == Kind::Key);
            assert_eq!(has_key, row.keys.first > 0, "{}: {}", row.name, row.syntax);
        }
    }

    #[test]
    fn mistakes_do_no_harm() {
        for syntax in ["[", "{a", "a]b", "a|b", "...", "[]", "{}|", "A {"] {
            arguments(syntax);
        }
    }
}
