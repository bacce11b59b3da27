//! COMMAND's replies, as clients read them.

use super::*;
use crate::command::args::encode;

/// The reply to a command line, in RESP2 or RESP3, with `|` for each line end.
fn reply_in(resp3: bool, line: &str) -> String {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let (bytes, mut out) = (encode(&args), Vec::new());
    command(Args::new(&bytes, args.len()), &mut Writer::new(&mut out, resp3));
    String::from_utf8(out).expect("text").replace("\r\n", "|")
}

fn reply(line: &str) -> String {
    reply_in(false, line)
}

/// Skips a RESP3 reply at the start of `text` and returns the rest; panics if it is malformed.
fn skip_reply(text: &str) -> &str {
    let (head, mut rest) = text.split_once('|').expect("a line");
    let count = || head[1..].parse::<usize>().expect("a count");
    let inner = match &head[..1] {
        "+" | ":" | "_" => 0,
        "$" => return rest[count()..].strip_prefix('|').expect("the end of a string"),
        "*" | "~" => count(),
        "%" => count() * 2,
        other => panic!("{other}"),
    };
    for _ in 0..inner {
        rest = skip_reply(rest);
    }
    rest
}

#[test]
fn all_replies_are_well_formed() {
    for line in ["COMMAND", "command INFO", "COMMAND DOCS", "COMMAND LIST", "COMMAND COUNT"] {
        assert_eq!(skip_reply(&reply_in(true, line)), "", "{line}");
    }
    for command in Command::ALL {
        assert_eq!(skip_reply(&reply_in(true, &format!("COMMAND INFO {}", command.name()))), "");
        assert_eq!(skip_reply(&reply_in(true, &format!("COMMAND DOCS {}", command.name()))), "");
    }
}

#[test]
fn info() {
    let get = "*10|$3|get|:2|~2|+readonly|+fast|:1|:1|:1|~3|+@read|+@string|+@fast|~0|\
               ~1|%3|$5|flags|~2|+RO|+access|$12|begin_search|%2|$4|type|$5|index|$4|spec|%1|$5|index|:1|\
               $9|find_keys|%2|$4|type|$5|range|$4|spec|%3|$7|lastkey|:0|$7|keystep|:1|$5|limit|:0|*0|";
    assert_eq!(reply_in(true, "COMMAND INFO GET"), format!("*1|{get}"));
    assert_eq!(reply_in(true, "COMMAND INFO nothing get"), format!("*2|_|{get}"));
    assert!(reply("COMMAND INFO Client|Id client|nothing").starts_with("*2|*10|$9|client|id|:2|*3|+noscript|"));
    assert!(reply("COMMAND INFO client|nothing").ends_with("*1|$-1|"));
    assert!(reply("COMMAND INFO mget").contains("|:1|:-1|:1|"));
}

#[test]
fn docs() {
    assert_eq!(
        reply_in(true, "COMMAND DOCS GETBIT nothing"),
        "%1|$6|getbit|%5|$7|summary|$28|Returns one bit of a string.|$5|since|$5|2.2.0|$5|group|$6|bitmap|\
         $10|complexity|$4|O(1)|$9|arguments|*2|\
         %3|$4|name|$3|key|$4|type|$3|key|$12|display_text|$3|key|\
         %3|$4|name|$6|offset|$4|type|$7|integer|$12|display_text|$6|offset|"
    );
    let set = reply("COMMAND DOCS set");
    assert!(set.contains("|$4|name|$5|nx-xx|$4|type|$5|oneof|$5|flags|*1|+optional|$9|arguments|*2|"), "{set}");
    assert!(reply("COMMAND DOCS object").contains("|$11|subcommands|*10|$15|object|encoding|"));
    assert!(reply("COMMAND DOCS object|freq").starts_with("*2|$11|object|freq|"));
}

#[test]
fn keys() {
    for (line, expected) in [
        ("GET k", "*1|$1|k|"),
        ("MGET a b c", "*3|$1|a|$1|b|$1|c|"),
        ("SET k GET", "*1|$1|k|"),
        ("OBJECT encoding k", "*1|$1|k|"),
        ("GEORADIUS k 1 2 3 m STORE a storedist b", "*2|$1|k|$1|b|"),
        ("GEORADIUS k 1 2 3 m", "*1|$1|k|"),
        ("PING", "-ERR The command has no key arguments|"),
        ("OBJECT help", "-ERR The command has no key arguments|"),
        ("OBJECT nothing k", "-ERR Invalid command specified|"),
        ("NOTHING k", "-ERR Invalid command specified|"),
        ("GET a b", "-ERR Invalid number of arguments specified for command|"),
    ] {
        assert_eq!(reply(&format!("COMMAND GETKEYS {line}")), expected, "{line}");
    }
    for (line, expected) in [
        ("SET k GET", "*1|*2|$1|k|*2|+OW|+update|"),
        ("SET k v get", "*1|*2|$1|k|*3|+RW|+access|+update|"),
        ("BITFIELD k GET u8 0", "*1|*2|$1|k|*2|+RO|+access|"),
        ("BITFIELD k SET u8 0 1", "*1|*2|$1|k|*3|+RW|+access|+update|"),
        ("BITFIELD k", "*1|*2|$1|k|*2|+RO|+access|"),
        ("DEL a b", "*2|*2|$1|a|*2|+RM|+delete|*2|$1|b|*2|+RM|+delete|"),
    ] {
        assert_eq!(reply(&format!("COMMAND GETKEYSANDFLAGS {line}")), expected, "{line}");
    }
}

#[test]
fn lists() {
    assert_eq!(reply("COMMAND LIST FILTERBY ACLCAT hyperloglog"), "*2|$5|pfadd|$7|pfcount|");
    assert_eq!(reply("COMMAND LIST FILTERBY ACLCAT nothing"), "*0|");
    assert_eq!(reply("COMMAND LIST filterby pattern *RADIUS"), "*1|$9|georadius|");
    assert_eq!(reply("COMMAND LIST filterby pattern config|?et"), "*2|$10|config|get|$10|config|set|");
    assert_eq!(reply("COMMAND LIST FILTERBY MODULE any"), "*0|");
    assert_eq!(reply("COMMAND LIST FILTERBY"), "-ERR syntax error|");
    let list = reply_in(true, "COMMAND LIST");
    assert!(
        list.starts_with(&format!("~{ROWS_COUNT}|$3|get|")) && list.contains("|$6|config|$10|config|get|"),
        "{list}"
    );
    assert_eq!(reply("COMMAND COUNT"), format!(":{}|", Command::ALL.len()), "subcommands do not count");
}

/// COMMAND DOCS client, 400,000 times in one command, made a reply of gigabytes.
#[test]
fn names_are_not_described_without_bound() {
    for subcommand in ["DOCS", "INFO"] {
        let line = |names| format!("COMMAND {subcommand}{}", " client".repeat(names));
        assert!(reply(&line(NAMES_MAX)).len() < 16 << 20);
        let refused = format!("-ERR too many names: {} are given, {NAMES_MAX} are allowed|", NAMES_MAX + 1);
        assert_eq!(reply(&line(NAMES_MAX + 1)), refused);
    }
}

#[test]
fn mistakes() {
    assert_eq!(reply("COMMAND nothing"), "-ERR unknown subcommand 'nothing'. Try COMMAND HELP.|");
    assert_eq!(reply("COMMAND COUNT 3"), "-ERR wrong number of arguments for 'command|count' command|");
    assert_eq!(reply("COMMAND GETKEYS"), "-ERR wrong number of arguments for 'command|getkeys' command|");
}

#[test]
fn help_names_every_subcommand() {
    let help = reply("COMMAND HELP");
    assert!(
        help.starts_with("*15|+COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:|+COUNT|+    "),
        "{help}"
    );
}
