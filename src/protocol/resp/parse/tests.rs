//! The parser against written-out input, and against pipelines cut at any byte.

use super::*;
use crate::command::args::encode;
use proptest::prelude::*;

const LIMITS: Limits = Limits::authenticated(1 << 20);

/// The result of feeding input to a connection: complete commands, reassembled from splits and uploads.
#[derive(Debug, Default, PartialEq)]
struct Run {
    commands: Vec<Vec<Vec<u8>>>,
    broken: Option<ProtocolError>,
    /// Bytes of an incomplete command at the end of the input.
    left: usize,
    /// The bytes that the parser has looked at, and the most bytes that it waited for.
    looked_at: usize,
    needed_max: usize,
}

impl Run {
    fn outcome(&self) -> (&[Vec<Vec<u8>>], Option<ProtocolError>) {
        (&self.commands, self.broken)
    }
}

/// A connection that feeds the parser as the connection reader does.
#[derive(Default)]
struct Connection {
    state: State,
    partial: Vec<u8>,
    needed: usize,
    /// Missing bytes of a long value, and the number of arguments after it.
    upload: Option<(usize, usize)>,
    run: Run,
}

impl Connection {
    fn receive(&mut self, piece: &[u8], limits: &Limits) {
        if self.run.broken.is_some() {
            return;
        }
        self.partial.extend_from_slice(piece);
        if self.partial.len() >= self.needed {
            let used = self.read(limits);
            self.partial.drain(..used);
        }
    }

    fn read(&mut self, limits: &Limits) -> usize {
        let mut at = 0;
        loop {
            let input = &self.partial[at..];
            self.run.looked_at += input.len() - if let State::Args { at, .. } = self.state { at as usize } else { 0 };
            let parsed = match self.upload.as_mut() {
                Some((missing, _)) if *missing > 0 => {
                    let taken = input.len().min(*missing);
                    let value = self.run.commands.last_mut().and_then(|c| c.last_mut()).expect("an upload");
                    value.extend_from_slice(&input[..taken]);
                    *missing -= taken;
                    at += taken;
                    if *missing > 0 {
                        self.needed = 1;
                        return at;
                    }
                    value.truncate(value.len() - 2);
                    continue;
                }
                Some((_, after)) => parse_rest(input, *after, limits),
                None => parse(&mut self.state, input, limits),
            };
            let commands = &mut self.run.commands;
            let owned = |args: Args| args.iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
            let length = match parsed {
                Parsed::Command { args, length } if self.upload.take().is_some() => {
                    commands.last_mut().expect("an upload").extend(owned(args));
                    at += length;
                    continue;
                }
                Parsed::Command { args, length } => {
                    assert_eq!(args.iter().count(), args.len());
                    commands.push(owned(args));
                    length
                }
                Parsed::Inline { args, count, length } => {
                    commands.push(owned(Args::new(&args, count)));
                    length
                }
                Parsed::Split { command, keys, length } => {
                    assert!(
                        (keys > 1 || command == Command::MGet) && command.row().keys.last == -1,
                        "{command:?} with {keys} keys"
                    );
                    commands.push(vec![command.name().to_uppercase().into_bytes()]);
                    length
                }
                Parsed::Key { key, last, length, .. } => {
                    commands.last_mut().expect("a head").push(key.to_vec());
                    assert_eq!(last, self.state == State::Command);
                    length
                }
                Parsed::Upload { args, value_bytes, after, length } => {
                    assert!(value_bytes >= UPLOAD_BYTES_MIN);
                    commands.push(owned(args));
                    commands.last_mut().expect("the args").push(Vec::new());
                    self.upload = Some((value_bytes + LINE_END_BYTES, after));
                    length
                }
                Parsed::Skip { length } => length,
                Parsed::Incomplete { needed } => {
                    assert!(needed > input.len(), "{needed} bytes are there");
                    self.needed = needed;
                    self.run.needed_max = self.run.needed_max.max(needed);
                    return at;
                }
                Parsed::Broken(error) => {
                    self.run.broken = Some(error);
                    return self.partial.len();
                }
            };
            assert!((1..=input.len()).contains(&length), "{length} bytes taken");
            at += length;
        }
    }

    /// Parses once more: an error in a command of many arguments may not have been reported yet.
    fn finish(mut self, limits: &Limits) -> Run {
        self.needed = 0;
        self.receive(b"", limits);
        self.run.left = self.partial.len();
        self.run
    }
}

fn run_with<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Run {
    let mut connection = Connection::default();
    for piece in pieces {
        connection.receive(piece, limits);
    }
    connection.finish(limits)
}

fn run(input: &[u8]) -> Run {
    run_with([input], &LIMITS)
}

fn broken(input: &[u8]) -> Option<ProtocolError> {
    let whole = run(input);
    assert_eq!(run_with(input.chunks(1), &LIMITS).outcome(), whole.outcome(), "byte by byte");
    whole.broken
}

/// A command as clients send it.
fn multibulk_of(args: &[&[u8]]) -> Vec<u8> {
    [format!("*{}\r\n", args.len()).into_bytes(), encode(args)].concat()
}

fn words_of(args: &[&[u8]]) -> Vec<Vec<u8>> {
    args.iter().map(|w| w.to_vec()).collect()
}

#[test]
fn commands_carry_their_words() {
    let input = multibulk_of(&[b"SET", b"key", b"\r\n"]);
    let args = Args::new(&input[4..], 3);
    assert_eq!(
        parse(&mut State::Command, &[&input[..], b"next"].concat(), &LIMITS),
        Parsed::Command { args, length: input.len() }
    );
    for n in 0..input.len() {
        let parsed = parse(&mut State::Command, &input[..n], &LIMITS);
        assert!(matches!(parsed, Parsed::Incomplete { needed } if needed > n && needed <= input.len()), "{parsed:?}");
    }
}

#[test]
fn what_is_missing_of_a_string_is_asked_for_at_once() {
    let needed = |input: &[u8]| match parse(&mut State::Command, input, &LIMITS) {
        Parsed::Incomplete { needed } => needed,
        other => panic!("{other:?}"),
    };
    assert_eq!(needed(b"*2\r\n$4\r\nECHO\r\n$1000\r\nx"), 4 + 10 + 7 + 1002);
    // With many arguments, the parser waits for the shortest possible encoding of all of them.
    assert_eq!(needed(b"*1000\r\n$5\r\nLPUSH\r\n$1\r\nx\r\n"), 7 + 11 + 7 + 64 * 6);
}

#[test]
fn commands_of_keys_are_taken_apart() {
    let mut state = State::Command;
    let input = multibulk_of(&[b"mGet", b"a", b"bc"]);
    let split = Parsed::Split { command: Command::MGet, keys: 2, length: 14 };
    assert_eq!(parse(&mut state, &input[..14], &LIMITS), split);
    let key = |key, last, length| Parsed::Key { command: Command::MGet, key, last, length };
    assert_eq!(parse(&mut state, &input[14..], &LIMITS), key(b"a", false, 7));
    assert_eq!(state, State::Keys { command: Command::MGet, left: 1 });
    assert_eq!(parse(&mut state, &input[21..], &LIMITS), key(b"bc", true, 8));
    assert_eq!(state, State::Command);

    for name in [&b"DEL"[..], b"UNLINK", b"EXISTS", b"TOUCH", b"MGET"] {
        let is_split =
            |args: &[&[u8]]| matches!(parse(&mut State::Command, &multibulk_of(args), &LIMITS), Parsed::Split { .. });
        assert!(is_split(&[name, b"a", b"b"]) && !is_split(&[name]));
        // MGET of one key is split too, as its reply has to be an array.
        assert_eq!(is_split(&[name, b"a"]), name == b"MGET");
    }
}

#[test]
fn any_number_of_keys_takes_bounded_memory() {
    let mut connection = Connection::default();
    connection.receive(b"*100001\r\n$3\r\nDEL\r\n", &LIMITS);
    for _ in 0..100_000 {
        connection.receive(b"$3\r\nkey\r\n", &LIMITS);
        assert!(connection.partial.is_empty());
    }
    assert_eq!(connection.state, State::Command);
    assert_eq!(connection.finish(&LIMITS).commands[0].len(), 100_001);
}

#[test]
fn long_values_are_not_waited_for() {
    let long = vec![b'v'; UPLOAD_BYTES_MIN];
    let upload = |args: &[&[u8]]| {
        let input = multibulk_of(args);
        let start = &input[..input.len() - UPLOAD_BYTES_MIN];
        match parse(&mut State::Command, start, &LIMITS) {
            Parsed::Upload { args, value_bytes, after, length } => {
                assert!(value_bytes == UPLOAD_BYTES_MIN && input[length..].starts_with(&long));
                Some((args.len(), after))
            }
            Parsed::Incomplete { .. } => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(upload(&[b"SET", b"k", &long]), Some((2, 0)));
    assert_eq!(upload(&[b"set", b"k", &long, b"EX", b"10"]), Some((2, 2)));
    assert_eq!(upload(&[b"SETEX", b"k", b"10", &long]), Some((3, 0)));
    assert_eq!(upload(&[b"PSETEX", b"k", b"10", &long]), Some((3, 0)));
    assert_eq!(upload(&[b"SETNX", b"k", &long]), Some((2, 0)));
    assert_eq!(upload(&[b"GETSET", b"k", &long]), Some((2, 0)));
    assert_eq!(upload(&[b"APPEND", b"k", &long]), Some((2, 0)));
    // Not uploads: a long key, a wrong number of arguments, a command that needs its value complete.
    assert_eq!(upload(&[b"SET", &long, b"v"]), None);
    assert_eq!(upload(&[b"SETEX", b"k", &long]), None);
    assert_eq!(upload(&[b"SETNX", b"k", &long, b"more"]), None);
    assert_eq!(upload(&[b"LPUSH", b"k", &long]), None);
}

#[test]
fn mistakes_break_the_connection() {
    use ProtocolError::*;
    let cases: &[(&[u8], ProtocolError)] = &[
        (b"*x\r\n", InvalidMultibulkLength),
        (b"*\r\n", InvalidMultibulkLength),
        (b"*+1\r\n", InvalidMultibulkLength),
        (b"*01\r\n", InvalidMultibulkLength),
        (b"*-\r\n", InvalidMultibulkLength),
        (b"*3000000000\r\n", InvalidMultibulkLength),
        (b"*99999999999999999999\r\n", InvalidMultibulkLength),
        (b"*12345678901234567890123456789012345678901234567890", InvalidMultibulkLength),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", ExpectedBulk { got: b'f' }),
        (b"*1\r\n$x\r\n", InvalidBulkLength),
        (b"*1\r\n$-1\r\n", InvalidBulkLength),
        (b"*2\r\n$3\r\nGET\r\n$2000000000\r\n", InvalidBulkLength),
        (b"*1\r\n$1048577\r\n", InvalidBulkLength),
        (b"*2000000000\r\n$5\r\nLPUSH\r\n", TooBigCommand),
        (b"SET k \"v\r\n", UnbalancedQuotes),
        (b"POST / HTTP/1.1\r\n", Http),
    ];
    for (input, error) in cases {
        assert_eq!(broken(input), Some(*error), "{}", String::from_utf8_lossy(input));
    }
}

#[test]
fn commands_have_a_greatest_length() {
    let long = vec![b'v'; 1 << 20];
    let sized = |count| run(&multibulk_of(&vec![&long[..]; count])).broken;
    assert_eq!(sized(2), None);
    assert_eq!(sized(3), Some(ProtocolError::TooBigCommand));
}

#[test]
fn before_the_password_little_may_be_sent() {
    let broken = |input: &[u8]| run_with([input], &Limits::UNAUTHENTICATED).broken;
    assert_eq!(broken(b"*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulk));
    assert_eq!(broken(b"*3000000000\r\n"), Some(ProtocolError::InvalidMultibulkLength));
    assert_eq!(broken(b"*2\r\n$4\r\nAUTH\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulk));
    let longest = multibulk_of(&[b"SET", b"k", &[b'v'; 16384]]);
    let parsed = parse(&mut State::Command, &longest, &Limits::UNAUTHENTICATED);
    assert!(matches!(parsed, Parsed::Command { length, .. } if length == longest.len()), "nothing is uploaded");
}

#[test]
fn errors_are_worded_as_in_redis() {
    let text = |error: ProtocolError| {
        let mut out = Vec::new();
        error.write(&mut Writer::new(&mut out, false));
        String::from_utf8(out).expect("text")
    };
    assert_eq!(text(ProtocolError::ExpectedBulk { got: b'x' }), "-ERR Protocol error: expected '$', got 'x'\r\n");
    assert_eq!(text(ProtocolError::ExpectedBulk { got: b'\r' }), "-ERR Protocol error: expected '$', got ' '\r\n");
    assert_eq!(text(ProtocolError::InvalidBulkLength), "-ERR Protocol error: invalid bulk length\r\n");
    assert_eq!(text(ProtocolError::TooBigInline), "-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn empty_commands_are_skipped() {
    let input = [b"*0\r\n\r\n*-1\r\n\n*-20\r\n", &multibulk_of(&[b"PING"])[..], b"PING\r\n"].concat();
    let run = run(&input);
    assert_eq!(run.commands, [words_of(&[b"PING"]), words_of(&[b"PING"])]);
    assert_eq!((run.broken, run.left), (None, 0));
}

/// A command of a million arguments that arrived in pieces of a few arguments each once kept a server busy: it was
/// scanned from its start for each piece.
#[test]
fn many_words_in_many_pieces_are_not_scanned_for_each_piece() {
    let args: Vec<&[u8]> = std::iter::once(&b"RPUSH"[..]).chain((0..60_000).map(|_| &b"a longer arg"[..])).collect();
    let input = multibulk_of(&args);
    let run = run_with(input.chunks(50), &LIMITS);
    assert_eq!(run.commands[0].len(), args.len());
    assert!(run.looked_at < 4 * input.len(), "{} bytes", run.looked_at);
    assert!(run.needed_max <= input.len());
}

/// A `SET` of a long value under a key too long to be stored was parsed as an upload, and stopped the shard that owned
/// the key. Where many arguments followed the value, they were scanned from the first for each piece that arrived.
#[test]
fn what_is_no_upload() {
    let value = vec![b'v'; UPLOAD_BYTES_MIN];
    let is_upload = |key: &[u8], after: usize| {
        let mut args = vec![&b"SET"[..], key, &value];
        args.extend(std::iter::repeat_n(&b"arg"[..], after));
        matches!(parse(&mut State::Command, &multibulk_of(&args), &LIMITS), Parsed::Upload { .. })
    };
    let key = vec![b'k'; UPLOAD_KEY_BYTES_MAX + 1];
    assert!(is_upload(&key[1..], 0) && !is_upload(&key, 0));
    assert!(is_upload(b"key", UPLOAD_ARGS_AFTER_MAX) && !is_upload(b"key", UPLOAD_ARGS_AFTER_MAX + 1));
}

/// The parser waited for a command name, and for a key of a split command, to be complete, however long it was.
#[test]
fn long_names_and_keys_of_commands_that_are_taken_apart() {
    let limits = Limits::authenticated(512 << 20);
    let input = format!("*3\r\n${COMMAND_BYTES_MAX}\r\nk");
    let broken = Parsed::Broken(ProtocolError::TooBigCommand);
    assert_eq!(parse(&mut State::Command, input.as_bytes(), &limits), broken);
    for (bytes, expected) in [
        (COMMAND_BYTES_MAX - 100, Parsed::Incomplete { needed: COMMAND_BYTES_MAX - 100 + 13 }),
        (COMMAND_BYTES_MAX, Parsed::Broken(ProtocolError::TooBigCommand)),
    ] {
        let mut state = State::Keys { command: Command::Del, left: 2 };
        assert_eq!(parse(&mut state, format!("${bytes}\r\nk").as_bytes(), &limits), expected);
    }
}

fn arg() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..12),
        2 => "[$*\r\n0-9]{0,8}".prop_map(String::into_bytes),
        1 => (90..200_usize).prop_map(|n| vec![b'$'; n]),
        1 => (UPLOAD_BYTES_MIN - 2..UPLOAD_BYTES_MIN + 3).prop_map(|n| vec![b'\r'; n]),
    ]
}

fn command() -> impl Strategy<Value = Vec<Vec<u8>>> {
    const NAMES: &[&str] = &["GET", "SET", "SETEX", "APPEND", "MGET", "DEL", "EXISTS", "TOUCH", "LPUSH", "NOTHING", ""];
    let args = prop_oneof![8 => prop::collection::vec(arg(), 0..6), 1 => prop::collection::vec(arg(), 60..80)];
    (prop::sample::select(NAMES), args).prop_map(|(name, args)| [vec![name.as_bytes().to_vec()], args].concat())
}

proptest! {
    #[test]
    fn pipelines_come_out_as_they_went_in_however_they_are_cut(
        commands in prop::collection::vec(command(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let input: Vec<u8> = commands
            .iter()
            .flat_map(|c| multibulk_of(&c.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .collect();
        let mut places: Vec<usize> = cuts.iter().map(|c| c.index(input.len())).chain([0, input.len()]).collect();
        places.sort_unstable();
        let run = run_with(places.windows(2).map(|w| &input[w[0]..w[1]]), &LIMITS);
        prop_assert_eq!((run.outcome(), run.left), ((&commands[..], None), 0));
    }

    #[test]
    fn any_bytes_do_the_same_however_they_are_cut(
        input in prop::collection::vec(prop::sample::select(&b"*$123-\r\n\r\n\"ax "[..]), 0..60),
    ) {
        let whole = run(&input);
        let pieces = run_with(input.chunks(1), &LIMITS);
        prop_assert_eq!((whole.outcome(), whole.left), (pieces.outcome(), pieces.left));
    }
}

/// A command of millions of arguments was parsed from its start some thirty times before it was complete.
#[test]
fn arguments_that_have_been_parsed_are_not_parsed_again() {
    let mut input = b"*5001\r\n$4\r\nSADD\r\n".to_vec();
    (0..5000).for_each(|n| input.extend(format!("$4\r\n{n:04}\r\n").bytes()));
    let (mut state, mut positions) = (State::Command, Vec::new());
    for length in (1000..input.len()).step_by(1000) {
        let parsed = parse(&mut state, &input[..length], &LIMITS);
        assert!(matches!(parsed, Parsed::Incomplete { needed } if needed > length), "{parsed:?}");
        if let State::Args { index, at } = state {
            let index = u32::from_le_bytes([index[0], index[1], index[2], 0]);
            assert_eq!(&input[at as usize + 4..][..4], format!("{:04}", index - 1).as_bytes());
            assert!(at as usize + 20 >= length, "all that is there has been parsed");
            positions.push(at);
        }
    }
    assert!(positions.len() > 45 && positions.is_sorted());
    let parsed = parse(&mut state, &input, &LIMITS);
    assert!(matches!(parsed, Parsed::Command { args, length } if args.len() == 5001 && length == input.len()));
    assert_eq!(state, State::Command);
    let mut broken = input[..30_000].to_vec();
    _ = parse(&mut state, &broken, &LIMITS);
    let State::Args { at, .. } = state else { panic!("{state:?}") };
    broken.truncate(at as usize);
    broken.extend(b"!0");
    assert_eq!(parse(&mut state, &broken, &LIMITS), Parsed::Broken(ProtocolError::ExpectedBulk { got: b'!' }));
    assert_eq!(state, State::Command);
}
