//! The command table: names, arities, and consistency between rows.

use super::*;
use std::collections::HashSet;

#[test]
fn every_command_is_found_by_its_name() {
    for &command in Command::ALL {
        let name = command.name();
        assert_eq!(command.row().command, command, "rows are in the order of the commands");
        assert_eq!(Command::find(name.as_bytes()), Some(command));
        assert_eq!(Command::find(name.to_uppercase().as_bytes()), Some(command));
        let mixed: String =
            name.char_indices().map(|(n, c)| if n % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
        assert_eq!(Command::find(mixed.as_bytes()), Some(command));
        assert_eq!(
            format!("{command:?}").to_lowercase(),
            name.replace('_', ""),
            "the variant is named like the command"
        );
    }
}

#[test]
fn what_is_no_command_is_not_found() {
    for name in ["", "G", "GETS", "G\u{5}T", "GE", "FOO", "MULTI", "EVAL", "georadiusbymember_rox", "SE\0", "\0\0\0"] {
        assert_eq!(Command::find(name.as_bytes()), None, "{name:?}");
    }
    for &command in Command::ALL {
        let name = command.name().as_bytes();
        for at in 0..name.len() {
            let mut other = name.to_vec();
            other[at] = b'!';
            assert_eq!(Command::find(&other), None);
        }
    }
}

#[test]
fn frequent_commands_are_at_the_first_place_looked_at() {
    for name in
        ["get", "set", "del", "incr", "mget", "setex", "expire", "hget", "hset", "lpush", "sadd", "zadd", "ping"]
    {
        assert_eq!(Command::ALL[usize::from(PLACES[Ends::of(name.as_bytes()).place()])].name(), name);
    }
}

#[test]
fn rows_make_sense() {
    let names: HashSet<_> = Command::ALL.iter().map(|c| c.name()).collect();
    assert_eq!(names.len(), Command::ALL.len(), "names are unique");
    let rows = || ROWS.iter().flat_map(|r| std::iter::once(r).chain(r.subcommands));
    for row in rows() {
        let name = row.name;
        assert_eq!(name, name.to_lowercase());
        assert!(row.summary.ends_with('.') && row.complexity.starts_with("O("), "{name}");
        assert!(!row.flags.has(Flags::WRITE.and(Flags::READONLY)), "{name}");
        assert!(row.keys.first == 0 || row.flags.has(Flags::WRITE) || row.flags.has(Flags::READONLY), "{name}");
        assert!(
            usize::from(row.keys.first) < usize::from(row.arity.unsigned_abs()),
            "{name}: the first key must be there"
        );
        assert_eq!(row.keys.stored, row.flags.has(Flags::MOVABLE_KEYS), "{name}");
        assert!(!row.flags.has(Flags::DENYOOM) || row.flags.has(Flags::WRITE), "{name}");
    }
    for container in ROWS.iter().filter(|r| !r.subcommands.is_empty()) {
        assert!(container.subcommand(b"HELP").is_some(), "{}", container.name);
        assert!(container.subcommand(b"nothing").is_none());
    }
}

#[test]
fn rows_have_numbers() {
    assert!(Row::all().enumerate().all(|(n, row)| row.number() == n));
    assert_eq!(Row::all().count(), ROWS_COUNT);
    let row = Command::Config.row();
    assert_eq!(row.executed_by([&b"GET"[..]].into_iter()).full_name(), "config|get");
    assert_eq!(row.executed_by([&b"nothing"[..]].into_iter()).full_name(), "config");
    assert_eq!(Command::Get.row().executed_by([&b"get"[..]].into_iter()).full_name(), "get");
}

#[test]
fn arity() {
    assert!(Command::Get.row().accepts(2) && !Command::Get.row().accepts(1) && !Command::Get.row().accepts(3));
    assert!(Command::Set.row().accepts(3) && Command::Set.row().accepts(9) && !Command::Set.row().accepts(2));
    assert!(Command::PfCount.row().accepts(2) && !Command::PfCount.row().accepts(3));
    let usage = Command::Memory.row().subcommand(b"Usage").expect("a subcommand");
    assert!(usage.accepts(3) && usage.accepts(5) && !usage.accepts(2));
}
