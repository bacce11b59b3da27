//! Commands on an engine, as transcripts: each command with its reply in RESP2.

mod bits;
mod dump;
mod fields;
mod geo;
mod hashes;
mod hyperloglog;
mod lists;
mod sets;
mod sorted;
mod strings;

use crate::command::{Args, Call, Command, Operation, Request, Session as ClientSession, UnixMs, args};
use crate::engine::{Engine, EngineConfig, Eviction, KeyHash, KeyHasher};
use crate::execute::{COPIED_BYTES_MAX, Executor, Outcome};

pub(super) const NOW: UnixMs = 1_700_000_000_000;

/// An engine and the time.
pub(super) struct Session {
    pub(super) executor: Executor,
    /// It executes the same commands in slices of two elements each, and replies the same. None after a command whose
    /// effect is random.
    sliced: Option<Executor>,
    pub(super) now: UnixMs,
    hasher: KeyHasher,
    resp3: bool,
}

impl Session {
    pub(super) fn new() -> Self {
        let hasher = KeyHasher::with_seed(3);
        let config = EngineConfig {
            memory_bytes: 64 << 20,
            value_bytes_max: 16 << 20,
            eviction: Eviction::default(),
            user_bytes_max: None,
        };
        let executor = || {
            let engine = Engine::new(config, hasher.clone(), NOW).expect("memory");
            Executor::new(engine, 1, NOW, || 0)
        };
        let mut sliced = executor();
        sliced.elements_per_slice = 2;
        Self { executor: executor(), sliced: Some(sliced), now: NOW, hasher: hasher.clone(), resp3: false }
    }

    pub(super) fn resp3() -> Self {
        Self { resp3: true, ..Self::new() }
    }

    /// The encoded reply to a command.
    pub(super) fn send(&mut self, command: &[&[u8]]) -> Vec<u8> {
        let found = Command::find(command[0]).expect("a command");
        assert!(found.row().accepts(command.len()), "{} args", command.len());
        let key_at = if found == Command::Object || found == Command::Memory { 2 } else { 1 };
        let arguments = args::encode(&command[1..]);
        let key = command[key_at];
        let (request, hash) = (self.request(found, key, command.len() - 1, &arguments), self.hasher.hash(key));
        let reply = run(&mut self.executor, &request, hash, self.now);
        let is_random =
            matches!(found, Command::SPop | Command::SRandMember | Command::HRandField | Command::ZRandMember);
        if is_random {
            self.sliced = None;
        } else if let Some(sliced) = &mut self.sliced {
            let same = run(sliced, &request, hash, self.now);
            let shown = |reply: &[u8]| String::from_utf8_lossy(&reply[..reply.len().min(1000)]).into_owned();
            assert!(same == reply, "{found:?} replies {:?}, in slices {:?}", shown(&reply), shown(&same));
        }
        reply
    }

    fn request<'r>(&self, command: Command, key: &'r [u8], count: usize, args: &'r [u8]) -> Request<&'r [u8]> {
        let call = Call { command, count: count as u32, args };
        let session = ClientSession { resp3: self.resp3, ..ClientSession::default() };
        Request { key, operation: Operation::Call(call), session }
    }

    /// The reply to a command line, with `|` for each line end.
    pub(super) fn line(&mut self, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        String::from_utf8_lossy(&self.send(&args)).replace("\r\n", "|")
    }

    /// The reply to a command whose value arrives as an upload between `before` and `after`, with `|` for each line
    /// end.
    pub(super) fn upload(&mut self, before: &[&[u8]], value: &[u8], after: &[&[u8]]) -> String {
        let (arguments, after_bytes) = (args::encode(&before[1..]), args::encode(after));
        let command = Command::find(before[0]).expect("a command");
        let key = before[1];
        let (request, hash) = (self.request(command, key, before.len() - 1, &arguments), self.hasher.hash(key));
        let after = Args::new(&after_bytes, after.len());
        let reply = upload(&mut self.executor, &request, hash, value, after, self.now);
        if let Some(sliced) = &mut self.sliced {
            assert!(upload(sliced, &request, hash, value, after, self.now) == reply, "{command:?}");
        }
        String::from_utf8_lossy(&reply).replace("\r\n", "|")
    }

    /// Sends command lines and compares the replies: `> command`, then `< reply` as [`Session::line`] shows it.
    #[track_caller]
    pub(super) fn transcript(&mut self, text: &str) {
        let mut reply = String::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_at(2) {
                ("> ", command) => reply = self.line(command),
                ("< ", expected) => assert_eq!(reply, expected, "in\n{text}"),
                _ => panic!("neither sent nor received: {line}"),
            }
        }
    }
}

/// The whole reply to a request.
fn run(executor: &mut Executor, request: &Request<&[u8]>, hash: KeyHash, now: UnixMs) -> Vec<u8> {
    executor.advance(now);
    let mut out = Vec::new();
    let mut outcome = executor.run(request, hash, COPIED_BYTES_MAX, &mut out);
    while let Outcome::More(slice) = outcome {
        outcome = executor.resume(request, hash, now, *slice, &mut out);
    }
    if let Outcome::Stream(reply) = outcome {
        let mut reply = *reply;
        out.extend_from_slice(&reply.head);
        executor.copy(&mut reply.reader, usize::MAX, &mut out);
        executor.close(reply.reader);
        out.extend_from_slice(&reply.tail);
    }
    out
}

/// The reply to a request whose value arrives as an upload.
fn upload(
    executor: &mut Executor,
    request: &Request<&[u8]>,
    hash: KeyHash,
    value: &[u8],
    after: Args,
    now: UnixMs,
) -> Vec<u8> {
    executor.advance(now);
    let (mut rest, mut out) = (value, Vec::new());
    let mut target = executor.begin_upload(request, hash, value.len());
    while !rest.is_empty() {
        rest = &rest[executor.append(&mut target, rest)..];
    }
    executor.finish_upload(target, true, after, &mut out);
    out
}
