//! From received bytes to pending requests, where a client speaks RESP.
//!
//! Commands that change how later ones of the same connection are understood (SELECT, HELLO, AUTH) are executed before
//! any more is parsed. All others are collected, as those of memcached's protocol are.

use super::connection::{Client, ConnectionId, Wait};
use super::pending::{PREFETCH, Pending, Work};
use super::{Io, Shard};
use crate::command::table::Row;
use crate::command::{Args, Call, Command, Operation, Request, Session};
use crate::engine::KEY_BYTES_MAX;
use crate::protocol::State;
use crate::protocol::resp::{self, Parsed, Writer};

/// Where a command is, and whose: what is needed to queue it.
#[derive(Clone, Copy)]
struct Source<'a> {
    id: ConnectionId,
    /// The input from the command on, and the state that it is parsed in.
    rest: &'a [u8],
    state: State,
    session: Session,
}

impl<I: Io> Shard<I> {
    /// Parses an input into pending requests, executing them whenever enough have come together. Returns how much of
    /// the input is done with: all of it, if the connection was set back or closes.
    pub(super) fn read_resp<'a>(&mut self, id: ConnectionId, input: &'a [u8], pending: &mut Vec<Pending<'a>>) -> usize {
        let bulk_bytes_max = self.shared.config.resp_item_bytes as usize;
        let mut at = 0;
        if self.connections.at(id).is_some_and(|c| c.upload.is_some()) {
            at = self.take_upload(id, input);
            if at == input.len() {
                return at;
            }
        }
        // The last command with a key: other commands note themselves.
        let mut last = None;
        let requests_of_one = self.requests_of_one();
        let mut executed = 0;
        // Those that were executed one by one since the list was last executed.
        let mut executed_alone = 0;
        loop {
            let is_due = pending.len() + executed_alone >= PREFETCH;
            if is_due {
                executed += pending.len() + std::mem::take(&mut executed_alone);
                self.execute(pending);
                self.check_stage();
            }
            let Some(connection) = self.connections.at(id) else { return input.len() };
            // After QUIT nothing counts any more.
            if !connection.is_served() || connection.is_quitting() {
                return input.len();
            }
            let before = connection.state;
            if is_due && (self.stage_is_over || executed >= requests_of_one) && at < input.len() {
                self.set_back(id, Wait::Turn, &input[at..], before);
                return input.len();
            }
            let State::Resp(mut state) = before else { return input.len() };
            let Some(client) = &connection.client else {
                self.meet_client(id);
                continue;
            };
            let (admitted, limits) = (client.is_admitted(), client.limits(bulk_bytes_max));
            let session = connection.session();
            let rest = &input[at..];
            let source = Source { id, rest, state: before, session };
            let parsed = resp::parse(&mut state, rest, &limits);
            // Mostly it is unchanged: written each time, it would be read back before the store has left the core's
            // buffer.
            if before != State::Resp(state) {
                connection.state = State::Resp(state);
            }
            match parsed {
                Parsed::Command { args, length } => {
                    at += length;
                    last = self.take_command(source, args, admitted, pending);
                    executed_alone += usize::from(last.is_none());
                }
                Parsed::Inline { args, count, length } => {
                    at += length;
                    executed_alone += 1;
                    last = None;
                    self.execute(pending);
                    if self.connections.at(id).is_none_or(|c| !c.is_served()) {
                        // Set back to a command before it: all that follows is kept already.
                        return input.len();
                    }
                    if self.read_inline(id, count, &args) {
                        continue;
                    }
                    // Set back to the typed command: what follows it waits as well.
                    if let Some(connection) = self.connections.at(id).filter(|c| c.wait().is_some()) {
                        connection.input.extend_from_slice(&input[at..]);
                    }
                    return input.len();
                }
                Parsed::Split { command, keys, length } => {
                    at += length;
                    self.queue(id, Work::Split { command, keys, session }, rest, before, pending);
                }
                Parsed::Key { command, key, length, .. } => {
                    at += length;
                    last = Some(command);
                    let call = Call { command, count: 1, args: &rest[..length] };
                    self.queue_call(source, key, call, Work::Key, pending);
                }
                Parsed::Upload { args, value_bytes, after, length } => {
                    // What came before it is executed first.
                    self.execute(pending);
                    if !self.may_begin_upload(id, rest, before) {
                        return input.len();
                    }
                    at += length;
                    last = args.iter().next().and_then(Command::find);
                    self.note_sent(id, last);
                    self.begin_resp_upload(id, args, value_bytes, after, session);
                    at += self.take_upload(id, &input[at..]);
                    if self.connections.at(id).is_none_or(|c| !c.is_served() || c.upload.is_some()) {
                        return input.len();
                    }
                }
                Parsed::Skip { length } => {
                    at += length;
                    executed_alone += 1;
                }
                Parsed::Incomplete { needed } => {
                    connection.needed = needed;
                    self.note_sent(id, last);
                    return at;
                }
                Parsed::Broken(error) => {
                    self.execute(pending);
                    self.break_off(id, error);
                    return input.len();
                }
            }
        }
    }

    /// Replies with a protocol error, after which the connection closes. One that was set back parses the error again
    /// later.
    pub(super) fn break_off(&mut self, id: ConnectionId, error: resp::ProtocolError) {
        if let Some(connection) = self.connections.answering(id).filter(|c| c.is_served()) {
            // The keys that a command announced and that cannot be parsed would never complete its reply.
            connection.give_up_split();
            connection.write(|out| error.write(&mut Writer::new(out, false)));
            self.executor.counters.replied_error(b"ERR");
            connection.quit();
        }
    }

    /// Notes the last command of a client.
    fn note_sent(&mut self, id: ConnectionId, command: Option<Command>) {
        let now = self.executor.now();
        if let Some(command) = command
            && let Some(client) = self.connections.at(id).and_then(|c| c.client.as_mut())
        {
            client.sent(command.row(), now);
        }
    }

    /// Executes a command that was typed, as if it had been sent as strings. False if it was set back, or the
    /// connection closes.
    fn read_inline(&mut self, id: ConnectionId, count: usize, args: &[u8]) -> bool {
        let command = [format!("*{count}\r\n").as_bytes(), args].concat();
        let mut typed = Vec::new();
        self.read_resp(id, &command, &mut typed);
        self.execute(&mut typed);
        self.connections.at(id).is_some_and(|c| c.is_served() && c.is_read())
    }

    /// Notes a client that has sent its first bytes.
    fn meet_client(&mut self, id: ConnectionId) {
        let number = self.shared.next_client();
        let authenticated = self.shared.tunables.password().is_empty();
        let Some(socket) = self.connections.socket(id) else { return };
        let (address, local_address) = self.io.addresses(socket);
        let now = self.executor.now();
        if let Some(connection) = self.connections.at(id) {
            let client = Client::new(number, authenticated, address, local_address, now);
            connection.client = Some(Box::new(client));
        }
    }

    /// Adds a command to the list: for the owner of its key, or to be executed here. Returns which, if it has a key.
    #[inline]
    fn take_command<'a>(
        &mut self,
        source: Source<'a>,
        args: Args<'a>,
        admitted: bool,
        pending: &mut Vec<Pending<'a>>,
    ) -> Option<Command> {
        if admitted
            && let Some((name, arguments)) = args.split_first()
            && let Some(command) = Command::find(name)
            && command.row().accepts(args.len())
            && let Some(key) = key_of(command.row(), args)
            && key.len() <= KEY_BYTES_MAX
        {
            let call = Call { command, count: arguments.len() as u32, args: arguments.bytes() };
            self.queue_call(source, key, call, Work::Request, pending);
            return Some(command);
        }
        self.queue(source.id, Work::Local(args), source.rest, source.state, pending);
        self.execute(pending);
        None
    }

    #[inline(always)]
    fn queue_call<'a>(
        &mut self,
        source: Source<'a>,
        key: &'a [u8],
        call: Call<&'a [u8]>,
        work: impl FnOnce(Request<&'a [u8]>) -> Work<'a>,
        pending: &mut Vec<Pending<'a>>,
    ) {
        let Source { id, rest, state, session } = source;
        let mut hash = self.shared.hasher.hash(key);
        if session.database != 0 {
            hash = hash.in_database(session.database);
        }
        let owner = self.shared.slots.owner(key);
        if usize::from(owner) == self.id {
            self.executor.engine.prefetch_index(hash);
        }
        let request = Request { key, operation: Operation::Call(call), session };
        if let Some(connection) = self.connections.at(id) {
            connection.queued += 1;
        }
        pending.push(Pending { id, owner, hash, work: work(request), rest, state });
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
