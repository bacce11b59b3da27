//! Rules that no compiler checks: which module imports which, where `unsafe` is allowed, the length of files, and the
//! width of comments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules from top to bottom: each may import those of the rows below its own, and itself. ARCHITECTURE.md draws this.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["replay", "server"],
    &["shard"],
    &["execute"],
    &["protocol"],
    &["reactor"],
    &["node"],
    &["replication"],
    &["engine", "cluster"],
    &["mesh", "metrics", "config"],
    &["command"],
    &["eviction", "log", "slots", "sys", "values"],
];

/// Modules that use no clock, socket, thread or random source.
const PURE: &[&str] =
    &["engine", "cluster", "replication", "node", "protocol", "execute", "command", "replay", "values"];

/// Files and folders that contain `unsafe`; every other module forbids it.
const UNSAFE: &[&str] = &["sys", "reactor"];

/// Roots of modules that cannot forbid `unsafe`, because a file below them contains some.
const MIXED: &[&str] = &["lib.rs"];

/// A longer file holds more than one concept.
const LINES_MAX: usize = 600;

/// Columns to which comments wrap, as rustfmt wraps code.
const COMMENT_COLUMNS_MAX: usize = 120;

/// Folders whose comments are to wrap.
const WRAPPED: &[&str] = &["src", "tests", "benches", "fuzz/targets"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder: its path from there, and its text.
fn files_below(folder: &Path) -> BTreeMap<String, String> {
    fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, paths);
            } else if path.extension().is_some_and(|e| e == "rs") {
                paths.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(folder, &mut paths);
    let name = |path: &PathBuf| path.strip_prefix(folder).expect("below the folder").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("a file"))).collect()
}

/// Every source file: its path below `src`, and its text.
fn files() -> BTreeMap<String, String> {
    let files = files_below(&root().join("src"));
    assert!(files.len() > 20, "the source is somewhere else");
    files
}

/// The module that a file belongs to: the first part of its path.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().expect("a name")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// Lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or("")))
        .filter(|(_, l)| !l.trim().is_empty())
}

#[test]
fn imports_go_downwards() {
    for (file, text) in files() {
        let own = module(&file);
        if own == "lib" || own == "main" {
            continue;
        }
        let own_layer = layer(own).unwrap_or_else(|| panic!("{file}: the module {own} has no layer"));
        for (line, code) in code(&text) {
            for used in code.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().expect("a name");
                let allowed = used == own || layer(used).is_some_and(|l| l > own_layer);
                assert!(allowed, "{file}:{line}: {own} must not use {used}");
            }
        }
    }
}

#[test]
fn pure_modules_stay_pure() {
    let impure =
        ["Instant::now", "SystemTime", "std::net", "std::thread", "std::fs", "std::env", "socket2", "io_uring"];
    for (file, text) in files().into_iter().filter(|(f, _)| PURE.contains(&module(f)) && !f.contains("tests")) {
        for (line, code) in code(&text) {
            assert!(!impure.iter().any(|i| code.contains(i)), "{file}:{line}: {code}");
        }
    }
}

/// A file without `unsafe` of its own is covered by a `forbid` in it or in the root of its module.
#[test]
fn unsafe_is_confined() {
    let files = files();
    for (file, text) in &files {
        let may = UNSAFE.iter().any(|u| file.starts_with(&format!("{u}/")) || file == u);
        let uses = code(text).find(|(_, l)| l.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe"));
        if let Some((line, code)) = uses {
            assert!(may, "{file}:{line}: unsafe does not belong here: {code}");
        }
        let root = module(file);
        let root = files.get(&format!("{root}/mod.rs")).or_else(|| files.get(&format!("{root}.rs"))).expect("a root");
        let forbids = |t: &String| t.contains("#![forbid(unsafe_code)]");
        let is_test = file.ends_with("tests.rs");
        assert!(
            may || is_test || MIXED.contains(&file.as_str()) || forbids(root) || forbids(text),
            "{file}: nothing forbids unsafe code"
        );
    }
}

#[test]
fn files_are_one_concept() {
    for (file, text) in files() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines");
        assert!(text.starts_with("//!"), "{file} does not say what it is for");
    }
}

#[test]
fn comments_wrap() {
    let mut wide = Vec::new();
    for folder in WRAPPED {
        for (file, text) in files_below(&root().join(folder)) {
            let file = format!("{folder}/{file}");
            for (n, line) in text.lines().enumerate() {
                // A row of a table cannot be wrapped.
                let is_row = line.trim_start().trim_start_matches(['/', '!', ' ']).starts_with('|');
                if line.trim_start().starts_with("//") && !is_row && line.chars().count() > COMMENT_COLUMNS_MAX {
                    wide.push(format!("{file}:{}", n + 1));
                }
            }
        }
    }
    assert!(wide.is_empty(), "comments wider than {COMMENT_COLUMNS_MAX} columns: {wide:#?}");
}
