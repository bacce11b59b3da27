//! The input of a RESP client: whatever the bytes, and however the network cuts them, the parser returns equal commands
//! and makes the connection keep a bounded number of bytes.
//!
//! The input is the client's bytes and nothing else, so a transcript is a seed. The cuts are derived from the bytes.
//! The input is parsed with the limits of an authenticated client, and with those of an unauthenticated one.

#![no_main]

#[path = "../cut.rs"]
mod cut;

use cut::cut;
use libfuzzer_sys::fuzz_target;
use pinion::command::args::encode;
use pinion::command::{Args, Command};
use pinion::protocol::resp::{Limits, Parsed, ProtocolError, State, UPLOAD_BYTES_MIN, parse, parse_rest};

/// Slightly more than the shortest long value, so that inputs can announce strings that are too long.
const BULK_BYTES_MAX: usize = UPLOAD_BYTES_MIN + 100;

/// An upper bound on the bytes that a command makes a connection wait for: two strings of the greatest length, and 1
/// MiB.
const WAITED_BYTES_MAX: usize = 2 * BULK_BYTES_MAX + (1 << 20) + 100;

/// Bytes of the line end after a string.
const LINE_END_BYTES: usize = 2;

fuzz_target!(|input: &[u8]| {
    for limits in [Limits::authenticated(BULK_BYTES_MAX), Limits::UNAUTHENTICATED] {
        let whole = run([input], &limits);
        assert_eq!(run(input.chunks(1), &limits), whole, "byte by byte");
        assert_eq!(run(cut(input), &limits), whole, "cut in pieces");
        sent_again(&whole, &limits);
    }
});

/// The result of feeding input to a connection.
#[derive(Debug, Default, PartialEq)]
struct Run {
    /// Complete commands, reassembled from splits and uploads.
    commands: Vec<Vec<Vec<u8>>>,
    broken: Option<ProtocolError>,
    /// The final state, and the bytes of an incomplete command.
    state: State,
    upload: Option<Upload>,
    rest: Vec<u8>,
}

/// A long value that is being received.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Upload {
    /// Missing bytes of it, its line end included.
    missing: usize,
    /// The number of arguments after it.
    after: usize,
}

/// Feeds the pieces as the connection reader does. At the end it parses once more, since an error in a command of many
/// arguments is not looked for in each piece.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Run {
    let (mut needed, mut run) = (0, Run::default());
    for piece in pieces {
        run.rest.extend_from_slice(piece);
        if run.rest.len() >= needed {
            needed = read(&mut run, limits);
        }
        if run.broken.is_some() {
            return run;
        }
    }
    read(&mut run, limits);
    run
}

/// Parses the bytes received, and returns how many bytes, counted from the first unparsed one, are needed to continue.
fn read(run: &mut Run, limits: &Limits) -> usize {
    let bytes = std::mem::take(&mut run.rest);
    let mut at = 0;
    let needed = loop {
        let input = &bytes[at..];
        match step(run, input, limits) {
            Ok(length) => {
                assert!(length <= input.len(), "{length} bytes taken");
                at += length;
            }
            Err(needed) => break needed,
        }
    };
    if run.broken.is_none() {
        run.rest = bytes[at..].to_vec();
    }
    needed
}

/// Parses one item of the input: returns its length, or the number of bytes needed.
fn step(run: &mut Run, input: &[u8], limits: &Limits) -> Result<usize, usize> {
    let parsed = match &mut run.upload {
        Some(upload) if upload.missing > 0 => {
            let taken = input.len().min(upload.missing);
            if taken == 0 {
                return Err(1);
            }
            upload.missing -= taken;
            let value = run.commands.last_mut().and_then(|c| c.last_mut()).expect("the value's command");
            value.extend_from_slice(&input[..taken]);
            if upload.missing == 0 {
                value.truncate(value.len() - LINE_END_BYTES);
            }
            return Ok(taken);
        }
        Some(upload) => parse_rest(input, upload.after, limits),
        None => parse(&mut run.state, input, limits),
    };
    match parsed {
        Parsed::Command { args, length } => {
            match run.upload.take() {
                Some(_) => run.commands.last_mut().expect("the value's command").extend(owned(args)),
                None => run.commands.push(owned(args)),
            }
            Ok(length)
        }
        Parsed::Inline { args, count, length } => {
            run.commands.push(owned(Args::new(&args, count)));
            Ok(length)
        }
        Parsed::Split { command, keys, length } => {
            assert!(keys > 1 || keys == 1 && command == Command::MGet);
            assert_eq!(run.state, State::Keys { command, left: keys });
            run.commands.push(vec![command.name().into()]);
            Ok(length)
        }
        Parsed::Key { command, key, last, length } => {
            let args = run.commands.last_mut().expect("its head");
            assert!(Command::find(&args[0]) == Some(command) && last == (run.state == State::Command));
            args.push(key.to_vec());
            Ok(length)
        }
        Parsed::Upload { args, value_bytes, after, length } => {
            assert!((UPLOAD_BYTES_MIN..=limits.bulk_bytes_max).contains(&value_bytes));
            let mut args = owned(args);
            let row = Command::find(&args[0]).expect("a command with a value").row();
            assert!(row.accepts(args.len() + 1 + after));
            args.push(Vec::new());
            run.commands.push(args);
            run.upload = Some(Upload { missing: value_bytes + LINE_END_BYTES, after });
            Ok(length)
        }
        Parsed::Skip { length } => Ok(length),
        Parsed::Incomplete { needed } => {
            assert!(needed > input.len(), "{needed} bytes are there");
            assert!(needed <= WAITED_BYTES_MAX, "waits for {needed} bytes");
            Err(needed)
        }
        Parsed::Broken(error) => {
            run.broken = Some(error);
            Err(usize::MAX)
        }
    }
}

/// Copies the arguments, and checks that their number is the one announced.
fn owned(args: Args) -> Vec<Vec<u8>> {
    let owned: Vec<_> = args.iter().map(<[u8]>::to_vec).collect();
    assert_eq!(owned.len(), args.len());
    owned
}

/// Checks that complete commands, encoded as RESP, are parsed as equal commands.
fn sent_again(run: &Run, limits: &Limits) {
    let is_whole = run.state == State::Command && run.upload.is_none();
    let whole = &run.commands[..run.commands.len() - usize::from(!is_whole && !run.commands.is_empty())];
    let mut bytes = Vec::new();
    for command in whole.iter().filter(|c| c.len() <= limits.args_max) {
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        if args.iter().all(|w| w.len() <= limits.bulk_bytes_max) {
            bytes.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
            bytes.extend_from_slice(&encode(&args));
        }
    }
    let again = self::run([&bytes[..]], limits);
    assert_eq!((again.broken, again.rest.len()), (None, 0));
    assert!(again.commands.len() <= whole.len());
    if again.commands.len() == whole.len() {
        let same = |a: &[Vec<u8>], b: &[Vec<u8>]| a[0].eq_ignore_ascii_case(&b[0]) && a[1..] == b[1..];
        assert!(again.commands.iter().zip(whole).all(|(a, b)| same(a, b)));
    }
}
