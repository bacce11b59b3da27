//! Commands of RESP without a key: their client's own shard executes them, or gathers a part from every shard.
//!
//! The rows of the command table name the functions; `dispatch_local` is generated from them.
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

use super::connection::{ConnectionId, Gather};
use super::pending::Pending;
use super::{Io, Shard};
use crate::command::table::{Flags, Handler, with_handlers};
use crate::command::{Administration, Args, Call, Command, Operation, Request};
use crate::engine::{KEY_BYTES_MAX, KeyHash};
use crate::execute::introspect;
use crate::execute::resp::keyspace::CURSOR_SHARD_BITS;
use crate::execute::resp::scan::cursor;
use crate::metrics::Counter;
use crate::protocol::resp::Writer;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The most bytes that an error shows of an unknown command's name, of each argument, and of all arguments together
/// (about).
const SHOWN_BYTES_MAX: usize = 128;

/// An error's text, with its code.
type Refused = String;

/// A command to which every shard contributes a part.
#[derive(Clone, Copy)]
pub(super) enum ShardPart<'a> {
    /// A command of RESP on the whole keyspace.
    Call { call: Call<&'a [u8]>, database: u8 },
    /// CLIENT LIST or CLIENT KILL: `args` are those after CLIENT, `asked_by` is the id of the client that asks.
    Clients { asked_by: u64, args: Args<'a> },
}

/// Executes a command on its client's shard, depending on its kind.
macro_rules! locally {
    (local $shard:ident $pending:ident $args:ident [$handler:ident] []) => {
        $shard.$handler($pending, $args)
    };
    (container $shard:ident $pending:ident $args:ident [$($keyed:tt)*] [$handler:ident]) => {
        $shard.$handler($pending, $args)
    };
    (cursor $shard:ident $pending:ident $args:ident $($rest:tt)*) => {
        $shard.scan($pending, $args)
    };
    (every_shard $shard:ident $pending:ident $args:ident $($rest:tt)*) => {
        $shard.ask_whole_keyspace($pending, $args)
    };
    // Commands with a key reach this only to be rejected (`Shard::check`).
    ($keyed:ident $shard:ident $pending:ident $args:ident $($rest:tt)*) => {
        $shard.unreadable($pending, $args)
    };
}

macro_rules! dispatcher {
    ($({ $command:ident $kind:ident [$($merge:ident)?] [$($f:tt)*] [$($arg:expr),*] [$($local:ident)?] })*) => {
        impl<I: Io> Shard<I> {
            fn dispatch_local(&mut self, command: Command, pending: &Pending, args: Args) {
                match command {
                    $(Command::$command => locally!($kind self pending args [$($f)*] [$($local)?]),)*
                }
            }
        }
    };
}
with_handlers!(dispatcher);

impl<I: Io> Shard<I> {
    /// Executes a RESP command that has no key's owner to execute it, or rejects it.
    pub(super) fn execute_local(&mut self, pending: &Pending, args: Args) {
        let Some(name) = args.iter().next() else { return };
        let command = match self.check(pending.id, name, args) {
            Ok(command) => command,
            Err(error) => {
                self.executor.counters.add(Counter::InvalidCommands);
                return self.reply(pending.id, |w| w.error(error));
            }
        };
        let started = self.started_local(command);
        self.dispatch_local(command, pending, args);
        if let Some(started) = started {
            let arguments = args.skip(1);
            let call = Call { command, count: arguments.len() as u32, args: arguments.bytes() };
            let micros = self.io.instant().saturating_duration_since(started).as_micros() as u64;
            self.log_slow(Some(pending.id), &Operation::Call(call), micros);
        }
    }

    /// The start time of a command of this file, if it is measured. Parts of a command on every shard are measured
    /// separately.
    fn started_local(&self, command: Command) -> Option<Instant> {
        let row = command.row();
        let is_here = matches!(row.handler, Handler::Local | Handler::Container);
        (is_here && (row.may_be_slow() || self.executor.time_all)).then(|| self.io.instant())
    }

    /// Finds a command by name, and checks that this client may call it with these arguments.
    fn check(&mut self, id: ConnectionId, name: &[u8], args: Args) -> Result<Command, Refused> {
        let now = self.executor.now();
        let Some(client) = self.connections.at(id).and_then(|c| c.client.as_mut()) else {
            return Err("ERR no client".into());
        };
        let Some(command) = Command::find(name) else { return Err(unknown_command(name, args)) };
        let row = command.row();
        let subcommand = args.iter().nth(1).and_then(|name| row.subcommand(name));
        client.sent(subcommand.unwrap_or(row), now);
        if !row.accepts(args.len()) {
            return Err(introspect::wrong_arity(row));
        }
        if !client.authenticated && !row.flags.has(Flags::NO_AUTH) {
            return Err("NOAUTH Authentication required.".into());
        }
        if row.keys.first > 0 {
            return Err(format!("ERR the key is longer than {KEY_BYTES_MAX} bytes"));
        }
        if row.handler == Handler::Local && !matches!(command, Command::Client | Command::Config | Command::Info) {
            self.executor.counters.called(command);
        }
        Ok(command)
    }

    /// Rejects a command whose key cannot be determined from its arguments.
    fn unreadable(&mut self, pending: &Pending, args: Args) {
        let name = args.iter().next().unwrap_or_default();
        self.reply(pending.id, |w| w.error(unknown_command(name, args)));
    }

    /// PING.
    fn ping(&mut self, pending: &Pending, args: Args) {
        if args.len() > 2 {
            return self.reply(pending.id, |w| w.error(introspect::wrong_arity(Command::Ping.row())));
        }
        self.reply(pending.id, |w| match args.iter().nth(1) {
            Some(text) => w.bulk(text),
            None => w.simple("PONG"),
        });
    }

    /// ECHO.
    fn echo(&mut self, pending: &Pending, args: Args) {
        self.reply(pending.id, |w| w.bulk(args.iter().nth(1).unwrap_or_default()));
    }

    /// QUIT.
    fn quit(&mut self, pending: &Pending, _: Args) {
        self.reply(pending.id, |w| w.simple("OK"));
        if let Some(connection) = self.connections.at(pending.id) {
            connection.quit();
        }
    }

    /// COMMAND.
    fn command(&mut self, pending: &Pending, args: Args) {
        self.reply(pending.id, |w| introspect::command(args, w));
    }

    /// TIME.
    fn time(&mut self, pending: &Pending, _: Args) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reply(pending.id, |w| {
            w.array(2);
            w.bulk(time.as_secs().to_string().as_bytes());
            w.bulk(time.subsec_micros().to_string().as_bytes());
        });
    }

    /// LOLWUT.
    fn lolwut(&mut self, pending: &Pending, _: Args) {
        let text = format!("Pinion ver. {}\n", env!("CARGO_PKG_VERSION"));
        self.reply(pending.id, |w| w.verbatim(b"txt", text.as_bytes()));
    }

    /// ROLE.
    fn role(&mut self, pending: &Pending, _: Args) {
        self.reply(pending.id, |w| {
            w.array(3);
            w.bulk(b"master");
            w.integer(0);
            w.array(0);
        });
    }

    /// CLUSTER, READONLY and their like: cluster support is disabled.
    fn cluster_disabled(&mut self, pending: &Pending, _: Args) {
        self.reply(pending.id, |w| w.error("ERR This instance has cluster support disabled"));
    }

    /// OBJECT HELP; its other subcommands concern keys.
    fn object_help(&mut self, pending: &Pending, args: Args) {
        let row = Command::Object.row();
        self.executor.counters.called(row.command);
        self.reply(pending.id, |w| match introspect::find_subcommand(row, args) {
            Ok(subcommand) if subcommand.name == "help" => introspect::help(row, w),
            Ok(_) => w.error("ERR syntax error"),
            Err(error) => w.error(error),
        });
    }

    /// MEMORY, except for USAGE, which concerns a key.
    fn memory(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let subcommand = match introspect::find_subcommand(Command::Memory.row(), args) {
            Ok(subcommand) => subcommand.name,
            Err(error) => return self.reply(id, |w| w.error(error)),
        };
        if subcommand == "purge" {
            if !self.has_room(0..self.router.shards(), pending) {
                return;
            }
            self.administer_everywhere(Administration::Purge);
        }
        self.executor.counters.called(Command::Memory);
        self.publish();
        let (held, limit) = (self.shared.sum(Counter::HeldBytes), self.shared.tunables.memory_bytes());
        let (user, items) = (self.shared.sum(Counter::UserBytes), self.shared.sum(Counter::CurrItems));
        self.reply(id, |w| match subcommand {
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

    /// Appends a reply to the connection's reply queue, unless the client suppresses replies.
    fn reply(&mut self, id: ConnectionId, write: impl FnOnce(&mut Writer)) {
        let Some(connection) = self.connections.answering(id) else { return };
        let session = connection.session();
        if !connection.take_noreply() {
            connection.write(|out| write(&mut Writer::new(out, session.resp3)));
        }
    }

    /// SCAN: executed by the shard that its cursor names.
    fn scan(&mut self, pending: &Pending, args: Args) {
        let shards = self.router.shards();
        let shard = cursor(args.iter().nth(1).unwrap_or_default())
            .map(|cursor| (cursor & ((1 << CURSOR_SHARD_BITS) - 1)) as usize);
        let Some(shard) = shard.ok().filter(|&shard| shard < shards) else {
            return self.reply(pending.id, |w| w.error("ERR invalid cursor"));
        };
        let Some(session) = self.connections.at(pending.id).map(|connection| connection.session()) else { return };
        let arguments = args.skip(1);
        let call = Call { command: Command::Scan, count: arguments.len() as u32, args: arguments.bytes() };
        let request = Request { key: &[][..], operation: Operation::Call(call), session };
        let pending = Pending { owner: shard as u16, hash: whole_database(session.database), ..*pending };
        match shard == self.id {
            true => self.execute_here(&pending, &request),
            false => self.send_away(&pending, &request),
        }
    }

    /// Executes a command on the whole keyspace: every shard contributes a part.
    fn ask_whole_keyspace(&mut self, pending: &Pending, args: Args) {
        let Some((name, arguments)) = args.split_first() else { return };
        let Some(command) = Command::find(name) else { return };
        let Some(merge) = command.row().merge() else { return };
        if matches!(command, Command::FlushDb | Command::FlushAll) {
            let option = arguments.iter().next().unwrap_or(b"sync");
            if args.len() > 2 || ![&b"sync"[..], b"async"].iter().any(|o| o.eq_ignore_ascii_case(option)) {
                return self.reply(pending.id, |w| w.error("ERR syntax error"));
            }
            self.executor.counters.add(Counter::CmdFlush);
        }
        let database = self.connections.at(pending.id).map_or(0, |connection| connection.session().database);
        let call = Call { command, count: arguments.len() as u32, args: arguments.bytes() };
        let gather = Gather::new(merge, self.router.shards() as u32);
        self.ask_every_shard(pending, ShardPart::Call { call, database }, gather);
    }

    /// Gathers a reply from the parts of every shard, this one included.
    fn ask_every_shard(&mut self, pending: &Pending, part: ShardPart, gather: Gather) {
        if !self.has_room(0..self.router.shards(), pending) {
            return;
        }
        let token = self.connections.token(pending.id);
        let Some(connection) = self.connections.at(pending.id) else { return };
        let (session, noreply) = (connection.session(), connection.take_noreply());
        let sequence = connection.replies.expect_parts(gather.answering(session.resp3, noreply));
        for to in self.router.siblings() {
            let batch = self.router.batch(to);
            match part {
                ShardPart::Call { call, database } => {
                    batch.push_part(token, sequence, whole_database(database), &[], &call);
                }
                ShardPart::Clients { asked_by, args } => batch.push_clients(token, sequence, asked_by, args),
            }
        }
        match part {
            ShardPart::Call { call, database } => {
                self.execute_part(pending.id, sequence, &[], whole_database(database), &call);
            }
            ShardPart::Clients { asked_by, args } => {
                let mut bytes = Vec::new();
                let kind = self.clients_part(asked_by, args, &mut bytes);
                self.take_part(token, sequence, kind, &bytes, false);
            }
        }
    }
}

/// The hash of a command that concerns a whole database: it encodes the database.
fn whole_database(database: u8) -> KeyHash {
    if database == 0 { KeyHash(0) } else { KeyHash(0).in_database(database) }
}

/// Redis's `unknown command` error.
fn unknown_command(name: &[u8], args: Args) -> Refused {
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
