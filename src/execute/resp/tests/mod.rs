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
use crate::engine::{Engine, EngineConfig, Eviction, KeyHasher};
use crate::execute::{COPIED_BYTES_MAX, Executor, Outcome};

pub(super) const NOW: UnixMs = 1_700_000_000_000;

/// An engine and the time.
pub(super) struct Session {
    pub(super) executor: Executor,
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
        let engine = Engine::new(config, hasher.clone(), NOW).expect("memory");
        Self { executor: Executor::new(engine, 1, NOW, || 0), now: NOW, hasher, resp3: false }
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
        let (key, mut out) = (command[key_at], Vec::new());
        let request = self.request(found, key, command.len() - 1, &arguments);
        self.executor.advance(self.now);
        let hash = self.hasher.hash(key);
        if let Outcome::Stream(reply) = self.executor.run(&request, hash, COPIED_BYTES_MAX, &mut out) {
            let mut reply = *reply;
            out.extend_from_slice(&reply.head);
            self.executor.copy(&mut reply.reader, usize::MAX, &mut out);
            self.executor.close(reply.reader);
            out.extend_from_slice(&reply.tail);
        }
        out
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
        let (key, mut out) = (before[1], Vec::new());
        let request = self.request(command, key, before.len() - 1, &arguments);
        self.executor.advance(self.now);
        let mut target = self.executor.begin_upload(&request, self.hasher.hash(key), value.len());
        let mut rest = value;
        while !rest.is_empty() {
            rest = &rest[self.executor.append(&mut target, rest)..];
        }
        self.executor.finish_upload(target, true, Args::new(&after_bytes, after.len()), &mut out);
        String::from_utf8_lossy(&out).replace("\r\n", "|")
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
