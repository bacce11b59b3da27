//! What is said over the wire, as transcripts (`tests/transcripts/*.txt`, and of RESP `tests/transcripts/resp/*.txt`),
//! against the real binary: with one shard and with several, in one piece and byte by byte.
//!
//! ```text
//! # a comment
//! > sent, with \r\n            {x*300} stands for 300 times x
//! < expected, without \r\n     $name stands for a word: any at first, later the same
//! = close                      the server hangs up
//! = connect                    from here on, on a new connection
//! ```

mod common;

use common::{Client, Node};
use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Send(String),
    Expect(String),
    Close,
    Connect,
}

fn read(path: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(path).expect("a transcript");
    let steps = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|line| match line.split_at(1) {
        (">", rest) => Step::Send(expand(rest.strip_prefix(' ').unwrap_or(rest))),
        ("<", rest) => Step::Expect(expand(rest.strip_prefix(' ').unwrap_or(rest))),
        _ if line == "= close" => Step::Close,
        _ if line == "= connect" => Step::Connect,
        _ => panic!("{}: {line:?} is no step", path.display()),
    });
    steps.collect()
}

fn expand(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, repeated)) = rest.split_once('{') {
        let (what, after) = repeated.split_once('}').expect("a closing brace");
        let (unit, count) = what.split_once('*').expect("{text*count}");
        text += before;
        text += &unit.repeat(count.parse().expect("a count"));
        rest = after;
    }
    text + rest
}

#[derive(Clone, Copy, PartialEq)]
enum Pace {
    Lines,
    /// Each byte is received before the next is sent.
    Bytes,
}

/// True for `$name`; RESP's lengths, like `$3`, are no names.
fn is_variable(word: &str) -> bool {
    word.strip_prefix('$').is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn play(path: &Path, address: SocketAddr, sync: &mut Client, pace: Pace) {
    println!("{}", path.display());
    let mut client = Client::connect(address);
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut words: HashMap<String, String> = HashMap::new();
    for (n, step) in read(path).into_iter().enumerate() {
        match step {
            Step::Send(line) => {
                let line =
                    line.split(' ').map(|w| words.get(w).map_or(w, String::as_str)).collect::<Vec<_>>().join(" ");
                let bytes = format!("{line}\r\n").into_bytes();
                // Long values byte by byte would only take long.
                if pace == Pace::Lines || bytes.len() > 600 {
                    client.send(&bytes);
                } else {
                    for byte in bytes {
                        // The server may hang up in the middle of a line.
                        let _ = client.stream.write_all(&[byte]);
                        sync.sync();
                    }
                }
            }
            Step::Expect(expected) => {
                let got = client.line();
                let (expected_words, got_words) = (expected.split(' '), got.split(' '));
                let same = expected.split(' ').count() == got.split(' ').count()
                    && expected_words.zip(got_words).all(|(e, g)| match is_variable(e) {
                        true => words.entry(e.into()).or_insert_with(|| g.into()) == g,
                        false => e == g,
                    });
                assert!(same, "{name}, step {n}: expected {expected:?}, got {got:?}");
            }
            Step::Connect => client = Client::connect(address),
            Step::Close => assert!(client.is_closed(), "{name}, step {n}: the server should hang up"),
        }
    }
}

fn play_all(shards: &str, pace: Pace) {
    let node = Node::start(&["--shards", shards, "--memory", "64"]);
    let mut sync = node.client();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    for (folder, address) in [(folder.clone(), node.address), (folder.join("resp"), node.resp_address)] {
        let entries = std::fs::read_dir(folder).expect("transcripts").map(|e| e.expect("an entry").path());
        let mut paths: Vec<_> = entries.filter(|path| path.is_file()).collect();
        paths.sort();
        assert!(paths.len() >= 8, "{paths:?}");
        for path in paths {
            assert_eq!(sync.ask("flush_all"), "OK");
            play(&path, address, &mut sync, pace);
        }
    }
    node.stop();
}

#[test]
fn one_shard() {
    play_all("1", Pace::Lines);
}

#[test]
fn several_shards() {
    play_all("3", Pace::Lines);
}

#[test]
fn byte_by_byte() {
    play_all("1", Pace::Bytes);
}

#[test]
fn several_shards_byte_by_byte() {
    play_all("2", Pace::Bytes);
}
