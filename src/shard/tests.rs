//! Shards without sockets: bytes in, bytes out, and messages between two of them.

use super::{Clock, Io, Listener, Message, ReceiveMemory, Shard, SharedState};
use crate::command::UnixMs;
use crate::config::{Config, Machine, Options};
use crate::engine::{Engine, EngineConfig, KeyHasher};
use crate::protocol::State;
use crate::reactor::{Errno, Event, Pieces, Token};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the shards have started: one for all of them.
#[derive(Default)]
struct Started {
    /// Receives of a shard that are armed.
    receives: Vec<(usize, Token)>,
    /// Receives that are to end.
    cancels: Vec<(usize, Token)>,
    sends: Vec<(usize, Token, Vec<u8>, u32)>,
    pieces_sent: Vec<(usize, Token, Pieces, u32)>,
    pieces_received: Vec<(usize, Token, Pieces)>,
    shut_down: Vec<u32>,
    messages: VecDeque<(usize, Message<u32>)>,
}

/// The time at which the clocks of a test start.
const START_UNIX_MS: UnixMs = 1_700_000_000_000;

struct TestIo {
    shard: usize,
    now: Instant,
    unix_ms: UnixMs,
    started: Rc<RefCell<Started>>,
}

impl Io for TestIo {
    type Socket = u32;

    fn instant(&self) -> Instant {
        self.now
    }

    fn unix_ms(&self) -> UnixMs {
        self.unix_ms
    }

    fn addresses(&self, _: &u32) -> (String, String) {
        Default::default()
    }

    fn keep_alive(&self, _: &u32, _: u32) {}

    fn arm_receive(&mut self, token: Token, _: &u32, _: bool) {
        self.started.borrow_mut().receives.push((self.shard, token));
    }

    fn cancel_receive(&mut self, token: Token) {
        self.started.borrow_mut().cancels.push((self.shard, token));
    }

    fn send(&mut self, token: Token, socket: &u32, bytes: Vec<u8>, _: usize) {
        self.started.borrow_mut().sends.push((self.shard, token, bytes, *socket));
    }

    fn send_pieces(&mut self, token: Token, socket: &u32, pieces: Pieces, _: usize) {
        self.started.borrow_mut().pieces_sent.push((self.shard, token, pieces, *socket));
    }

    fn receive_pieces(&mut self, token: Token, _: &u32, pieces: Pieces) {
        self.started.borrow_mut().pieces_received.push((self.shard, token, pieces));
    }

    fn cancel_receive_pieces(&mut self, token: Token) {
        self.started.borrow_mut().cancels.push((self.shard, token));
    }

    fn shut_down(&mut self, socket: &u32, _: Shutdown) {
        self.started.borrow_mut().shut_down.push(*socket);
    }

    fn refuse(&mut self, _: u32, _: &[u8]) {}

    fn arm_accept(&mut self, _: usize) {}

    fn stop_listening(&mut self) {}

    fn return_free_memory(&mut self) {}

    fn set_tick(&mut self, _: Duration) {}

    fn post(&mut self, to: usize, message: Message<u32>) {
        self.started.borrow_mut().messages.push_back((to, message));
    }

    fn next_message(&mut self) -> Option<Message<u32>> {
        let messages = &mut self.started.borrow_mut().messages;
        let at = messages.iter().position(|(to, _)| *to == self.shard)?;
        messages.remove(at).map(|(_, message)| message)
    }
}

struct Memory(Vec<Vec<u8>>);

impl ReceiveMemory for Memory {
    type Buffer = usize;

    fn bytes(&self, buffer: &usize) -> &[u8] {
        &self.0[*buffer]
    }
}

/// A node of shards that a test drives by hand.
struct Rig {
    shards: Vec<Shard<TestIo>>,
    started: Rc<RefCell<Started>>,
    shared: Arc<SharedState>,
    sockets: u32,
    /// Bytes sent on each socket.
    sent: Vec<Vec<u8>>,
}

impl Rig {
    fn new(shards: usize) -> Self {
        let options = Options {
            shards: Some(shards),
            memory: Some(format!("{}MiB", 16 * shards).parse().expect("a size")),
            ..Options::default()
        };
        let machine = Machine { cores: (0..shards).collect(), memory_bytes: None, open_files: 1024 };
        let config = Config::new(&options, &machine).expect("settings");
        let (now, hasher) = (Instant::now(), KeyHasher::with_seed(1));
        let clock = Clock::starting(now, START_UNIX_MS);
        let shared = Arc::new(SharedState::with(config, 0, 0, clock, hasher.clone()).expect("files"));
        let started = Rc::new(RefCell::new(Started::default()));
        let shard = |id| {
            let config = EngineConfig {
                memory_bytes: 16 << 20,
                value_bytes_max: 4 << 20,
                eviction: crate::eviction::Eviction::default(),
                user_bytes_max: None,
            };
            let engine = Engine::new(config, hasher.clone(), clock.at(now)).expect("memory");
            let io = TestIo { shard: id, now, unix_ms: START_UNIX_MS, started: Rc::clone(&started) };
            Shard::new(id, Arc::clone(&shared), engine, io, vec![Listener::new(false, State::Unknown)])
        };
        let shards = (0..shards).map(shard).collect();
        Self { shards, started, shared, sockets: 0, sent: Vec::new() }
    }

    fn turn(&mut self, shard: usize, events: Vec<Event<u32, usize>>, memory: Vec<Vec<u8>>) {
        let (mut events, mut used) = (events, Vec::new());
        self.shards[shard].turn(&mut events, &mut used, &Memory(memory));
    }

    /// A client of a shard: its socket. The balancer may place it on another.
    fn connect(&mut self, shard: usize) -> u32 {
        self.sockets += 1;
        self.sent.push(Vec::new());
        let socket = self.sockets - 1;
        self.turn(shard, vec![Event::Accepted { listener: 0, socket, armed: true }], Vec::new());
        self.settle();
        socket
    }

    /// Turns until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            for shard in 0..self.shards.len() {
                let (mut events, sends) = (Vec::new(), std::mem::take(&mut self.started.borrow_mut().sends));
                let pieces_sent = std::mem::take(&mut self.started.borrow_mut().pieces_sent);
                for (of, token, pieces, socket) in pieces_sent {
                    if of == shard {
                        self.sent[socket as usize].extend(pieces.read(0));
                        let result = Ok(pieces.bytes());
                        events.push(Event::SentPieces { token, pieces, result });
                    } else {
                        self.started.borrow_mut().pieces_sent.push((of, token, pieces, socket));
                    }
                }
                for (of, token, bytes, socket) in sends {
                    if of == shard {
                        self.sent[socket as usize].extend_from_slice(&bytes);
                        let result = Ok(bytes.len());
                        events.push(Event::Sent { token, bytes, result });
                    } else {
                        self.started.borrow_mut().sends.push((of, token, bytes, socket));
                    }
                }
                self.turn(shard, events, Vec::new());
            }
        }
    }

    /// Where the connection is that was armed last: its shard and token.
    fn newest(&self) -> (usize, Token) {
        *self.started.borrow().receives.last().expect("a receive is armed")
    }

    /// Sends pieces to a connection, one turn each, and returns all that the socket was sent since the last time.
    fn ask(&mut self, at: (usize, Token), socket: u32, pieces: &[&[u8]]) -> String {
        for piece in pieces {
            let event = Event::Received { token: at.1, buffer: 0, armed: true };
            self.turn(at.0, vec![event], vec![piece.to_vec()]);
        }
        self.settle();
        String::from_utf8_lossy(&std::mem::take(&mut self.sent[socket as usize])).into_owned()
    }
}

#[test]
fn commands_are_read_however_they_are_cut() {
    let mut rig = Rig::new(1);
    let socket = rig.connect(0);
    let at = rig.newest();
    let input = b"set k 5 0 3\r\nabc\r\nget k nothing\r\nincr k 1\r\n";
    let expected =
        "STORED\r\nVALUE k 5 3\r\nabc\r\nEND\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    for cut in 0..=input.len() {
        let pieces: Vec<&[u8]> = [&input[..cut], &input[cut..]].into_iter().filter(|p| !p.is_empty()).collect();
        assert_eq!(rig.ask(at, socket, &pieces), expected, "cut at {cut}");
    }
}

#[test]
fn replies_of_two_shards_come_in_order() {
    let mut rig = Rig::new(2);
    let socket = rig.connect(0);
    let at = rig.newest();
    let mut asked = String::new();
    let mut expected = String::new();
    for n in 0..200 {
        asked.push_str(&format!(
            "*3\r\n$3\r\nSET\r\n$6\r\nkey{n:03}\r\n$3\r\n{n:03}\r\n*2\r\n$3\r\nGET\r\n$6\r\nkey{n:03}\r\n"
        ));
        expected.push_str(&format!("+OK\r\n$3\r\n{n:03}\r\n"));
    }
    asked.push_str("*4\r\n$6\r\nEXISTS\r\n$6\r\nkey000\r\n$6\r\nkey001\r\n$3\r\nkey\r\n*1\r\n$6\r\nDBSIZE\r\n");
    expected.push_str(":2\r\n:200\r\n");
    assert_eq!(rig.ask(at, socket, &[asked.as_bytes()]), expected);
    let requests = rig.shared.sum(crate::metrics::Counter::MeshRequests);
    assert!((100..400).contains(&requests), "some of the keys are the sibling's: {requests}");
}

#[test]
fn long_values_travel_in_pieces_in_both_directions() {
    for shards in [1, 2] {
        let mut rig = Rig::new(shards);
        let socket = rig.connect(0);
        let at = rig.newest();
        for key in ["a", "b", "c", "d"] {
            let value = key.repeat(200_000);
            let set = format!("*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n$200000\r\n{value}\r\n");
            let pieces: Vec<&[u8]> = set.as_bytes().chunks(7000).collect();
            assert_eq!(rig.ask(at, socket, &pieces), "+OK\r\n");
            let get = format!("*2\r\n$3\r\nGET\r\n$1\r\n{key}\r\n*1\r\n$4\r\nPING\r\n");
            let reply = rig.ask(at, socket, &[get.as_bytes()]);
            assert!(reply == format!("$200000\r\n{value}\r\n+PONG\r\n"), "{shards} shards: {} bytes", reply.len());
        }
    }
}

/// A command that was typed, behind one that has to wait: what followed it was kept twice, and a value was read as
/// commands. The simulator found it (seed 169).
#[test]
fn input_behind_a_typed_command_is_kept_once() {
    let mut rig = Rig::new(1);
    let socket = rig.connect(0);
    let at = rig.newest();
    let value = "v".repeat(60_000);
    assert_eq!(
        rig.ask(at, socket, &[format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60000\r\n{value}\r\n").as_bytes()]),
        "+OK\r\n"
    );
    // So many replies that the connection has to wait for its output, in the middle of the keys.
    let keys = "$1\r\nk\r\n".repeat(8);
    let input = format!("*9\r\n$4\r\nMGET\r\n{keys}PING\r\n*2\r\n$4\r\nECHO\r\n$3\r\nend\r\n");
    let expected = format!("*8\r\n{}+PONG\r\n$3\r\nend\r\n", format!("$60000\r\n{value}\r\n").repeat(8));
    let reply = rig.ask(at, socket, &[input.as_bytes()]);
    assert!(reply == expected, "{} bytes instead of {}", reply.len(), expected.len());
}

/// A command of several keys whose client closed in the middle was waited for, and its connection stayed for ever.
#[test]
fn a_command_that_is_cut_off_holds_nothing() {
    for (input, expected) in [
        ("*3\r\n$6\r\nEXISTS\r\n$1\r\nk\r\n", ""),
        ("*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nDEL\r\n", "+PONG\r\n"),
        ("*3\r\n$6\r\nEXISTS\r\n$1\r\nk\r\n!", "-ERR Protocol error: expected '$', got '!'\r\n"),
    ] {
        let mut rig = Rig::new(2);
        let socket = rig.connect(0);
        let at = rig.newest();
        let mut reply = rig.ask(at, socket, &[input.as_bytes()]);
        rig.turn(at.0, vec![Event::ReceiveEnded { token: at.1, errno: None }], Vec::new());
        rig.settle();
        reply += &String::from_utf8_lossy(&rig.sent[socket as usize]);
        assert_eq!(reply, expected);
        assert_eq!(rig.started.borrow().shut_down, [socket], "{input:?}");
        assert!(rig.shards.iter().all(|shard| shard.connections.is_empty()), "{input:?}");
    }
}

#[test]
fn an_idle_connection_moves_to_the_shard_that_has_fewer() {
    let mut rig = Rig::new(2);
    let sockets: Vec<u32> = (0..4).map(|_| rig.connect(0)).collect();
    let count = |rig: &Rig| rig.shards.iter().map(|shard| shard.connections.len()).collect::<Vec<_>>();
    assert_eq!((count(&rig), sockets.len()), (vec![2, 2], 4));
    // Both clients of shard 1 leave; a tick later, one of shard 0's goes there.
    let gone: Vec<Token> = rig.started.borrow().receives.iter().filter(|(s, _)| *s == 1).map(|(_, t)| *t).collect();
    let events = gone.into_iter().map(|token| Event::ReceiveEnded { token, errno: None }).collect();
    rig.turn(1, events, Vec::new());
    rig.settle();
    rig.turn(0, vec![Event::Tick], Vec::new());
    let cancelled = std::mem::take(&mut rig.started.borrow_mut().cancels);
    assert_eq!(cancelled.len(), 1, "one is to move");
    let (shard, token) = cancelled[0];
    let errno = Some(crate::reactor::Errno::CANCELLED);
    rig.turn(shard, vec![Event::ReceiveEnded { token, errno }], Vec::new());
    rig.settle();
    assert_eq!(count(&rig), [1, 1]);
}

/// A connection that was to move, of whose next command a part had come, received nothing any more.
#[test]
fn a_connection_within_a_command_does_not_move() {
    let mut rig = Rig::new(2);
    let first = rig.connect(0);
    let at = rig.newest();
    let connection = rig.shards[at.0].connections.get(at.1).expect("open");
    connection.leave_for(1);
    rig.shared.balancer.moved(0, 1);
    assert_eq!(rig.ask(at, first, &[b"*3\r\n$6\r\nEXISTS\r\n$1\r\na\r\n"]), "");
    let errno = Some(crate::reactor::Errno::CANCELLED);
    rig.turn(at.0, vec![Event::ReceiveEnded { token: at.1, errno }], Vec::new());
    rig.settle();
    assert_eq!(rig.newest(), at, "it receives again");
    assert_eq!(rig.ask(at, first, &[b"$1\r\nb\r\n"]), ":0\r\n");
}

/// A long value is received where it will lie, and sent from there. When its client is gone in the middle, its memory
/// stays until the kernel writes there no more: it was to be freed at once.
#[test]
fn a_long_value_is_received_in_place_and_its_memory_stays_until_the_receive_has_ended() {
    const LENGTH: usize = 100_000;
    let value: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
    let mut rig = Rig::new(1);
    let socket = rig.connect(0);
    let at = rig.newest();
    let fills = |rig: &Rig| std::mem::take(&mut rig.started.borrow_mut().pieces_received);
    let head = format!("set k 0 0 {LENGTH}\r\n").into_bytes();
    for finishes in [true, false] {
        // The first bytes come in a buffer; then the armed receive is cancelled to make way.
        let first = [&head[..], &value[..1000]].concat();
        let armed = Event::Received { token: at.1, buffer: 0, armed: true };
        rig.turn(0, vec![armed], vec![first]);
        rig.turn(0, vec![Event::ReceiveEnded { token: at.1, errno: Some(Errno::CANCELLED) }], Vec::new());
        let (_, token, mut pieces) = fills(&rig).pop().expect("the rest is received in place");
        assert_eq!(pieces.bytes(), LENGTH - 1000 + 2, "and the line end");
        if finishes {
            pieces.write(&[&value[1000..], b"\r\n"].concat());
            let result = Ok(pieces.bytes());
            rig.turn(0, vec![Event::ReceivedPieces { token, pieces, result }], Vec::new());
            rig.settle();
            assert_eq!(std::mem::take(&mut rig.sent[socket as usize]), b"STORED\r\n");
            let expected = [format!("VALUE k 0 {LENGTH}\r\n").as_bytes(), &value, b"\r\nEND\r\n"].concat();
            let got = rig.ask(at, socket, &[b"get k\r\n"]);
            assert_eq!(got, String::from_utf8_lossy(&expected));
        } else {
            rig.shards[0].abandon(token.slot);
            rig.settle();
            assert_eq!(rig.shards[0].executor.engine.open_long_values(), 1, "the kernel may still write there");
            pieces.write(&value[1000..50_000]);
            rig.turn(0, vec![Event::ReceivedPieces { token, pieces, result: Ok(49_000) }], Vec::new());
            rig.settle();
            assert_eq!(rig.shards[0].executor.engine.open_long_values(), 0);
        }
    }
}

/// After a step of the wall clock by an hour, EXAT and EXPIREAT were an hour late, or deleted at once.
#[test]
fn unix_times_follow_the_wall_clock_and_times_to_live_do_not() {
    const HOUR_MS: i64 = 3_600_000;
    let command = |words: &[&str]| {
        let words: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        format!("*{}\r\n{words}", words.matches('$').count())
    };
    for step in [HOUR_MS, -HOUR_MS] {
        let mut rig = Rig::new(1);
        let socket = rig.connect(0);
        let at = rig.newest();
        assert_eq!(rig.ask(at, socket, &[command(&["SET", "relative", "v", "EX", "60"]).as_bytes()]), "+OK\r\n");
        let io = rig.shards[0].io();
        io.unix_ms = io.unix_ms.saturating_add_signed(step + 1000);
        io.now += Duration::from_secs(1);
        let now = START_UNIX_MS.saturating_add_signed(step + 1000) / 1000;
        let soon = (now + 3).to_string();
        for (words, expected) in [
            (&["TTL", "relative"][..], 59),
            (&["EXPIRETIME", "relative"], now as i64 + 59),
            (&["SETNX", "absolute", "v"], 1),
            (&["EXPIREAT", "absolute", &soon], 1),
            (&["EXPIRETIME", "absolute"], now as i64 + 3),
            (&["PEXPIRETIME", "absolute"], (now as i64 + 3) * 1000),
            (&["TTL", "absolute"], 3),
            (&["HSET", "hash", "f", "v"], 1),
        ] {
            assert_eq!(rig.ask(at, socket, &[command(words).as_bytes()]), format!(":{expected}\r\n"), "{words:?}");
        }
        let set = command(&["SET", "exat", "v", "EXAT", &soon]) + &command(&["TTL", "exat"]);
        assert_eq!(rig.ask(at, socket, &[set.as_bytes()]), "+OK\r\n:3\r\n");
        let fields = command(&["HEXPIREAT", "hash", &soon, "FIELDS", "1", "f"])
            + &command(&["HEXPIRETIME", "hash", "FIELDS", "1", "f"])
            + &command(&["HTTL", "hash", "FIELDS", "1", "f"]);
        let expected = format!("*1\r\n:1\r\n*1\r\n:{soon}\r\n*1\r\n:3\r\n");
        assert_eq!(rig.ask(at, socket, &[fields.as_bytes()]), expected);

        // The wall clock is an hour off for memcached's clients too.
        let text = rig.connect(0);
        let to = rig.newest();
        let sets = format!("set stored 0 {soon} 1\r\nv\r\nget stored\r\nset past 0 {} 1\r\nv\r\nget past\r\n", now - 1);
        let expected = "STORED\r\nVALUE stored 0 1\r\nv\r\nEND\r\nSTORED\r\nEND\r\n";
        assert_eq!(rig.ask(to, text, &[sets.as_bytes()]), expected);

        let io = rig.shards[0].io();
        io.now += Duration::from_secs(3);
        io.unix_ms += 3000;
        for key in ["absolute", "exat", "stored", "hash"] {
            let exists = if key == "hash" { command(&["HLEN", key]) } else { command(&["EXISTS", key]) };
            assert_eq!(rig.ask(at, socket, &[exists.as_bytes()]), ":0\r\n", "{key}");
        }
        assert_eq!(rig.ask(at, socket, &[command(&["TTL", "relative"]).as_bytes()]), ":56\r\n");
    }
}
