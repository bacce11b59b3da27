//! From bytes received to pending requests, where a client speaks RESP.
//!
//! Commands that change how later ones of the same connection are understood (SELECT, HELLO, AUTH) are executed before any
//! more is parsed. All others are collected, as those of memcached's protocol are.

use super::Shard;
use super::connection::{Client, Connection, Ending};
use super::perform::{PREFETCH, Pending};
use crate::command::table::Row;
use crate::command::{Args, Call, Command, Operation, Request};
use crate::engine::{KEY_BYTES_MAX, KeyHash};
use crate::protocol::State;
use crate::protocol::resp::{self, Limits, Parsed, Writer};
use crate::sys;

/// What of a client matters to reading its commands.
#[derive(Clone, Copy)]
struct Reading {
    resp3: bool,
    authenticated: bool,
    database: u8,
}

impl Shard {
    /// Parses an input into pending requests, executing them whenever enough have come together. Returns how much of the
    /// input is done with: all of it, where the connection was set back or closes.
    pub(super) fn read_resp<'a>(&mut self, slot: u32, input: &'a [u8], pending: &mut Vec<Pending<'a>>) -> usize {
        let bulk_bytes_max = self.node.config.resp_item_bytes as usize;
        let mut at = 0;
        if self.connections.at(slot).is_some_and(|c| c.incoming.is_some()) {
            at = self.take_incoming(slot, input);
            if at == input.len() {
                return at;
            }
        }
        // The last command with a key: other commands note themselves.
        let mut last = None;
        loop {
            if pending.len() >= PREFETCH {
                self.perform(pending);
            }
            // After QUIT nothing counts any more.
            let goes_on = |c: &&mut Connection| c.is_served() && c.ending != Ending::Quitting;
            let Some(connection) = self.connections.at(slot).filter(goes_on) else { return input.len() };
            let before = connection.state;
            let State::Resp(mut state) = before else { unreachable!("it speaks RESP") };
            let Some(client) = &connection.client else {
                self.meet_client(slot);
                continue;
            };
            let reading =
                Reading { resp3: client.resp3, authenticated: client.authenticated, database: client.database };
            let limits = match reading.authenticated {
                true => Limits::authenticated(bulk_bytes_max),
                false => Limits::UNAUTHENTICATED,
            };
            let rest = &input[at..];
            let parsed = resp::parse(&mut state, rest, &limits);
            // Mostly it is the same: written each time, it would be read back before it has arrived.
            if before != State::Resp(state) {
                connection.state = State::Resp(state);
            }
            match parsed {
                Parsed::Command { args, length } => {
                    at += length;
                    last = self.take_command(slot, args, rest, before, reading, pending);
                }
                Parsed::Inline { args, count, length } => {
                    at += length;
                    last = None;
                    self.perform(pending);
                    if self.read_typed(slot, count, &args) {
                        continue;
                    }
                    // It was set back: what comes after it waits as well.
                    if let Some(connection) = self.connections.at(slot).filter(|c| c.blocked.is_some()) {
                        connection.partial.extend_from_slice(&input[at..]);
                    }
                    return input.len();
                }
                Parsed::Split { command, keys, length } => {
                    at += length;
                    let operation = Operation::Split { command, keys, resp3: reading.resp3 };
                    self.queue_keyless(slot, operation, rest, before, pending);
                }
                Parsed::Key { command, key, length, .. } => {
                    at += length;
                    last = Some(command);
                    let call = Call { command, resp3: reading.resp3, count: 1, args: &rest[..length] };
                    self.queue_key(slot, key, call, rest, before, reading, pending);
                }
                Parsed::Upload { args, value_bytes, after, length } => {
                    // What came before it is executed first.
                    self.perform(pending);
                    if !self.may_begin_incoming(slot, rest, before) {
                        return input.len();
                    }
                    at += length;
                    last = args.iter().next().and_then(Command::find);
                    self.note_sent(slot, last);
                    self.begin_upload(slot, args, value_bytes, after, reading.database);
                    at += self.take_incoming(slot, &input[at..]);
                    if self.connections.at(slot).is_none_or(|c| !c.is_served() || c.incoming.is_some()) {
                        return input.len();
                    }
                }
                Parsed::Skip { length } => at += length,
                Parsed::Incomplete { needed } => {
                    connection.needed = needed;
                    self.note_sent(slot, last);
                    return at;
                }
                Parsed::Broken(error) => {
                    self.perform(pending);
                    let Some(connection) = self.connections.at(slot).filter(|c| c.is_served()) else {
                        return input.len();
                    };
                    self.outputs.provide(&mut connection.output);
                    connection.write(|out| error.write(&mut Writer::new(out, false)));
                    connection.ending = Ending::Quitting;
                    return input.len();
                }
            }
        }
    }

    /// Takes note of the last command of a client.
    fn note_sent(&mut self, slot: u32, command: Option<Command>) {
        if let Some(command) = command
            && let Some(client) = self.connections.at(slot).and_then(|c| c.client.as_mut())
        {
            client.sent(command.row(), self.now);
        }
    }

    /// Executes a command that was typed, as if it had been sent as arguments. False if it was set back, or the connection closes.
    fn read_typed(&mut self, slot: u32, count: usize, args: &[u8]) -> bool {
        let command = [format!("*{count}\r\n").as_bytes(), args].concat();
        let mut typed = Vec::new();
        self.read_resp(slot, &command, &mut typed);
        self.perform(&mut typed);
        self.connections.at(slot).is_some_and(|c| c.is_served() && c.is_read())
    }

    /// Takes note of a client that has sent its first bytes.
    fn meet_client(&mut self, slot: u32) {
        let id = self.node.next_client();
        let authenticated = self.node.tunables.password().is_empty();
        let Some(connection) = self.connections.at(slot) else { return };
        let (address, local_address) = sys::addresses(connection.socket());
        connection.client = Some(Box::new(Client::new(id, authenticated, address, local_address, self.now)));
    }

    /// Adds a command to the list: for the owner of its key, or to be answered here. Returns which, if it has a key.
    #[inline]
    fn take_command<'a>(
        &mut self,
        slot: u32,
        args: Args<'a>,
        rest: &'a [u8],
        before: State,
        reading: Reading,
        pending: &mut Vec<Pending<'a>>,
    ) -> Option<Command> {
        if reading.authenticated
            && let Some((name, arguments)) = args.split_first()
            && let Some(command) = Command::find(name)
            && command.row().accepts(args.len())
            && let Some(key) = key_of(command.row(), args)
            && key.len() <= KEY_BYTES_MAX
        {
            let Reading { resp3, .. } = reading;
            let call = Call { command, resp3, count: arguments.len() as u32, args: arguments.bytes() };
            self.queue_key(slot, key, call, rest, before, reading, pending);
            return Some(command);
        }
        let operation = Operation::Local { args: args.bytes(), count: args.len() as u32 };
        self.queue_keyless(slot, operation, rest, before, pending);
        self.perform(pending);
        None
    }

    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn queue_key<'a>(
        &mut self,
        slot: u32,
        key: &'a [u8],
        call: Call<&'a [u8]>,
        rest: &'a [u8],
        before: State,
        reading: Reading,
        pending: &mut Vec<Pending<'a>>,
    ) {
        let mut hash = self.node.hasher.hash(key);
        if reading.database != 0 {
            hash = hash.in_database(reading.database);
        }
        let owner = self.node.slots.owner(key);
        if usize::from(owner) == self.id {
            self.engine.prefetch_index(hash);
        }
        let request = Request { key, operation: Operation::Call(call), noreply: false };
        if let Some(connection) = self.connections.at(slot) {
            connection.pending += 1;
        }
        pending.push(Pending { slot, owner, hash, request, rest, state: before });
    }

    fn queue_keyless<'a>(
        &mut self,
        slot: u32,
        operation: Operation<&'a [u8]>,
        rest: &'a [u8],
        before: State,
        pending: &mut Vec<Pending<'a>>,
    ) {
        let request = Request { key: &[][..], operation, noreply: false };
        if let Some(connection) = self.connections.at(slot) {
            connection.pending += 1;
        }
        let owner = self.id as u16;
        pending.push(Pending { slot, owner, hash: KeyHash(0), request, rest, state: before });
    }
}

/// The key of a command that has one, and that the owner of the key is to execute.
#[inline]
fn key_of<'a>(row: &'static Row, args: Args<'a>) -> Option<&'a [u8]> {
    let at = match row.keys.first {
        0 if row.subcommands.is_empty() => return None,
        0 => {
            let subcommand = row.subcommand(args.iter().nth(1)?)?;
            if !subcommand.accepts(args.len()) || subcommand.keys.first == 0 {
                return None;
            }
            subcommand.keys.first
        }
        first => first,
    };
    args.iter().nth(usize::from(at))
}
