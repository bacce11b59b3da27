//! Precedence, units, and error messages.

use super::*;
use clap::{Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

fn machine() -> Machine {
    Machine { cores: vec![0, 1, 4], memory_bytes: Some(8 << 30), open_files: 20_000 }
}

fn flags(arguments: &[&str]) -> Options {
    let command = Options::augment_args(Command::new("pinion").no_binary_name(true));
    Options::from_arg_matches(&command.try_get_matches_from(arguments).expect("valid flags")).expect("valid flags")
}

fn config(arguments: &[&str]) -> Result<Config, String> {
    Config::new(&flags(arguments), &machine()).map_err(|e| e.0)
}

/// Parses a file that consists of this line.
fn in_file(line: &str) -> Result<Options, String> {
    from_toml(line, "a file", &[]).map_err(|e| e.0)
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("write");
    file
}

fn resolved(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Options, String> {
    resolve(flags(arguments), environment(variables).into_iter()).map_err(|e| e.0)
}

#[test]
fn defaults_work() {
    let config = config(&[]).expect("defaults");
    assert_eq!((config.port, config.memory_bytes, config.max_item_bytes), (Port::Fixed(11211), 1 << 30, 1 << 20));
    assert_eq!(config.shard_cores, [0, 1, 4]);
    assert_eq!(config.listen.iter().map(Listen::shown).collect::<Vec<_>>(), ["127.0.0.1"]);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn memcached_short_flags_mean_what_they_mean_there() {
    let config = config(&["-p", "11311", "-m", "64", "-t", "2", "-c", "100", "-l", "0.0.0.0,::1", "-I", "2m", "-vv"])
        .expect("fits");
    assert_eq!((config.port, config.memory_bytes, config.shard_cores.len()), (Port::Fixed(11311), 64 << 20, 2));
    assert_eq!((config.max_connections, config.max_item_bytes, config.verbosity), (100, 2 << 20, 2));
    assert_eq!(config.listen.len(), 2);
}

#[test]
fn units() {
    let memory = |text: &str| text.parse::<Memory>().ok().and_then(|m| m.bytes("--memory", Some(1000 << 20)).ok());
    assert_eq!(memory("1024"), Some(1 << 30));
    assert_eq!(memory("4GiB"), Some(4 << 30));
    assert_eq!(memory("512 mib"), Some(512 << 20));
    assert_eq!(memory("50%"), Some((1000 << 20) / 100 * 50));
    for wrong in ["", "0", "-1", "12XB", "0%", "101%", "1.5GiB", "99999999999999999999", "GiB", "%"] {
        let error = wrong.parse::<Memory>().expect_err(wrong);
        assert!(error.contains("allowed:"), "{error}");
    }
    assert_eq!("0-2,7".parse(), Ok(Cores(vec![0, 1, 2, 7])));
    assert_eq!(Cores::shown(&[0, 1, 2, 7]), "0-2,7");
    for wrong in ["", "a", "2-1", "1,1", "0-99999999", "1,", "-"] {
        assert!(wrong.parse::<Cores>().is_err(), "{wrong}");
    }
    assert_eq!(("0".parse(), "auto".parse(), "80".parse()), (Ok(Port::Off), Ok(Port::Auto), Ok(Port::Fixed(80))));
    assert!("65536".parse::<Port>().is_err());
    assert_eq!("512k".parse(), Ok(values::ByteSize(512 << 10)));
}

#[test]
fn the_stronger_layer_wins() {
    let profile = file("port = 1\nmemory = 100\nmax-connections = 5\nspin-us = 9");
    let config = file(&format!("port = 2\nmemory = \"200MiB\"\nprofile = {:?}", profile.path()));
    let path = config.path().to_str().expect("a plain path");
    let options =
        resolved(&["--port", "4", "--config", path], &[("PINION_PORT", "3"), ("PINION_MEMORY", "300"), ("OTHER", "x")])
            .expect("valid");
    assert_eq!(options.port, Some(Port::Fixed(4)), "flag");
    assert_eq!(options.memory, Some(Memory::Bytes(300 << 20)), "environment over file");
    assert_eq!(options.max_connections, Some(5), "profile");
    let options = resolved(&["--config", path], &[]).expect("valid");
    assert_eq!(
        (options.port, options.memory),
        (Some(Port::Fixed(2)), Some(Memory::Bytes(200 << 20))),
        "file over profile"
    );
}

#[test]
fn lists_and_verbosity_can_come_from_a_file() {
    let config = file("listen = [\"127.0.0.1\", \"::1\"]\ncores = \"0-1\"\nverbose = 1");
    let options = resolved(&["--config", config.path().to_str().expect("a plain path")], &[]).expect("valid");
    assert_eq!(
        (options.listen.map(|l| l.len()), options.cores, options.verbose),
        (Some(2), Some(Cores(vec![0, 1])), 1)
    );
}

#[test]
fn every_profile_of_the_binary_is_valid() {
    for name in ["balanced", "low-latency", "small"] {
        let options = resolved(&["--profile", name], &[]).expect(name);
        Config::new(&options, &machine()).expect(name);
    }
}

/// Expects one line that contains the place, the value, and the values allowed.
fn says(error: Result<impl std::fmt::Debug, String>, parts: &[&str]) {
    let error = error.expect_err("a mistake");
    assert!(!error.contains('\n'), "{error:?} is one line");
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn mistakes_in_layers_are_named() {
    let at = |text: &str| {
        let config = file(text);
        resolved(&["--config", config.path().to_str().expect("a plain path")], &[])
    };
    says(at("prot = 5"), &["prot", "no such setting", "allowed:", "port"]);
    says(at("memory = \"12XB\""), &["memory = 12XB", "allowed:"]);
    says(at("port = 70000"), &["port = 70000", "65535"]);
    says(at("eviction = \"mru\""), &["eviction = mru", "allowed: s3fifo, sieve, lru, lfu"]);
    says(at("listen = \"nowhere\""), &["listen = nowhere", "nowhere", "allowed: IPv4"]);
    says(at("port = true"), &["port", "allowed:"]);
    says(at("config = \"x\""), &["config", "no such setting"]);
    says(at("port = 1\nport = 2"), &[":2:"]);
    says(at("port = = 2"), &[":1:"]);
    // Found by fuzzing: only values were escaped, so a key with a newline resulted in two lines.
    says(at("\"a\\nb\" = 1"), &["a\\nb = 1", "no such setting"]);
    says(at("\"a\\nb\" = 1.5"), &["a\\nb: allowed"]);
    says(at("huge-pages = 7"), &["huge-pages = 7", "true, false"]);
    says(resolved(&["--config", "/does/not/exist"], &[]), &["--config /does/not/exist"]);
    says(resolved(&["--profile", "nope"], &[]), &["--profile nope", "balanced"]);
    says(resolved(&[], &[("PINION_PORT", "x")]), &["PINION_PORT=x", "allowed:"]);
    says(resolved(&[], &[("PINION_MEMORY", "1\n2")]), &["PINION_MEMORY=1\\n2", "allowed:"]);
    says(resolved(&[], &[("PINION_A\nB", "1")]), &["PINION_A\\nB=1", "no such setting"]);
    says(resolved(&[], &[("PINION_PROT", "1")]), &["PINION_PROT=1", "no such setting", "PINION_PORT"]);
}

/// A password that was not UTF-8 was ignored, and the node started without one.
#[test]
fn a_variable_that_is_not_text_is_an_error() {
    let secret = OsString::from_vec(b"s\xffcret".to_vec());
    let error = resolve(flags(&[]), [("PINION_REQUIREPASS".into(), secret.clone())].into_iter()).map_err(|e| e.0);
    assert!(error.as_ref().is_err_and(|text| !text.contains("cret")), "{error:?} shows the password");
    says(error, &["PINION_REQUIREPASS", "not UTF-8"]);
    resolve(flags(&[]), [("OTHER".into(), secret)].into_iter()).expect("not a setting");
}

#[test]
fn addresses_are_numbers_or_names_with_or_without_a_port() {
    let shown = |text: &str| text.parse::<ListenOn>().map(|on| on.0.iter().map(Listen::shown).collect::<Vec<_>>());
    assert_eq!(shown("::1"), Ok(vec!["::1".into()]));
    assert_eq!(shown("127.0.0.1:31802"), Ok(vec!["127.0.0.1:31802".into()]));
    assert_eq!(shown("[::1]:31802"), Ok(vec!["[::1]:31802".into()]));
    let local = "localhost:31802".parse::<ListenOn>().expect("it has an address").0;
    assert!(!local.is_empty() && local.iter().all(|on| on.ip.is_loopback() && on.port == Some(31802)), "{local:?}");
    for wrong in ["", "127.0.0.1:x", "127.0.0.1:70000", "localhost:0", "[::1", "no such host"] {
        assert!(shown(wrong).is_err_and(|error| error.contains("allowed:")), "{wrong}");
    }
}

/// Whoever listened on all addresses without a password was not told what that means.
#[test]
fn ports_that_anybody_can_use_are_warned_of() {
    let warned = |arguments: &[&str]| config(arguments).expect("possible").warnings.join("\n");
    for (arguments, part) in [
        (&["-l", "0.0.0.0"][..], "its ports have no password"),
        (&["-l", "127.0.0.1,::", "--requirepass", "secret"], "--listen ::: whoever can connect"),
        (&["-l", "10.0.0.1", "--requirepass", "secret"], "memcached's port has no password"),
        (&["-l", "10.0.0.1", "--port", "0"], "the port of RESP has no password"),
    ] {
        assert!(warned(arguments).contains(part), "{arguments:?}: {}", warned(arguments));
    }
    assert_eq!(warned(&["-l", "10.0.0.1", "--port", "0", "--requirepass", "secret"]), "");
    assert_eq!(warned(&["-l", "::1,127.0.0.2"]), "");
}

/// Kubernetes sets these variables in containers if there is a service called pinion.
#[test]
fn service_links_are_not_settings() {
    let links = [
        ("PINION_PORT", "tcp://10.0.0.1:11211"),
        ("PINION_SERVICE_HOST", "10.0.0.1"),
        ("PINION_SERVICE_PORT", "11211"),
        ("PINION_PORT_11211_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(resolved(&[], &links).expect("ignored").port, None);
}

#[test]
fn impossible_combinations_are_named() {
    says(config(&["--resp-port", "11211"]), &["--resp-port 11211", "--port"]);
    says(config(&["--port", "0", "--resp-port", "0"]), &["--port 0", "--resp-port 0"]);
    says(config(&["--requirepass", &"x".repeat(513)]), &["--requirepass", "513", "512"]);
    says(config(&["--admin-port", "11280"]), &["--admin-port 11280", "not in this version"]);
    config(&["--resp-port", "0", "--admin-port", "0"]).expect("off is fine");
    says(config(&["--cores", "0,2"]), &["core 2", "allowed: 0-1,4"]);
    says(config(&["-m", "64GiB", "-t", "3"]), &["--memory 65536MiB", "16384MiB"]);
    says(config(&["--requirepass", ""]), &["--requirepass is empty", "1 to 512 bytes"]);
    says(config(&["-m", "64", "--memory-max", "63"]), &["--memory-max 63MiB", "allowed: 64MiB (--memory) to "]);
    says(config(&["-t", "2", "--memory-max", "33GiB"]), &["--memory-max 33792MiB", "to 32768MiB (16384MiB per shard)"]);
    says(config(&["-m", "8", "-t", "1", "-I", "5m"]), &["--max-item-size", "half"]);
    says(config(&["-c", "20000"]), &["--max-connections 20000", "20079 open files", "20000 are allowed", "ulimit -n"]);
    says(config(&["--shard-ports", "65535"]), &["--shard-ports 65535", "1 to 65533"]);
}

#[test]
fn values_out_of_range_are_named() {
    says(in_file("shards = 0"), &["shards = 0", "allowed: 1 to 1024"]);
    says(in_file("shards = \"many\""), &["shards = many", "allowed: 1 to 1024"]);
    says(in_file("max-connections = 0"), &["max-connections = 0", "allowed: 1 to 1048576"]);
    says(in_file("max-item-size = 100"), &["max-item-size = 100", "allowed: 1k to 512m"]);
    says(in_file("client-memory = \"1023k\""), &["client-memory = 1023k", "allowed: 1m to 1048576m"]);
    says(in_file("client-stall-timeout = 86401"), &["client-stall-timeout = 86401", "allowed: ", "86400"]);
    says(in_file("receive-buffers = 100"), &["receive-buffers = 100", "allowed: a power of two, 16 to 32768"]);
    says(in_file("receive-buffer-size = 5"), &["receive-buffer-size = 5", "allowed: 1k to 1m"]);
    says(in_file("spin-us = -1"), &["spin-us = -1", "allowed: 0 to 4294967295"]);
    says(in_file("admin-port = 65536"), &["admin-port = 65536", "allowed: 0 to 65535"]);
}

#[test]
fn what_is_odd_but_possible_is_a_warning() {
    let shared = config(&["-t", "5", "--spin-us", "10"]).expect("possible");
    assert_eq!(shared.shard_cores, [0, 1, 4, 0, 1]);
    assert!(shared.spin.is_zero());
    assert_eq!(shared.warnings.len(), 2, "{:?}", shared.warnings);
    assert_eq!(config(&["-m", "16GiB", "-t", "3"]).expect("possible").warnings.len(), 1);
    let small = config(&["-m", "3", "-t", "3"]).expect("possible");
    assert_eq!((small.memory_bytes, small.warnings.len()), (12 << 20, 1), "{:?}", small.warnings);
    // What it needs beside its memory counts: a control group's limit is the machine's.
    let narrow = Machine { memory_bytes: Some(512 << 20), ..machine() };
    let most = Config::new(&flags(&["-m", "100%", "-t", "1"]), &narrow).expect("possible");
    assert!(most.warnings[0].contains("511MiB and up to 96MiB of buffers exceed the 512MiB"), "{most:?}");
    assert_eq!(Config::new(&flags(&["-m", "80%", "-t", "1"]), &narrow).expect("possible").warnings.len(), 0);
    let few = Config::new(&Options::default(), &Machine { open_files: 1024, ..machine() }).expect("possible");
    assert_eq!((few.max_connections, few.warnings.len()), (1024 - 79, 1));
}
