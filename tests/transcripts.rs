//! What is said over the wire, as transcripts (`tests/transcripts/*.txt`), against the real binary: with one shard and
//! with several, in one piece and byte by byte.
//!
//! ```text
//! # a comment
//! > sent, with \r\n            {x*300} stands for 300 times x
//! < expected, without \r\n     $name stands for a word: any at first, later the same
//! = close                      the server hangs up
//! ```

mod common;

use common::{Client, Node};
use std::collections::HashMap;
use std::path::Path;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Send(String),
    Expect(String),
    Close,
}

fn read(path: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(path).expect("a transcript");
    let steps = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|line| match line.split_at(1) {
        (">", rest) => Step::Send(expand(rest.strip_prefix(' ').unwrap_or(rest))),
        ("<", rest) => Step::Expect(expand(rest.strip_prefix(' ').unwrap_or(rest))),
        _ if line == "= close" => Step::Close,
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

fn play(path: &Path, client: &mut Client, sync: &mut Client, pace: Pace) {
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
                        client.send([byte]);
                        sync.sync();
                    }
                }
            }
            Step::Expect(expected) => {
                let got = client.line();
                let (expected_words, got_words) = (expected.split(' '), got.split(' '));
                let same = expected.split(' ').count() == got.split(' ').count()
                    && expected_words.zip(got_words).all(|(e, g)| match e.strip_prefix('$') {
                        Some(_) => words.entry(e.into()).or_insert_with(|| g.into()) == g,
                        None => e == g,
                    });
                assert!(same, "{name}, step {n}: expected {expected:?}, got {got:?}");
            }
            Step::Close => assert!(client.is_closed(), "{name}, step {n}: the server should hang up"),
        }
    }
}

fn play_all(shards: &str, pace: Pace) {
    let node = Node::start(&["--shards", shards, "--memory", "64"]);
    let mut sync = node.client();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("transcripts").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "{paths:?}");
    for path in paths {
        assert_eq!(sync.ask("flush_all"), "OK");
        play(&path, &mut node.client(), &mut sync, pace);
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
