//! `pinion replay` on generated traces: the table, JSON and plots that it writes, and what it rejects.

mod common;

use common::{PINION, Random};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn replay(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(PINION).current_dir(folder).arg("replay").args(arguments).output().expect("the binary runs")
}

/// Expects success; returns standard output and the notes on standard error.
fn printed(folder: &Path, arguments: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = replay(folder, arguments);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert!(status.success(), "{stderr}");
    (stdout, stderr)
}

/// Expects a rejection; returns the line with its reason.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = replay(folder, arguments);
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!((status.code(), text.lines().count(), stdout.len()), (Some(2), 1, 0), "{text}");
    text
}

/// A folder with 20,000 requests of skewed popularity for 2,000 keys of 500 bytes: `text.csv`, and with keys numbered
/// in order of appearance `columns.ctr.zst` and `plain.ctr`.
fn traces() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let mut random = Random(7);
    let drawn: Vec<u64> = (0..20_000).map(|_| random.below(2000) * random.below(2000) / 2000).collect();
    let mut numbers = Vec::new();
    let mut columns = Vec::new();
    let mut last = 0;
    for key in &drawn {
        let number = numbers.iter().position(|n| n == key).unwrap_or_else(|| {
            numbers.push(*key);
            numbers.len() - 1
        }) as i32;
        columns.extend((number - last).to_le_bytes());
        last = number;
    }
    let header = [0, drawn.len() as u32, 0, numbers.len() as u32, 500, 0, 0].map(u32::to_le_bytes).concat();
    let columns = [b"CTR1", header.as_slice(), &columns].concat();
    let lines: String = drawn.iter().enumerate().map(|(i, key)| format!("{i},key-{key},500\n")).collect();

    let write = |name, content: &[u8]| std::fs::write(folder.path().join(name), content).expect("a file");
    write("text.csv", format!("time,key,size\n{lines}").as_bytes());
    write("plain.ctr", &columns);
    write("columns.ctr.zst", &compress_to_vec(columns.as_slice(), CompressionLevel::Fastest));
    folder
}

/// The object hit ratio of FIFO, by a model.
fn modelled(folder: &Path, items_max: usize) -> f64 {
    let text = std::fs::read_to_string(folder.join("text.csv")).expect("a file");
    let keys: Vec<&str> = text.lines().skip(1).map(|line| line.split(',').nth(1).expect("a key")).collect();
    let mut held = std::collections::VecDeque::new();
    let mut hits = 0;
    for key in &keys {
        if held.contains(key) {
            hits += 1;
            continue;
        }
        held.push_back(*key);
        if held.len() > items_max {
            held.pop_front();
        }
    }
    f64::from(hits) / keys.len() as f64
}

fn number(cell: &Value, name: &str) -> f64 {
    cell[name].as_f64().unwrap_or_else(|| panic!("{name} of {cell}"))
}

#[test]
fn results_are_those_of_a_model() {
    let folder = traces();
    let files = ["text.csv", "columns.ctr.zst", "plain.ctr"];
    let options = ["--policy", "fifo", "--count", "user", "--memory", "10%,128KiB", "--json"];
    let (json, notes) = printed(folder.path(), &[&files[..], &options].concat());
    assert_eq!(notes, "");
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["count"], "user");
    let traces = report["traces"].as_array().expect("traces");
    for (trace, name) in traces.iter().zip(["text", "columns", "plain"]) {
        assert_eq!((&trace["trace"], &trace["requests"], &trace["scale"]), (&name.into(), &20_000.into(), &1.into()));
        let footprint = number(trace, "footprint_bytes");
        assert_eq!(footprint, number(trace, "distinct_keys") * 500.0);
        let cells = trace["cells"].as_array().expect("cells");
        assert_eq!(cells.len(), 2);
        for (cell, capacity) in cells.iter().zip([(footprint / 10.0).floor(), 131_072.0]) {
            assert_eq!((&cell["policy"], number(cell, "capacity_bytes")), (&"fifo".into(), capacity));
            let items = (capacity / 500.0).floor();
            let modelled = modelled(folder.path(), items as usize);
            // An engine may evict slightly more than necessary.
            assert!((number(cell, "object_hit_ratio") - modelled).abs() < 0.005, "{modelled}: {cell}");
            assert_eq!(number(cell, "byte_hit_ratio"), number(cell, "object_hit_ratio"));
            assert!((0.98 * items..=items).contains(&number(cell, "items")), "{cell}");
            let stayed = number(cell, "gets") - number(cell, "hits") - number(cell, "evictions");
            assert_eq!(number(cell, "items"), stayed, "fills are held or evicted");
            assert!((0.98..=1.0).contains(&number(cell, "efficiency")), "{cell}");
        }
        assert_eq!((&cells[0]["fraction"], &cells[0]["memory"]), (&0.1.into(), &"10%".into()));
        assert_eq!((&cells[1]["fraction"], &cells[1]["memory"]), (&Value::Null, &"128KiB".into()));
    }
    assert_eq!(traces.len(), 3);
}

#[test]
fn a_table_is_aligned() {
    let folder = traces();
    let (table, notes) =
        printed(folder.path(), &["text.csv", "plain.ctr", "--policy", "fifo", "-m", "4MiB,64", "-j", "1"]);
    assert_eq!(notes, "", "no bar where there is no terminal");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5);
    let width = lines[0].len();
    assert!(lines.iter().all(|line| line.len() == width), "{table}");
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words(lines[0])[..5], ["trace", "policy", "memory", "capacity", "objects"]);
    assert_eq!(words(lines[4])[..4], ["plain", "fifo", "64MiB", "64MiB"]);
}

#[test]
fn small_parts_are_left_out_and_large_traces_scaled() {
    let folder = traces();
    let (table, notes) = printed(folder.path(), &["text.csv", "--policy", "fifo", "--memory", "1%,600%"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(notes.starts_with("pinion: text.csv: left out: --memory 1% is "), "{notes}");

    let large = "0,a,4000000000\n1,b,4000000000\n2,c,4000000000\n3,a,4000000000\n";
    std::fs::write(folder.path().join("large.csv"), large).expect("a file");
    let large = ["large.csv", "--policy", "fifo", "--count", "user", "--scale", "1000", "-m", "100%"];
    let (table, notes) = printed(folder.path(), &large);
    assert!(notes.contains("large.csv: sizes, and amounts of memory in bytes, are divided by 1000"), "{notes}");
    assert!(table.ends_with("large: sizes are divided by 1000\n") && table.contains(" 25.00% "), "{table}");
    let (json, _) = printed(folder.path(), &[&large[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["traces"][0]["scale"], 1000);
}

#[test]
fn a_plot_has_a_curve_and_a_legend() {
    let folder = traces();
    std::fs::copy(folder.path().join("text.csv"), folder.path().join("a<b>&.csv")).expect("a copy");
    let options = ["a<b>&.csv", "--policy", "fifo", "--count", "user", "--plot"];
    let drawn = |name| {
        printed(folder.path(), &[&options[..], &[name]].concat());
        std::fs::read_to_string(folder.path().join(name)).expect("a file")
    };
    let svg = drawn("plot.svg");
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (1, 3));
    assert!(svg.contains(">fifo</text>") && svg.contains(">5%</text>") && svg.contains(">a&lt;b&gt;&amp;: 20000 "));
    let html = drawn("plot.html");
    assert!(html.starts_with("<!doctype html>") && html.contains(&svg) && html.contains("a&lt;b&gt;&amp;  fifo"));
}

#[test]
fn what_cannot_be_replayed() {
    let folder = traces();
    let write = |name, content: &[u8]| std::fs::write(folder.path().join(name), content).expect("a file");
    write("wrong.csv", b"0,a,1\n1,b,many\n");
    let columns = std::fs::read(folder.path().join("columns.ctr.zst")).expect("a file");
    write("short.zst", &columns[..columns.len() / 2]);
    let plain = std::fs::read(folder.path().join("plain.ctr")).expect("a file");
    write("short.ctr", &plain[..plain.len() / 2]);

    let says = |arguments: &[&str], parts: &[&str]| {
        let line = refused(folder.path(), arguments);
        assert!(line.starts_with("pinion: ") && parts.iter().all(|part| line.contains(part)), "{line}");
    };
    says(&[], &["FILE"]);
    says(&["none.csv"], &["none.csv: No such file"]);
    says(&["."], &[".: Is a directory"]);
    says(&["text.csv", "wrong.csv", "--count", "user"], &["wrong.csv: line 2: size \"many\"; allowed: bytes"]);
    says(&["short.zst"], &["short.zst: zstd: "]);
    says(&["short.ctr"], &["short.ctr: CTR1: 20000 requests do not fit"]);
    says(&["text.csv", "--memory", "lots"], &["--memory", "lots", "allowed: a number of MiB"]);
    says(&["text.csv", "--memory", "1MiB"], &["text.csv: --memory 1MiB is 1MiB; allowed: 4MiB and more"]);
    says(&["text.csv", "--memory", "1%"], &["--memory 1% is ", "--count user"]);
    says(&["text.csv", "--memory", "900GiB", "--scale", "1"], &["--memory 900GiB needs 900GiB", "--scale"]);
    says(&["text.csv", "--policy", "best"], &["--policy", "best", "allowed: "]);
    says(&["text.csv", "--count", "all"], &["--count", "all", "real, user"]);
    says(&["text.csv", "--scale", "0"], &["--scale", "0"]);
    says(&["text.csv", "--jobs", "0"], &["--jobs", "0"]);
    says(&["text.csv", "--plot", "plot.png"], &["--plot", "plot.png", ".svg or .html"]);
    says(&["text.csv", "--count", "user", "--plot", "no/plot.svg"], &["--plot no/plot.svg", "No such file"]);
    says(&["-p", "1", "text.csv"], &["-p"]);
}
