//! The input of a memcached client: whatever the bytes, and however the network cuts them, the parser returns equal
//! requests, makes the connection keep a bounded number of bytes, and rejects requests that the engine would not
//! accept.
//!
//! The input is the client's bytes and nothing else, so a transcript is a seed. The cuts are derived from the bytes.

#![no_main]

#[path = "../cut.rs"]
mod cut;

use cut::cut;
use libfuzzer_sys::fuzz_target;
use pinion::command::{Control, Operation, Request};
use pinion::engine::KEY_BYTES_MAX;
use pinion::protocol::memcached::{LINE_BYTES_MAX, Parsed, State, parse};

/// Small, so that a value that is too long fits in an input.
const VALUE_BYTES_MAX: usize = 300;

/// An upper bound on the bytes that a command makes a connection wait for: a store's line and value, or the spaces,
/// expiry and key of a get.
const WAITED_BYTES_MAX: usize = 4 * LINE_BYTES_MAX;

fuzz_target!(|input: &[u8]| {
    let whole = run([input]);
    assert_eq!(run(input.chunks(1)), whole, "byte by byte");
    assert_eq!(run(cut(input)), whole, "cut in pieces");
});

/// A request or control command, as the connection saw it.
#[derive(Debug, PartialEq)]
enum Seen {
    Request(Request<Vec<u8>>),
    Control(Control, bool),
}

/// The result of feeding input to a connection.
#[derive(Debug, Default, PartialEq)]
struct Run {
    requests: Vec<Seen>,
    closed: bool,
    /// The bytes of an incomplete command.
    rest: Vec<u8>,
}

/// Feeds the pieces as the connection reader does (src/shard/read.rs).
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Run {
    let (mut state, mut needed, mut run) = (State::Command, 0, Run::default());
    for piece in pieces {
        run.rest.extend_from_slice(piece);
        if run.rest.len() < needed {
            continue;
        }
        let mut at = 0;
        loop {
            let input = &run.rest[at..];
            match parse(&mut state, input, VALUE_BYTES_MAX) {
                Parsed::Request { request, length } => {
                    assert!((1..=input.len()).contains(&length), "a request of {length} bytes");
                    check(&request);
                    run.requests.push(Seen::Request(request.map(<[u8]>::to_vec)));
                    at += length;
                }
                Parsed::Control { control, noreply, length } => {
                    assert!((1..=input.len()).contains(&length), "a command of {length} bytes");
                    if matches!(control, Control::Invalid(_)) {
                        take_keys_back(&mut run.requests);
                    }
                    run.requests.push(Seen::Control(control, noreply));
                    at += length;
                }
                Parsed::Upload { request, value_bytes, length } => {
                    assert!((1..=input.len()).contains(&length), "a command line of {length} bytes");
                    assert!(value_bytes <= VALUE_BYTES_MAX, "a value of {value_bytes} bytes");
                    check(&request);
                    run.requests.push(Seen::Request(request.map(<[u8]>::to_vec)));
                    at += length;
                    state = State::Discard(value_bytes as u64 + 2);
                }
                Parsed::Skip { length } => {
                    assert!((1..=input.len()).contains(&length), "a skip of {length} bytes");
                    at += length;
                }
                Parsed::Incomplete { needed: n } => {
                    assert!(n > input.len(), "{n} bytes are there");
                    assert!(n <= WAITED_BYTES_MAX, "waits for {n} bytes");
                    needed = n;
                    break;
                }
                Parsed::Close | Parsed::TooLong | Parsed::Foreign(_) => {
                    run.closed = true;
                    run.rest.clear();
                    return run;
                }
            }
        }
        run.rest.drain(..at);
    }
    run
}

/// Checks the properties that the layers behind the parser assert or rely on.
fn check(request: &Request<&[u8]>) {
    assert!(!request.key.is_empty(), "{request:?}");
    assert!(request.key.len() <= KEY_BYTES_MAX, "{request:?}");
    assert!(!request.key.iter().any(|b| b" \n".contains(b)), "{request:?}");
    if let Operation::Store { value, .. } | Operation::Extend { value, .. } = request.operation {
        assert!(value.len() <= VALUE_BYTES_MAX, "{request:?}");
    }
}

/// Removes the keys of a get line that is in error: of a short line no key has been executed, and of a long one, the
/// number executed depends on the pieces.
fn take_keys_back(requests: &mut Vec<Seen>) {
    let is_key =
        |seen: &Seen| matches!(seen, Seen::Request(Request { operation: Operation::Get { last: false, .. }, .. }));
    while requests.last().is_some_and(is_key) {
        requests.pop();
    }
}
