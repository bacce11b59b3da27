//! A client: it writes commands in pieces and pipelines, reads when it likes, and may vanish.

use crate::model::{Command, Condition, Model, Replies};
use crate::random::Random;
use crate::reply::Reply;
use crate::world::World;
use std::collections::VecDeque;

/// Commands that are shown when one is answered wrongly.
const HISTORY: usize = 20;

/// A text, cut where it becomes long.
fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(160) {
        text.truncate(end);
    }
    text
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It reads all replies, then closes.
    InPeace,
    /// It sends its last command, closes its direction, and reads the replies.
    HalfClose,
    /// It quits, and reads until the shard closes.
    Quit,
    /// It sends bytes that break the protocol, and reads until the shard closes.
    Broken,
    /// It closes its direction in the middle of a command.
    InTheMiddle,
    /// It is gone, with replies unread and commands half sent.
    Reset,
}

/// A command that was sent.
struct Sent {
    command: Command,
    /// Its reply is suppressed.
    noreply: bool,
    is_get: bool,
}

pub struct Client {
    pub number: usize,
    pub wire: Option<usize>,
    shard: usize,
    listener: u32,
    is_resp: bool,
    model: Model,
    random: Random,
    /// Commands that are still to be written.
    to_send: usize,
    /// Bytes that are written and not yet sent.
    outgoing: VecDeque<u8>,
    /// Replies that are expected.
    sent: VecDeque<Sent>,
    replies: Replies,
    received: Vec<u8>,
    depth: usize,
    long_permille: u64,
    leaving: Leaving,
    has_left: bool,
    pub is_done: bool,
    pub replied: u64,
    /// Rounds in which it reads nothing.
    stalls: u64,
    /// Rounds since the shard last took bytes that lie in the socket.
    pub waited: u64,
    /// Bytes in its socket in the last round.
    pub last_length: usize,
    pub violation: Option<String>,
    /// The latest commands and their replies.
    history: VecDeque<String>,
    /// The node stops: it may be disconnected.
    pub may_be_cut: bool,
}

impl Client {
    pub fn new(number: usize, shards: usize, is_tight: bool, mut random: Random) -> Self {
        let is_resp = random.permille(600);
        let listener = if random.permille(250) { 2 } else { u32::from(is_resp) };
        let leavings = [
            Leaving::InPeace,
            Leaving::InPeace,
            Leaving::HalfClose,
            Leaving::Quit,
            Leaving::Broken,
            Leaving::InTheMiddle,
            Leaving::Reset,
        ];
        let model = Model::new(number, !is_resp, is_tight);
        Self {
            number,
            wire: None,
            shard: random.below(shards as u64) as usize,
            listener,
            is_resp,
            model,
            to_send: random.between(1, 60) as usize,
            outgoing: VecDeque::new(),
            sent: VecDeque::new(),
            replies: Replies::On,
            received: Vec::new(),
            depth: *random.pick(&[1, 2, 8, 64]),
            long_permille: *random.pick(&[0, 0, 50, 250]),
            leaving: *random.pick(&leavings),
            has_left: false,
            is_done: false,
            replied: 0,
            stalls: 0,
            waited: 0,
            last_length: 0,
            violation: None,
            history: VecDeque::new(),
            may_be_cut: false,
            random,
        }
    }

    /// Sends long values without a pause, and leaves in peace.
    pub fn become_greedy(&mut self) {
        (self.to_send, self.depth, self.long_permille) = (40, 16, 900);
        self.leaving = Leaving::InPeace;
    }

    /// Does something, or nothing.
    pub fn act(&mut self, world: &mut World) {
        if self.is_done || self.violation.is_some() {
            return;
        }
        let Some(wire) = self.wire else { return self.connect(world) };
        if self.leaving == Leaving::Reset && self.random.permille(15) {
            let mut network = world.network.borrow_mut();
            network.wires[wire].client_gone = true;
            network.wires[wire].to_client.clear();
            self.is_done = true;
            return;
        }
        while self.to_send > 0 && self.sent.len() < self.depth {
            self.to_send -= 1;
            self.next_command();
        }
        if self.to_send == 0 && !self.has_left {
            self.leave();
        }
        self.write(world, wire);
        if self.stalls > 0 {
            self.stalls -= 1;
            return;
        }
        if self.random.permille(20) {
            self.stalls = self.random.below(30);
        }
        self.read(world, wire);
    }

    fn connect(&mut self, world: &mut World) {
        if self.random.permille(300) {
            match world.connect(self.shard, self.listener) {
                Some(wire) => self.wire = Some(wire),
                // The node stops.
                None => self.is_done = true,
            }
            if self.is_resp {
                let database = (1 + self.number % 15).to_string();
                self.resp(&[b"SELECT", database.as_bytes()], Command::Fixed("OK"));
            }
        }
    }

    fn leave(&mut self) {
        self.has_left = true;
        match self.leaving {
            Leaving::Quit if self.is_resp => {
                if self.replies != Replies::On {
                    self.resp(&[b"CLIENT", b"REPLY", b"ON"], Command::Replies(Replies::On));
                }
                self.resp(&[b"QUIT"], Command::Fixed("OK"));
            }
            Leaving::Quit => self.outgoing.extend(b"quit\r\n"),
            // Nothing breaks that protocol: a line that is no command is answered.
            Leaving::Broken if !self.is_resp => self.leaving = Leaving::InPeace,
            Leaving::Broken if self.is_resp => {
                let kinds: [&[u8]; 3] = [b"*3\r\n$6\r\nEXISTS\r\n$1\r\nk\r\n!", b"*2\r\n$3\r\nGET\r\n+\r\n", b"*x\r\n"];
                let broken = *self.random.pick(&kinds);
                self.outgoing.extend(broken);
                self.sent.push_back(Sent { command: Command::Wrong, noreply: false, is_get: false });
            }
            Leaving::InTheMiddle => {
                let resp: [&[u8]; 4] = [
                    b"*3\r\n$6\r\nEXISTS\r\n$1\r\nk",
                    b"*3\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
                    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nabc",
                    b"*2\r\n$3\r\nGE",
                ];
                let memcached: [&[u8]; 3] = [b"get a", b"set k 0 0 100000\r\nabc", b"set k 0 0 10\r\nabc"];
                let half = if self.is_resp { *self.random.pick(&resp) } else { *self.random.pick(&memcached) };
                self.outgoing.extend(half);
            }
            _ => {}
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.random.permille(self.long_permille) {
            true => *self.random.pick(&[16 << 10, 17_000, 65_536, 65_537, 70_000, 150_000]),
            false => self.random.below(200),
        };
        if self.random.permille(200) {
            return self.random.below(1000).to_string().into_bytes();
        }
        let start = self.random.next() as u8;
        // No byte of it is white space: memcached takes a number with white space behind it for a number.
        (0..length).map(|n| start.wrapping_add((n / 7) as u8) | 0x80).collect()
    }

    fn keys(&mut self) -> Vec<u8> {
        let count = *self.random.pick(&[1, 1, 2, 3, 20]);
        (0..count).map(|_| self.random.below(12) as u8).collect()
    }

    fn next_command(&mut self) {
        if self.is_resp { self.next_resp() } else { self.next_memcached() }
    }

    fn expect(&mut self, command: Command, noreply: bool, is_get: bool) {
        self.sent.push_back(Sent { command, noreply, is_get });
    }

    /// Writes a command of RESP, and notes what its reply should be.
    fn resp(&mut self, args: &[&[u8]], command: Command) {
        let is_simple = args.iter().all(|arg| !arg.is_empty() && arg.iter().all(u8::is_ascii_alphanumeric));
        if is_simple && self.listener == 1 && self.random.permille(150) {
            self.outgoing.extend(args.join(&b' '));
            self.outgoing.extend(b"\r\n");
        } else {
            self.outgoing.extend(format!("*{}\r\n", args.len()).into_bytes());
            for arg in args {
                self.outgoing.extend(format!("${}\r\n", arg.len()).into_bytes());
                self.outgoing.extend(*arg);
                self.outgoing.extend(b"\r\n");
            }
        }
        let (noreply, next) = match (self.replies, &command) {
            (_, Command::Replies(Replies::On)) => (false, Replies::On),
            (_, Command::Replies(Replies::Off)) => (true, Replies::Off),
            (Replies::On | Replies::Skip, Command::Replies(Replies::Skip)) => (true, Replies::Skip),
            (Replies::Skip, _) => (true, Replies::On),
            (replies, _) => (replies == Replies::Off, replies),
        };
        self.replies = next;
        self.expect(command, noreply, false);
    }

    fn next_resp(&mut self) {
        let key = self.random.below(12) as u8;
        let name = self.model.key(key).into_bytes();
        match self.random.below(28) {
            0..=4 => self.resp(&[b"GET", &name], Command::Get { keys: vec![key] }),
            5..=8 => {
                let value = self.value();
                let (option, condition): (&[&[u8]], _) = match self.random.below(4) {
                    0 => (&[b"NX"], Condition::Absent),
                    1 => (&[b"EX", b"1000", b"XX"], Condition::Present),
                    _ => (&[], Condition::Always),
                };
                let args = [&[&b"SET"[..], &name, &value], option].concat();
                self.resp(&args, Command::Set { key, value: value.clone(), condition });
            }
            9 => {
                let value = self.value();
                self.resp(&[b"APPEND", &name, &value], Command::Append { key, value: value.clone() });
            }
            kind @ 10..=15 => {
                let keys = self.keys();
                let names: Vec<Vec<u8>> = keys.iter().map(|key| self.model.key(*key).into_bytes()).collect();
                let (verb, command): (&[u8], _) = match kind {
                    10..=12 => (b"MGET", Command::Get { keys }),
                    13 => (b"DEL", Command::Delete { keys }),
                    14 => (b"UNLINK", Command::Delete { keys }),
                    _ => (b"EXISTS", Command::Exists { keys }),
                };
                let args: Vec<&[u8]> = std::iter::once(verb).chain(names.iter().map(Vec::as_slice)).collect();
                self.resp(&args, command);
            }
            16 => self.resp(&[b"INCR", &name], Command::Increment { key }),
            17 => self.resp(&[b"STRLEN", &name], Command::Length { key }),
            18 => match self.random.below(4) {
                0 => self.resp(&[b"DBSIZE"], Command::Size),
                1 => self.resp(&[b"KEYS", b"*"], Command::Keys),
                2 => self.resp(&[b"RANDOMKEY"], Command::RandomKey),
                _ => self.resp(&[b"FLUSHDB"], Command::Flush),
            },
            19 => self.resp(&[b"PING"], Command::Fixed("PONG")),
            20 => match self.random.below(3) {
                0 => self.resp(&[b"CLIENT", b"LIST"], Command::Any),
                1 => self.resp(&[b"COMMAND", b"COUNT"], Command::Any),
                _ => self.resp(&[b"HELLO", b"3"], Command::Any),
            },
            21 => self.resp(&[b"NOSUCH", &name], Command::Wrong),
            22 => match self.random.below(4) {
                0 => self.resp(&[b"CLIENT", b"REPLY", b"SKIP"], Command::Replies(Replies::Skip)),
                1 => self.resp(&[b"CLIENT", b"REPLY", b"OFF"], Command::Replies(Replies::Off)),
                _ => self.resp(&[b"CLIENT", b"REPLY", b"ON"], Command::Replies(Replies::On)),
            },
            23..=26 => self.next_of_set(),
            _ => self.resp(&[b"ECHO", b"hello"], Command::Fixed("hello")),
        }
    }

    /// A command on a set, which takes several slices if it has many members.
    fn next_of_set(&mut self) {
        let key = self.random.below(3) as u8;
        let name = self.model.set_key(key).into_bytes();
        let count = *self.random.pick(&[1, 2, 10, 40, 200]);
        let members: Vec<u8> = (0..count).map(|_| self.random.next() as u8).collect();
        let texts: Vec<String> = members.iter().map(u8::to_string).collect();
        let (verb, command): (&[u8], _) = match self.random.below(8) {
            0..=2 => (b"SADD", Command::Members { key, members, adds: true }),
            3 => (b"SREM", Command::Members { key, members, adds: false }),
            4 => (b"SMISMEMBER", Command::HasMembers { key, members }),
            _ => (b"SMEMBERS", Command::AllMembers { key }),
        };
        let is_whole = matches!(command, Command::AllMembers { .. });
        let texts = texts.iter().filter(|_| !is_whole).map(String::as_bytes);
        let args: Vec<&[u8]> = [verb, &name[..]].into_iter().chain(texts).collect();
        self.resp(&args, command);
    }

    fn next_memcached(&mut self) {
        let key = self.random.below(12) as u8;
        let name = self.model.key(key);
        let noreply = self.random.permille(150);
        let suffix = if noreply { " noreply" } else { "" };
        match self.random.below(16) {
            0..=4 => {
                let keys = self.keys();
                let names: Vec<String> = keys.iter().map(|key| self.model.key(*key)).collect();
                self.outgoing.extend(format!("get {}\r\n", names.join(" ")).into_bytes());
                self.expect(Command::Get { keys }, false, true);
            }
            kind @ 5..=10 => {
                let value = self.value();
                let (verb, command) = match kind {
                    5..=7 => ("set", Command::Set { key, value: value.clone(), condition: Condition::Always }),
                    8 => ("add", Command::Set { key, value: value.clone(), condition: Condition::Absent }),
                    9 => ("replace", Command::Set { key, value: value.clone(), condition: Condition::Present }),
                    _ => ("append", Command::Append { key, value: value.clone() }),
                };
                self.outgoing.extend(format!("{verb} {name} 0 0 {}{suffix}\r\n", value.len()).into_bytes());
                self.outgoing.extend(&value);
                self.outgoing.extend(b"\r\n");
                self.expect(command, noreply, false);
            }
            11 => {
                self.outgoing.extend(format!("delete {name}{suffix}\r\n").into_bytes());
                self.expect(Command::Delete { keys: vec![key] }, noreply, false);
            }
            12 => {
                self.outgoing.extend(format!("incr {name} 1{suffix}\r\n").into_bytes());
                self.expect(Command::Increment { key }, noreply, false);
            }
            13 => {
                self.outgoing.extend(b"verbosity 1\r\n");
                self.expect(Command::Fixed("OK"), false, false);
            }
            14 => {
                self.outgoing.extend(b"nonsense\r\n");
                self.expect(Command::Wrong, false, false);
            }
            _ => {
                self.outgoing.extend(b"set k 0 0 3\r\nlonger\r\n");
                // A bad data chunk, whose rest is a command that does not exist.
                self.expect(Command::Wrong, false, false);
                self.expect(Command::Wrong, false, false);
            }
        }
    }

    fn write(&mut self, world: &mut World, wire: usize) {
        let mut network = world.network.borrow_mut();
        let room = network.room(wire).min(self.outgoing.len());
        if room > 0 {
            let count = if self.random.permille(400) { 1 + self.random.below(room as u64) as usize } else { room };
            network.wires[wire].to_shard.extend(self.outgoing.drain(..count));
        }
        if self.has_left && self.outgoing.is_empty() {
            let closes_its_direction = matches!(self.leaving, Leaving::HalfClose | Leaving::InTheMiddle);
            if closes_its_direction || self.leaving == Leaving::InPeace && self.sent.is_empty() {
                network.wires[wire].client_done = true;
            }
        }
    }

    fn read(&mut self, world: &mut World, wire: usize) {
        let is_closed = {
            let mut network = world.network.borrow_mut();
            let wire = &mut network.wires[wire];
            let count = match self.random.permille(200) {
                true => self.random.below(wire.to_client.len() as u64 + 1) as usize,
                false => wire.to_client.len(),
            };
            self.received.extend(wire.to_client.drain(..count));
            wire.to_client.is_empty() && (wire.shard_done || wire.closed)
        };
        self.take_replies();
        if self.violation.is_some() || !is_closed {
            return;
        }
        // The shard has closed: it may only when the client left, and owes nothing.
        world.network.borrow_mut().wires[wire].client_done = true;
        self.is_done = true;
        // The byte that breaks the protocol may come before the last of them.
        let has_sent = self.outgoing.is_empty() || self.leaving == Leaving::Broken;
        let has_left = self.has_left && self.leaving != Leaving::Reset && has_sent;
        let is_told = self.sent.is_empty() && self.received.is_empty();
        if !(self.may_be_cut || has_left && is_told) {
            let left = (self.sent.len(), self.received.len());
            let history = self.history.make_contiguous().join("\n    ");
            self.violation = Some(format!("closed with {left:?} left: {}\n    {history}", self.describe()));
        }
    }

    fn take_replies(&mut self) {
        while let Some(Sent { command, noreply, is_get }) = self.sent.front() {
            if *noreply {
                self.history.push_back(short(format!("{command:?} without reply")));
                self.history.drain(..self.history.len().saturating_sub(HISTORY));
                self.model.apply(command);
                self.sent.pop_front();
                continue;
            }
            let parsed = match self.is_resp {
                true => Reply::resp(&self.received),
                false => Reply::memcached(&self.received, *is_get),
            };
            let Some((reply, rest)) = parsed else { return };
            let left = rest.len();
            self.history.push_back(short(format!("{command:?} -> {reply:?}")));
            self.history.drain(..self.history.len().saturating_sub(HISTORY));
            if let Err(wrong) = self.model.check(command, &reply) {
                let history = self.history.make_contiguous().join("\n    ");
                let command = short(format!("{command:?}"));
                let number = self.number;
                self.violation =
                    Some(format!("client {number}: {command} was answered {}\n    {history}", short(wrong)));
                return;
            }
            self.received.drain(..self.received.len() - left);
            self.replied += 1;
            self.sent.pop_front();
        }
        if !self.received.is_empty() {
            let shown = String::from_utf8_lossy(&self.received[..self.received.len().min(60)]).into_owned();
            self.violation = Some(format!("client {}: an answer to nothing: {shown:?}", self.number));
        }
    }

    /// True if the shard should take bytes of this client soon.
    pub fn is_waiting(&self, world: &World) -> bool {
        let Some(wire) = self.wire else { return false };
        if self.is_done || self.stalls > 0 {
            return false;
        }
        let network = world.network.borrow();
        !network.wires[wire].to_shard.is_empty() && !network.wires[wire].shard_deaf
    }

    pub fn describe(&self) -> String {
        let next = self.sent.front().map(|sent| format!("{:?}", sent.command)).unwrap_or_default();
        format!(
            "client {} ({}, {:?}): {} replies outstanding, {} bytes unsent, {} commands to come, {} B unread, next {}",
            self.number,
            if self.is_resp { "RESP" } else { "memcached" },
            self.leaving,
            self.sent.len(),
            self.outgoing.len(),
            self.to_send,
            self.received.len(),
            &next[..next.len().min(80)]
        )
    }
}
