//! The parser against written-out commands, against every split of them, and against random bytes.

use super::*;
use proptest::prelude::*;

const VALUE_MAX: usize = 1 << 20;

/// The result of feeding input to a connection: every request, as text, and whether it closes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    requests: Vec<String>,
    closed: bool,
    left: usize,
}

/// Feeds `pieces` as the connection reader does.
fn run(pieces: &[&[u8]]) -> Run {
    let (mut state, mut partial, mut run) = (State::Command, Vec::new(), Run::default());
    let mut needed = 0;
    for piece in pieces {
        partial.extend_from_slice(piece);
        if partial.len() < needed {
            continue;
        }
        let mut at = 0;
        loop {
            match parse(&mut state, &partial[at..], VALUE_MAX) {
                Parsed::Request { request, length } => {
                    assert!(length > 0, "every request takes some input");
                    let text = request.map(|b| String::from_utf8_lossy(b).into_owned());
                    run.requests.push(format!("{text:?}"));
                    at += length;
                }
                Parsed::Control { control, noreply, length } => {
                    assert!(length > 0, "every command takes some input");
                    let is_key = |r: &String| r.contains("last: false");
                    if matches!(control, Control::Invalid(_)) {
                        while run.requests.last().is_some_and(is_key) {
                            run.requests.pop();
                        }
                    }
                    run.requests.push(format!("{control:?} {noreply}"));
                    at += length;
                }
                Parsed::Upload { request, value_bytes, length } => {
                    let text = request.map(|b| String::from_utf8_lossy(b).into_owned());
                    run.requests.push(format!("{text:?} {value_bytes} B"));
                    at += length;
                    state = State::Discard(value_bytes as u64 + 2);
                }
                Parsed::Skip { length } => {
                    assert!(length > 0, "skipping takes some input");
                    at += length;
                }
                Parsed::Incomplete { needed: n } => {
                    assert!(n > partial.len() - at, "more is needed than there is");
                    needed = n;
                    break;
                }
                Parsed::Close | Parsed::TooLong | Parsed::Foreign(_) => {
                    run.closed = true;
                    return run;
                }
            }
        }
        partial.drain(..at);
        needed = if partial.is_empty() { 0 } else { needed };
    }
    run.left = partial.len();
    run
}

fn one(input: &[u8]) -> (Operation<&[u8]>, &[u8], bool) {
    let mut state = State::Command;
    match parse(&mut state, input, VALUE_MAX) {
        Parsed::Request { request, length } => {
            assert_eq!(length, input.len(), "{}", String::from_utf8_lossy(input));
            (request.operation, request.key, request.session.noreply)
        }
        other => panic!("{}: {other:?}", String::from_utf8_lossy(input)),
    }
}

fn control(input: &[u8]) -> (Control, bool) {
    let mut state = State::Command;
    match parse(&mut state, input, VALUE_MAX) {
        Parsed::Control { control, noreply, length } => {
            assert_eq!(length, input.len(), "{}", String::from_utf8_lossy(input));
            (control, noreply)
        }
        other => panic!("{}: {other:?}", String::from_utf8_lossy(input)),
    }
}

fn failure(input: &[u8]) -> Failure {
    let mut state = State::Command;
    match parse(&mut state, input, VALUE_MAX) {
        Parsed::Control { control: Control::Invalid(failure), noreply: false, .. } => failure,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(input)),
    }
}

#[test]
fn stores_carry_everything() {
    let value = &b"hello"[..];
    let store = |condition, expiry| Operation::Store { condition, flags: 7, expiry, value };
    assert_eq!(one(b"set k 7 0 5\r\nhello\r\n"), (store(Condition::Always, Expiry::Never), &b"k"[..], false));
    assert_eq!(
        one(b"add k 7 60 5 noreply\r\nhello\r\n"),
        (store(Condition::Absent, Expiry::AfterSeconds(60)), &b"k"[..], true)
    );
    assert_eq!(one(b"replace k 7 -1 5\nhello\r\n").0, store(Condition::Present, Expiry::Now));
    assert_eq!(
        one(b"cas k 7 2592000 5 99\r\nhello\r\n").0,
        store(Condition::Version(99), Expiry::AfterSeconds(2_592_000))
    );
    assert_eq!(
        one(b"  set  k  7  2592001  5  \r\nhello\r\n").0,
        store(Condition::Always, Expiry::AtSeconds(2_592_001))
    );
    assert_eq!(
        one(b"append k 0 0 5\r\nhello\r\n").0,
        Operation::Extend { end: End::Back, value, bytes_max: VALUE_MAX as u32 }
    );
    assert_eq!(
        one(b"prepend k 0 0 5\r\nhello\r\n").0,
        Operation::Extend { end: End::Front, value, bytes_max: VALUE_MAX as u32 }
    );
    assert!(matches!(one(b"set k 4294967295 0 2\r\n\r\n\r\n").0, Operation::Store { flags: u32::MAX, .. }));
}

#[test]
fn other_commands() {
    assert_eq!(one(b"delete k\r\n"), (Operation::Delete, &b"k"[..], false));
    assert_eq!(one(b"delete k 0 noreply\r\n"), (Operation::Delete, &b"k"[..], true));
    assert_eq!(one(b"incr k 18446744073709551615\r\n").0, Operation::Arithmetic { decrement: false, delta: u64::MAX });
    assert_eq!(one(b"decr k 1 noreply\r\n"), (Operation::Arithmetic { decrement: true, delta: 1 }, &b"k"[..], true));
    assert_eq!(one(b"touch k 5\r\n").0, Operation::Touch { expiry: Expiry::AfterSeconds(5) });
    let flush = |delay| Control::EveryShard(Administration::Flush { delay });
    assert_eq!(control(b"flush_all\r\n"), (flush(Expiry::Never), false));
    assert_eq!(control(b"flush_all 10 noreply\r\n"), (flush(Expiry::AfterSeconds(10)), true));
    assert_eq!(control(b"verbosity 1\r\n").0, Control::Verbosity);
    assert_eq!(control(b"stats settings\r\n").0, Control::Stats(StatsTopic::Settings));
    let gat = Operation::Get { versions: true, touch: Some(Expiry::AfterSeconds(9)), first: true, last: true };
    assert_eq!(one(b"gats 9 k\r\n"), (gat, &b"k"[..], false));
}

#[test]
fn each_mistake_has_its_failure() {
    for (input, expected) in [
        (&b"get\r\n"[..], Failure::BadFormat),
        (b"get \r\n", Failure::BadFormat),
        (b"gat 5\r\n", Failure::BadFormat),
        (b"gat x k\r\n", Failure::InvalidExpiry),
        (b"GET k\r\n", Failure::Unknown),
        (b"\r\n", Failure::Unknown),
        (b"set k 0 0\r\n", Failure::BadFormat),
        (b"set k 0 0 -1\r\n", Failure::BadFormat),
        (b"set k 0 0 2147483647\r\n", Failure::BadFormat),
        (b"set k 4294967296 0 1\r\nx\r\n", Failure::BadFormat),
        (b"set k 0 x 1\r\nx\r\n", Failure::BadFormat),
        (b"cas k 0 0 1\r\nx\r\n", Failure::BadFormat),
        (b"nonsense noreply\r\n", Failure::Unknown),
        (b"cas k 0 0 1 x\r\nx\r\n", Failure::BadFormat),
        (b"set k 0 0 2\r\nxxx\r\n", Failure::BadDataChunk),
        (b"incr k\r\n", Failure::BadFormat),
        (b"incr k -1\r\n", Failure::InvalidDelta),
        (b"incr k 18446744073709551616\r\n", Failure::InvalidDelta),
        (b"touch k x\r\n", Failure::InvalidExpiry),
        (b"delete k 1\r\n", Failure::DeleteUsage),
        (b"flush_all x\r\n", Failure::InvalidExpiry),
        (b"verbosity x\r\n", Failure::BadFormat),
        (b"verbosity\r\n", Failure::BadFormat),
        (b"stats nonsense\r\n", Failure::Unknown),
        (b"stats detail\r\n", Failure::DetailUsage),
        (b"stats cachedump 1\r\n", Failure::BadLine),
        (b"touch k 2147483648\r\n", Failure::InvalidExpiry),
        (b"gat 9223372036854775808 k\r\n", Failure::InvalidExpiry),
        (b"set k 0 4294967296 1\r\nx\r\n", Failure::BadFormat),
        (b"shutdown\r\n", Failure::ShutdownDisabled),
    ] {
        assert_eq!(failure(input), expected, "{}", String::from_utf8_lossy(input));
    }
}

#[test]
fn other_protocols_are_told_by_their_first_bytes_or_last_word() {
    let parsed = |input| parse(&mut State::Command, input, VALUE_MAX);
    assert_eq!(parsed(b"\x80"), Parsed::Foreign(Foreign::Binary));
    assert_eq!(parsed(b"\x16\x03\x01\n"), Parsed::Foreign(Foreign::Tls));
    assert_eq!(parsed(b"\x16"), Parsed::Incomplete { needed: 2 });
    for line in [&b"GET / HTTP/1.1\r\n"[..], b"GET /a b c d e f g h i j HTTP/1.1  \r\n"] {
        assert_eq!(parsed(line), Parsed::Foreign(Foreign::Http));
    }
    // Only as the last word, and not of a command that exists.
    assert_eq!(failure(b"GET HTTP/1.1 /\r\n"), Failure::Unknown);
    assert!(matches!(parsed(b"get HTTP/1.1\r\n"), Parsed::Request { .. }));
}

#[test]
fn a_line_without_end_is_too_long() {
    for input in [vec![b'x'; LINE_BYTES_MAX + 1], [&[b'x'; LINE_BYTES_MAX + 1][..], b"\r\n"].concat()] {
        assert_eq!(parse(&mut State::Command, &input, VALUE_MAX), Parsed::TooLong);
    }
    let input = [b'x'; LINE_BYTES_MAX];
    assert_eq!(parse(&mut State::Command, &input, VALUE_MAX), Parsed::Incomplete { needed: LINE_BYTES_MAX + 1 });
}

#[test]
fn keys_may_have_250_bytes() {
    let longest = "k".repeat(KEY_BYTES_MAX);
    for (before, after) in [("get ", "\r\n"), ("gets a ", " b\r\n"), ("delete ", "\r\n"), ("set ", " 0 0 1\r\nx\r\n")] {
        let fits = run(&[format!("{before}{longest}{after}").as_bytes()]);
        assert!(fits.requests.iter().all(|r| !r.contains("Invalid")), "{fits:?}");
        let too_long = run(&[format!("{before}{longest}k{after}").as_bytes()]);
        assert_eq!(too_long.requests.len(), 1, "one error, nothing executed: {too_long:?}");
        assert!(too_long.requests[0].contains("BadFormat") && too_long.left == 0, "{too_long:?}");
    }
}

#[test]
fn a_refused_value_is_not_taken_for_commands() {
    let value = "flush_all\r\n".repeat(200_000);
    let input = format!("set k 0 0 {}\r\n{value}\r\nversion\r\n", value.len());
    let got = run(&[input.as_bytes()]);
    assert_eq!(got.requests.len(), 2, "{:?}", &got.requests[..2]);
    assert!(got.requests[0].contains("RefuseTooLarge { drop_old: true }") && got.requests[1].contains("Version"));
    let bad_flags = run(&[b"set k x 0 11\r\nflush_all\r\n\r\nversion\r\n"]);
    assert!(bad_flags.requests[0].contains("BadFormat") && bad_flags.requests[1].contains("Version"), "{bad_flags:?}");
}

#[test]
fn lines_without_an_end_close_unless_they_are_gets() {
    assert!(run(&["x".repeat(LINE_BYTES_MAX + 1).as_bytes()]).closed);
    assert!(run(&[format!("set {}", "k".repeat(LINE_BYTES_MAX)).as_bytes()]).closed);
    let keys: Vec<String> = (0..5000).map(|n| format!("key-{n}")).collect();
    let line = format!("get {}\r\n", keys.join(" "));
    let pieces: Vec<&[u8]> = line.as_bytes().chunks(700).collect();
    let got = run(&pieces);
    assert_eq!((got.requests.len(), got.left), (5000, 0));
    assert!(got.requests[4999].contains("key-4999") && got.requests[4999].contains("last: true"));
    let endless = run(&[format!("get {}", "k".repeat(4000)).as_bytes(), b"more\r\nversion\r\n"]);
    assert!(endless.requests[0].contains("BadFormat") && endless.requests[1].contains("Version"), "{endless:?}");
}

/// The offset of the first key was computed without the line's carriage return: it lost its first byte, but only in
/// lines longer than LINE_BYTES_MAX that arrived whole.
#[test]
fn whole_long_get_lines_keep_their_first_key() {
    for keys in [58, 60, 62, 64, 66, 500] {
        for (verb, end) in [("get", "\r\n"), ("gets", "\n"), ("gat 0", "\r\n"), ("gats 0", " \r\n")] {
            let names: Vec<String> = (0..keys).map(|n| format!("{n:033}")).collect();
            let got = run(&[format!("{verb} {}{end}", names.join(" ")).as_bytes()]);
            assert_eq!(got.requests.len(), keys);
            assert!(got.requests[0].contains(&names[0]), "{}", got.requests[0]);
        }
    }
}

/// The parser waited through any number of spaces, so one connection took time and memory without bound.
#[test]
fn endless_spaces_are_an_error() {
    for line in
        [format!("get {}", " ".repeat(9000)), format!("get k{}", " ".repeat(9000)), format!("gat {}", " ".repeat(9000))]
    {
        let pieces: Vec<&[u8]> = line.as_bytes().chunks(1000).collect();
        let got = run(&pieces);
        assert!(got.requests.len() == 1 && got.requests[0].contains("Invalid") && got.left == 0, "{got:?}");
    }
}

/// Found by fuzzing: a key that was too long and had arrived whole was not rejected before the byte after its space.
#[test]
fn too_long_a_key_is_an_error_as_soon_as_it_is_seen() {
    for key_bytes in [KEY_BYTES_MAX + 2, LINE_BYTES_MAX] {
        let line = format!("get a {} {} ", "b ".repeat(LINE_BYTES_MAX / 2), "k".repeat(key_bytes));
        let whole = run(&[line.as_bytes()]);
        assert!(whole.requests.len() == 1 && whole.requests[0].contains("BadFormat") && whole.left == 0, "{whole:?}");
        assert_eq!(run(&line.as_bytes().chunks(1).collect::<Vec<_>>()), whole);
    }
}

/// Found by fuzzing: too many spaces were rejected only where the line arrived in pieces.
#[test]
fn endless_spaces_are_an_error_in_whole_lines_too() {
    let gap = |bytes: usize| " ".repeat(bytes);
    for spaces in [1000, 1024, 1025, 2046, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 5000] {
        for line in [
            format!("get a{}\r\nversion\r\n", gap(spaces)),
            format!("get a{}b\r\nversion\r\n", gap(spaces)),
            format!("gets{}a\nversion\r\n", gap(spaces)),
            format!("gat{}5{}a\r\nversion\r\n", gap(spaces), gap(spaces)),
            format!("{}get a {}\r\nversion\r\n", gap(spaces), "b".repeat(100)),
            format!("{}gats 0 a{}b\r\nversion\r\n", gap(spaces), gap(1500)),
        ] {
            let whole = run(&[line.as_bytes()]);
            let (first, rest) = line.as_bytes().split_at(line.len().min(LINE_BYTES_MAX + 2));
            assert_eq!(run(&[first, rest]), whole, "{spaces} spaces, two pieces");
            assert_eq!(run(&line.as_bytes().chunks(1).collect::<Vec<_>>()), whole, "{spaces} spaces, byte by byte");
        }
    }
}

#[test]
fn http_is_hung_up_on() {
    assert!(run(&[b"GET / HTTP/1.1\r\nset k 0 0 1\r\nx\r\n"]).closed);
    assert!(run(&[b"POST /flush_all HTTP/1.0\r\n"]).closed);
}

fn commands() -> impl Strategy<Value = Vec<u8>> {
    let arg = || {
        prop_oneof![
            "[a-z]{1,8}",
            "[0-9]{1,3}",
            "-?[0-9]{1,22}",
            "noreply",
            "[ -~]{0,12}",
            Just("k".repeat(249)),
            Just("k".repeat(252)),
        ]
    };
    let verb = prop_oneof![
        Just("get"),
        Just("gets"),
        Just("gat"),
        Just("gats"),
        Just("set"),
        Just("add"),
        Just("replace"),
        Just("append"),
        Just("prepend"),
        Just("cas"),
        Just("delete"),
        Just("incr"),
        Just("decr"),
        Just("touch"),
        Just("flush_all"),
        Just("version"),
        Just("verbosity"),
        Just("stats"),
        Just("nonsense"),
    ];
    let line = (verb, prop::collection::vec(arg(), 0..6), prop_oneof![Just("\r\n"), Just("\n"), Just(" \r\n")])
        .prop_map(|(verb, args, end)| format!("{verb} {}{end}", args.join(" ")).into_bytes());
    let set = ("[a-z]{1,5}", prop::collection::vec(any::<u8>(), 0..40), any::<bool>()).prop_map(|(key, value, cut)| {
        let mut command = format!("set {key} 1 0 {}\r\n", value.len()).into_bytes();
        command.extend_from_slice(&value);
        command.extend_from_slice(if cut { b"\r" } else { b"\r\n" });
        command
    });
    prop::collection::vec(prop_oneof![line, set], 1..12).prop_map(|c| c.concat())
}

proptest! {
    /// However the network cuts the bytes, the parser returns equal requests.
    #[test]
    fn splits_change_nothing(input in commands(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(input.len())).collect();
        at.extend([0, input.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &input[w[0]..w[1]]).collect();
        prop_assert_eq!(run(&pieces), run(&[&input]));
    }

    #[test]
    fn one_byte_at_a_time_changes_nothing(input in commands()) {
        let pieces: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(run(&pieces), run(&[&input]));
    }

    #[test]
    fn random_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..5000)) {
        run(&[&input]);
    }

    #[test]
    fn mutated_commands_never_panic(mut input in commands(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        for (at, byte) in changes {
            let at = at.index(input.len());
            input[at] = byte;
        }
        run(&[&input]);
    }
}
