//! Replies derived from the command table: COMMAND and its subcommands, and every container's HELP.

use crate::command::table::syntax::{self, Argument, Kind};
use crate::command::table::{Access, Categories, ROWS_COUNT, Row};
use crate::command::{Args, Command};
use crate::protocol::resp::Writer;

/// The most commands that COMMAND INFO and COMMAND DOCS describe by name in one reply: a name of a few bytes asks for
/// kilobytes.
const NAMES_MAX: usize = 1024;

const _: () = assert!(ROWS_COUNT <= NAMES_MAX, "a client may ask for all by name");

/// Replies to COMMAND. `args` include its name.
pub fn command(args: Args, writer: &mut Writer) {
    let row = Command::Command.row();
    if args.len() < 2 {
        return info_of_all(writer);
    }
    let subcommand = match find_subcommand(row, args) {
        Ok(subcommand) => subcommand,
        Err(error) => return writer.error(error),
    };
    let args = args.skip(2);
    match subcommand.name {
        "count" => writer.integer(Command::ALL.len() as i64),
        "docs" | "info" if args.len() > NAMES_MAX => {
            writer.error(format!("ERR too many names: {} are given, {NAMES_MAX} are allowed", args.len()));
        }
        "docs" => docs(args, writer),
        "getkeys" => keys(args, false, writer),
        "getkeysandflags" => keys(args, true, writer),
        "info" if args.is_empty() => info_of_all(writer),
        "info" => {
            writer.array(args.len());
            for name in args {
                match find(name) {
                    Some(row) => info(row, writer),
                    None => writer.null(),
                }
            }
        }
        "list" => list(args, writer),
        _ => help(row, writer),
    }
}

/// Finds the subcommand that a container's arguments name, or returns an error text. `args` include the container's
/// name.
pub fn find_subcommand(row: &'static Row, args: Args) -> Result<&'static Row, String> {
    let name = args.skip(1).iter().next().unwrap_or_default();
    let Some(subcommand) = row.subcommand(name) else {
        let shown = String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned();
        return Err(format!("ERR unknown subcommand '{shown}'. Try {} HELP.", row.name.to_uppercase()));
    };
    if subcommand.accepts(args.len()) { Ok(subcommand) } else { Err(wrong_arity(subcommand)) }
}

/// The error text for a wrong number of arguments.
pub fn wrong_arity(row: &Row) -> String {
    format!("ERR wrong number of arguments for '{}' command", row.full_name())
}

/// Replies to a container's HELP.
pub fn help(row: &Row, writer: &mut Writer) {
    writer.array(1 + row.subcommands.len() * 2);
    writer.simple(&format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", row.name.to_uppercase()));
    for subcommand in row.subcommands {
        let line = format!("{} {}", subcommand.name.to_uppercase(), subcommand.syntax);
        writer.simple(line.trim_end());
        writer.simple(&format!("    {}", subcommand.summary));
    }
}

/// Finds the row of a command, or of a subcommand such as `client|id`.
fn find(name: &[u8]) -> Option<&'static Row> {
    let mut parts = name.splitn(2, |&b| b == b'|');
    let row = Command::find(parts.next()?)?.row();
    match parts.next() {
        Some(subcommand) => row.subcommand(subcommand),
        None => Some(row),
    }
}

fn info_of_all(writer: &mut Writer) {
    writer.array(Command::ALL.len());
    for command in Command::ALL {
        info(command.row(), writer);
    }
}

/// Writes a command's entry in COMMAND INFO.
fn info(row: &Row, writer: &mut Writer) {
    let keys = &row.keys;
    writer.array(10);
    writer.bulk(row.full_name().as_bytes());
    writer.integer(row.arity.into());
    simple_set(row.flags.names(), writer);
    writer.integer(keys.first.into());
    writer.integer(keys.last.into());
    writer.integer(keys.step.into());
    let categories: Vec<String> = row.categories.names().map(|c| format!("@{c}")).collect();
    simple_set(categories.iter().map(String::as_str), writer);
    // Tips are for proxies that split commands over nodes; this version has none.
    writer.set(0);
    if keys.first == 0 {
        writer.set(0);
    } else {
        writer.set(1 + usize::from(keys.stored) * 2);
        key_specification(row, writer);
        if keys.stored {
            stored_key_specification(row, "STORE", writer);
            stored_key_specification(row, "STOREDIST", writer);
        }
    }
    writer.array(row.subcommands.len());
    for subcommand in row.subcommands {
        info(subcommand, writer);
    }
}

/// Writes the key specification of a command: the first key by its position, the others relative to it.
fn key_specification(row: &Row, writer: &mut Writer) {
    let keys = &row.keys;
    writer.map(3);
    writer.bulk(b"flags");
    simple_set(keys.access.names().iter().copied(), writer);
    writer.bulk(b"begin_search");
    writer.map(2);
    text_pair("type", "index", writer);
    writer.bulk(b"spec");
    writer.map(1);
    number_pair("index", keys.first.into(), writer);
    let last = if keys.last < 0 { i64::from(keys.last) } else { i64::from(keys.last) - i64::from(keys.first) };
    find_keys(last, keys.step.into(), writer);
}

/// Writes the key specification of a key that follows the optional argument `keyword`.
fn stored_key_specification(row: &Row, keyword: &str, writer: &mut Writer) {
    writer.map(3);
    writer.bulk(b"flags");
    simple_set(Access::Overwrite.names().iter().copied(), writer);
    writer.bulk(b"begin_search");
    writer.map(2);
    text_pair("type", "keyword", writer);
    writer.bulk(b"spec");
    writer.map(2);
    text_pair("keyword", keyword, writer);
    number_pair("startfrom", i64::from(row.arity.unsigned_abs()), writer);
    find_keys(0, 1, writer);
}

/// Writes how to find the other keys from the first one.
fn find_keys(last: i64, step: i64, writer: &mut Writer) {
    writer.bulk(b"find_keys");
    writer.map(2);
    text_pair("type", "range", writer);
    writer.bulk(b"spec");
    writer.map(3);
    number_pair("lastkey", last, writer);
    number_pair("keystep", step, writer);
    number_pair("limit", 0, writer);
}

/// Replies to COMMAND DOCS, for the named commands or for all.
fn docs(names: Args, writer: &mut Writer) {
    let rows: Vec<&Row> = match names.is_empty() {
        true => Command::ALL.iter().map(|c| c.row()).collect(),
        false => names.iter().filter_map(find).collect(),
    };
    writer.map(rows.len());
    rows.iter().for_each(|row| documentation(row, writer));
}

fn documentation(row: &Row, writer: &mut Writer) {
    let arguments = syntax::arguments(row.syntax);
    writer.bulk(row.full_name().as_bytes());
    writer.map(4 + usize::from(!arguments.is_empty()) + usize::from(!row.subcommands.is_empty()));
    text_pair("summary", row.summary, writer);
    text_pair("since", row.since, writer);
    text_pair("group", row.group, writer);
    text_pair("complexity", row.complexity, writer);
    if !arguments.is_empty() {
        writer.bulk(b"arguments");
        argument_list(&arguments, writer);
    }
    if !row.subcommands.is_empty() {
        writer.bulk(b"subcommands");
        writer.map(row.subcommands.len());
        row.subcommands.iter().for_each(|subcommand| documentation(subcommand, writer));
    }
}

fn argument_list(arguments: &[Argument], writer: &mut Writer) {
    writer.array(arguments.len());
    for argument in arguments {
        let flags = [(argument.optional, "optional"), (argument.multiple, "multiple")];
        let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|&(_, name)| name).collect();
        let is_shown = !matches!(argument.kind, Kind::PureToken | Kind::OneOf | Kind::Block);
        let map = writer.begin_map();
        let mut pairs = 2;
        text_pair("name", &argument.name, writer);
        text_pair("type", argument.kind.name(), writer);
        if is_shown {
            text_pair("display_text", &argument.name, writer);
            pairs += 1;
        }
        if let Some(token) = argument.token {
            text_pair("token", token, writer);
            pairs += 1;
        }
        if !flags.is_empty() {
            writer.bulk(b"flags");
            simple_set(flags.into_iter(), writer);
            pairs += 1;
        }
        if !argument.arguments.is_empty() {
            writer.bulk(b"arguments");
            argument_list(&argument.arguments, writer);
            pairs += 1;
        }
        writer.end(map, pairs);
    }
}

/// Replies to COMMAND GETKEYS and GETKEYSANDFLAGS. `args` are those of the command to examine.
fn keys(args: Args, with_flags: bool, writer: &mut Writer) {
    let all: Vec<&[u8]> = args.iter().collect();
    let container = all.first().and_then(|name| Command::find(name)).map(Command::row);
    let row = match (container, all.get(1)) {
        (Some(row), Some(name)) if !row.subcommands.is_empty() => row.subcommand(name),
        (row, _) => row,
    };
    let Some(row) = row else { return writer.error("ERR Invalid command specified") };
    if row.keys.first == 0 {
        return writer.error("ERR The command has no key arguments");
    }
    if !row.accepts(all.len()) {
        return writer.error("ERR Invalid number of arguments specified for command");
    }
    let keys = keys_of(row, &all);
    writer.array(keys.len());
    for (key, access) in keys {
        if with_flags {
            writer.array(2);
            writer.bulk(key);
            simple_set(access.names().iter().copied(), writer);
        } else {
            writer.bulk(key);
        }
    }
}

/// Finds the keys among a command's arguments, and how each is accessed. The row must accept the number of arguments.
fn keys_of<'a>(row: &Row, args: &[&'a [u8]]) -> Vec<(&'a [u8], Access)> {
    let keys = &row.keys;
    let (first, step) = (usize::from(keys.first), usize::from(keys.step));
    let last = match usize::try_from(keys.last) {
        Ok(last) => last,
        Err(_) => args.len() - usize::from(keys.last.unsigned_abs()),
    };
    let access = match keys.access {
        Access::Varies => access_of(row.command, args),
        access => access,
    };
    let mut found: Vec<_> = args[first..=last].iter().step_by(step).map(|key| (*key, access)).collect();
    if keys.stored {
        let options = &args[usize::from(row.arity.unsigned_abs())..];
        let is_store = |w: &[u8]| w.eq_ignore_ascii_case(b"STORE") || w.eq_ignore_ascii_case(b"STOREDIST");
        // If the option is repeated, the last one counts.
        let target = options.windows(2).rfind(|pair| is_store(pair[0]));
        found.extend(target.map(|pair| (pair[1], Access::Overwrite)));
    }
    found
}

/// How a command accesses its key, where that depends on its arguments.
fn access_of(command: Command, args: &[&[u8]]) -> Access {
    let has = |arg: &[u8]| args[2..].iter().any(|w| w.eq_ignore_ascii_case(arg));
    match command {
        Command::BitField if !has(b"SET") && !has(b"INCRBY") => Access::Read,
        // GET is an option only after the value.
        Command::Set if !args[3..].iter().any(|w| w.eq_ignore_ascii_case(b"GET")) => Access::Overwrite,
        _ => Access::ReadUpdate,
    }
}

/// Replies to COMMAND LIST. `args` are those after both names.
fn list(args: Args, writer: &mut Writer) {
    let all: Vec<&[u8]> = args.iter().collect();
    let is = |arg: &[u8], name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
    let wanted: Box<dyn Fn(&Row) -> bool> = match all[..] {
        [] => Box::new(|_| true),
        [filter, kind, _] if is(filter, "FILTERBY") && is(kind, "MODULE") => Box::new(|_| false),
        [filter, kind, name] if is(filter, "FILTERBY") && is(kind, "ACLCAT") => {
            let category = Categories::NAMES.iter().find(|(_, n)| is(name, n)).map(|&(category, _)| category);
            Box::new(move |row| category.is_some_and(|c| row.categories.has(c)))
        }
        [filter, kind, pattern] if is(filter, "FILTERBY") && is(kind, "PATTERN") => {
            Box::new(move |row| matches(&pattern.to_ascii_lowercase(), row.full_name().as_bytes()))
        }
        _ => return writer.error("ERR syntax error"),
    };
    let set = writer.begin_set();
    let mut count = 0;
    for row in Command::ALL.iter().flat_map(|c| std::iter::once(c.row()).chain(c.row().subcommands)) {
        if wanted(row) {
            writer.bulk(row.full_name().as_bytes());
            count += 1;
        }
    }
    writer.end(set, count);
}

/// True if `name` matches a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        ([b'?', pattern @ ..], [_, name @ ..]) => matches(pattern, name),
        ([a, pattern @ ..], [b, name @ ..]) if a == b => matches(pattern, name),
        _ => false,
    }
}

fn simple_set<'a>(names: impl Iterator<Item = &'a str>, writer: &mut Writer) {
    let set = writer.begin_set();
    let mut count = 0;
    for name in names {
        writer.simple(name);
        count += 1;
    }
    writer.end(set, count);
}

fn text_pair(name: &str, value: &str, writer: &mut Writer) {
    writer.bulk(name.as_bytes());
    writer.bulk(value.as_bytes());
}

fn number_pair(name: &str, value: i64, writer: &mut Writer) {
    writer.bulk(name.as_bytes());
    writer.integer(value);
}

#[cfg(test)]
mod tests;
