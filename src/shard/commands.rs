//! Commands of RESP that concern no key: their client's shard answers them, or asks all shards for their parts.
//!
//! | file | commands |
//! |---|---|
//! | `commands/clients.rs` | HELLO, AUTH, SELECT, RESET, CLIENT |
//! | `commands/settings.rs` | CONFIG |
//! | `commands/info.rs` | INFO |
//! | `commands/logs.rs` | SLOWLOG, LATENCY |

mod clients;
mod info;
mod logs;
mod settings;

use super::Shard;
use super::connection::{Ending, Gather};
use super::perform::{Pending, answer, begun, begun_request, describe};
use crate::command::{Args, Call, Command, Operation, Request};
use crate::engine::{KEY_BYTES_MAX, KeyHash};
use crate::execute::introspect;
use crate::execute::resp::keyspace::CURSOR_SHARD_BITS;
use crate::execute::resp::scan::cursor;
use crate::metrics::Counter;
use crate::protocol::resp::Writer;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of an unknown command that are shown, and bytes of them.
const SHOWN_BYTES_MAX: usize = 128;

/// An error's text, with its code.
type Refused = String;

impl Shard {
    /// Answers a command that concerns no key.
    pub(super) fn perform_local(&mut self, pending: &Pending, args: Args) {
        let slot = pending.slot;
        let Some(name) = args.iter().next() else { return };
        let command = match self.admit(slot, name, args) {
            Ok(command) => command,
            Err(error) => {
                self.counters.add(Counter::InvalidCommands);
                return self.reply(slot, |w| w.error(error));
            }
        };
        if command == Command::Scan {
            return self.perform_scan(pending, args);
        }
        if matches!(
            command,
            Command::DbSize | Command::Keys | Command::RandomKey | Command::FlushDb | Command::FlushAll
        ) {
            return self.ask_all_shards(pending, command, args);
        }
        let arguments = args.skip(1);
        let call = Call { command, resp3: false, count: arguments.len() as u32, args: arguments.bytes() };
        let begun = begun(&call, &self.node.tunables);
        match command {
            Command::Client => self.perform_client(pending, args),
            Command::Config => self.perform_config(pending, args),
            Command::Info => self.perform_info(pending, args),
            _ => {
                self.counters.called(command);
                self.perform_plain(slot, command, args);
            }
        }
        if let Some(begun) = begun {
            let Self { connections, now, node, .. } = self;
            let client = connections.at(slot).and_then(|c| c.client.as_deref());
            node.tunables.took(begun.elapsed().as_micros() as u64, *now, || describe(client, &call, *now));
        }
    }

    /// The command of a name, if this client may call it with these arguments.
    fn admit(&mut self, slot: u32, name: &[u8], args: Args) -> Result<Command, Refused> {
        let now = self.now;
        let Some(client) = self.connections.at(slot).and_then(|c| c.client.as_mut()) else {
            return Err("ERR no client".into());
        };
        let Some(command) = Command::find(name) else { return Err(unknown(name, args)) };
        let row = command.row();
        let subcommand = args.iter().nth(1).and_then(|name| row.subcommand(name));
        client.sent(subcommand.unwrap_or(row), now);
        if !row.accepts(args.len()) {
            return Err(introspect::wrong_arity(row));
        }
        if !client.authenticated && !matches!(command, Command::Auth | Command::Hello | Command::Quit | Command::Reset)
        {
            return Err("NOAUTH Authentication required.".into());
        }
        if row.keys.first > 0 {
            return Err(format!("ERR the key is longer than {KEY_BYTES_MAX} bytes"));
        }
        Ok(command)
    }

    /// Commands that only the connection and the node are needed for.
    fn perform_plain(&mut self, slot: u32, command: Command, args: Args) {
        let arguments = args.skip(1);
        let first = arguments.iter().next();
        match command {
            Command::Ping if args.len() > 2 => {
                self.reply(slot, |w| w.error(introspect::wrong_arity(command.row())));
            }
            Command::Ping => self.reply(slot, |w| match first {
                Some(text) => w.bulk(text),
                None => w.simple("PONG"),
            }),
            Command::Echo => self.reply(slot, |w| w.bulk(first.unwrap_or_default())),
            Command::Quit => {
                self.reply(slot, |w| w.simple("OK"));
                if let Some(connection) = self.connections.at(slot) {
                    connection.ending = Ending::Quitting;
                }
            }
            Command::Reset => self.perform_reset(slot),
            Command::Hello => self.perform_hello(slot, arguments),
            Command::Auth => self.perform_auth(slot, arguments),
            Command::Select => self.perform_select(slot, first.unwrap_or_default()),
            Command::Command => self.reply(slot, |w| introspect::command(args, w)),
            Command::SlowLog => self.perform_slowlog(slot, args),
            Command::Latency => self.perform_latency(slot, args),
            Command::Time => {
                let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.reply(slot, |w| {
                    w.array(2);
                    w.bulk(time.as_secs().to_string().as_bytes());
                    w.bulk(time.subsec_micros().to_string().as_bytes());
                });
            }
            Command::LolWut => {
                let text = format!("Pinion ver. {}\n", env!("CARGO_PKG_VERSION"));
                self.reply(slot, |w| w.verbatim(b"txt", text.as_bytes()));
            }
            Command::Role => self.reply(slot, |w| {
                w.array(3);
                w.bulk(b"master");
                w.integer(0);
                w.array(0);
            }),
            Command::Cluster | Command::ReadOnly | Command::ReadWrite | Command::Asking => {
                self.reply(slot, |w| w.error("ERR This instance has cluster support disabled"));
            }
            Command::Object => self.help_or_refuse(slot, command, args),
            Command::Memory => self.perform_memory(slot, args),
            _ => self.reply(slot, |w| w.error(unknown(command.name().as_bytes(), args))),
        }
    }

    /// HELP of a container whose other subcommands concern keys.
    fn help_or_refuse(&mut self, slot: u32, command: Command, args: Args) {
        self.reply(slot, |w| match introspect::find_subcommand(command.row(), args) {
            Ok(subcommand) if subcommand.name == "help" => introspect::help(command.row(), w),
            Ok(_) => w.error("ERR syntax error"),
            Err(error) => w.error(error),
        });
    }

    fn perform_memory(&mut self, slot: u32, args: Args) {
        let subcommand = match introspect::find_subcommand(Command::Memory.row(), args) {
            Ok(subcommand) => subcommand.name,
            Err(error) => return self.reply(slot, |w| w.error(error)),
        };
        self.publish();
        let (held, limit) = (self.node.sum(Counter::HeldBytes), self.node.tunables.memory_bytes());
        let (user, items) = (self.node.sum(Counter::UserBytes), self.node.sum(Counter::CurrItems));
        self.reply(slot, |w| match subcommand {
            "doctor" => {
                let percent = |part: u64| part as f64 * 100.0 / limit.max(1) as f64;
                let text = format!(
                    "{:.1} % of the limit is held, {:.1} % of it are keys and values.\n",
                    percent(held),
                    percent(user)
                );
                w.verbatim(b"txt", text.as_bytes());
            }
            "purge" => w.simple("OK"),
            "stats" => {
                let figures = [
                    ("total.allocated", held),
                    ("dataset.bytes", user),
                    ("keys.count", items),
                    ("keys.bytes-per-key", held / items.max(1)),
                    ("limit", limit),
                ];
                w.map(figures.len());
                for (name, value) in figures {
                    w.bulk(name.as_bytes());
                    w.integer(value as i64);
                }
            }
            _ => introspect::help(Command::Memory.row(), w),
        });
    }

    /// Writes a reply behind those before it, unless the client wants none.
    fn reply(&mut self, slot: u32, write: impl FnOnce(&mut Writer)) {
        let Some(connection) = self.connections.at(slot) else { return };
        let (resp3, noreply) = match &mut connection.client {
            Some(client) => (client.resp3, client.take_noreply()),
            None => (false, false),
        };
        if !noreply {
            self.outputs.provide(&mut connection.output);
            connection.write(|out| write(&mut Writer::new(out, resp3)));
        }
    }

    /// Sends a command without a key to the shard that its cursor is at.
    fn perform_scan(&mut self, pending: &Pending, args: Args) {
        let place = match cursor(args.iter().nth(1).unwrap_or_default()) {
            Ok(cursor) => (cursor & ((1 << CURSOR_SHARD_BITS) - 1)) as usize,
            Err(_) => return self.reply(pending.slot, |w| w.error("ERR invalid cursor")),
        };
        if place >= self.routes.len() {
            return self.reply(pending.slot, |w| w.error("ERR invalid cursor"));
        }
        let (hash, operation) = self.without_key(pending.slot, Command::Scan, args);
        let request = Request { key: &[][..], operation, noreply: false };
        let sent = Pending { owner: place as u16, hash, request, ..*pending };
        match (place == self.id, operation) {
            (true, Operation::Call(call)) => self.perform_call(&sent, &call),
            _ => self.send_away(&sent),
        }
    }

    /// A command without a key, for a shard: its hash says which database.
    fn without_key<'a>(&mut self, slot: u32, command: Command, args: Args<'a>) -> (KeyHash, Operation<&'a [u8]>) {
        let client = self.connections.at(slot).and_then(|c| c.client.as_ref());
        let (resp3, database) = client.map_or((false, 0), |client| (client.resp3, client.database));
        let hash = if database == 0 { KeyHash(0) } else { KeyHash(0).in_database(database) };
        let args = args.skip(1);
        (hash, Operation::Call(Call { command, resp3, count: args.len() as u32, args: args.bytes() }))
    }

    /// Asks every shard for its part of the answer to a command on all keys.
    fn ask_all_shards(&mut self, pending: &Pending, command: Command, args: Args) {
        let (hash, operation) = self.without_key(pending.slot, command, args);
        let shards = self.routes.len() as u32;
        let Operation::Call(call) = operation else { return };
        if matches!(command, Command::FlushDb | Command::FlushAll) {
            let option = args.iter().nth(1).unwrap_or(b"sync");
            if args.len() > 2 || ![&b"sync"[..], b"async"].iter().any(|o| o.eq_ignore_ascii_case(option)) {
                return self.reply(pending.slot, |w| w.error("ERR syntax error"));
            }
            self.counters.add(Counter::CmdFlush);
        }
        let gather = match command {
            Command::DbSize => Gather::sum(shards),
            Command::Keys => Gather::array(shards),
            Command::RandomKey => Gather::any(shards, call.resp3),
            _ => Gather::done(shards),
        };
        self.scatter(pending, hash, operation, gather);
    }

    /// Sends an operation to every shard, this one included; the reply is made of all of theirs.
    fn scatter(&mut self, pending: &Pending, hash: KeyHash, operation: Operation<&[u8]>, gather: Gather) {
        let shards = self.routes.len();
        if !self.has_room(0..shards, pending) {
            return;
        }
        let token = self.connections.token(pending.slot);
        let Some(connection) = self.connections.at(pending.slot) else { return };
        let noreply = connection.client.as_mut().is_some_and(|client| client.take_noreply());
        let sequence = connection.order.await_parts(gather.noreply(noreply));
        let request = Request { key: &[][..], operation, noreply: false };
        for to in (0..shards).filter(|&to| to != self.id) {
            self.routes[to].filling.push(token, sequence, hash, &request);
        }
        let mut part = Vec::new();
        if let Operation::Clients { args, count } = operation {
            self.answer_clients(Args::new(args, count as usize), &mut part);
        } else {
            let Self { connections, engine, now, counters, node, .. } = self;
            let begun = begun_request(&request, &node.tunables);
            let long = answer(&request, hash, engine, *now, counters, shards, &mut part);
            debug_assert!(long.is_none(), "what has no key has no long value");
            if let (Some(begun), Operation::Call(call)) = (begun, request.operation) {
                let client = connections.at(pending.slot).and_then(|c| c.client.as_deref());
                node.tunables.took(begun.elapsed().as_micros() as u64, *now, || describe(client, &call, *now));
            }
        }
        let Some(connection) = self.connections.at(pending.slot) else { return };
        self.outputs.provide(&mut connection.output);
        connection.take_reply(sequence, &part);
    }

    /// Sends an operation on the engine to every shard and answers OK.
    fn set_everywhere(&mut self, operation: Operation<&[u8]>) {
        let request = Request { key: &[][..], operation, noreply: true };
        let token = self.connections.nobody();
        for to in (0..self.routes.len()).filter(|&to| to != self.id) {
            self.routes[to].filling.push(token, 0, KeyHash(0), &request);
        }
        let shards = self.routes.len();
        let Self { engine, now, counters, .. } = self;
        answer(&request, KeyHash(0), engine, *now, counters, shards, &mut Vec::new());
    }
}

/// What to say to a command that there is not, as Redis says it.
fn unknown(name: &[u8], args: Args) -> Refused {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned();
    let mut arguments = String::new();
    for arg in args.skip(1) {
        if arguments.len() >= SHOWN_BYTES_MAX {
            break;
        }
        arguments.push_str(&format!("'{}' ", shown(arg)));
    }
    format!("ERR unknown command '{}', with args beginning with: {arguments}", shown(name))
}
