//! Commands of RESP without a key: their client's own shard executes them, or gathers a part from every shard.
//!
//! The rows of the command table name the functions; `dispatch_local` is generated from them.
//!
//! | file | commands |
//! |---|---|
//! | `commands/clients.rs` | HELLO, AUTH, SELECT, RESET, CLIENT |
//! | `commands/settings.rs` | CONFIG |
//! | `commands/info.rs` | INFO |
//! | `commands/memory.rs` | MEMORY |
//! | `commands/logs.rs` | SLOWLOG, LATENCY |

mod clients;
mod info;
mod logs;
mod memory;
mod settings;

use super::connection::{Client, ConnectionId, Gather};
use super::pending::Pending;
use super::{Io, Shard};
use crate::command::args::push_arg;
use crate::command::table::{Flags, Handler, Merge, with_handlers};
use crate::command::{Args, Call, Command, Operation, Part};
use crate::engine::{KEY_BYTES_MAX, KeyHash};
use crate::execute::introspect;
use crate::execute::resp::keyspace::CURSOR_SHARD_BITS;
use crate::execute::resp::scan::cursor;
use crate::metrics::Counter;
use crate::protocol::resp::Writer;
use crate::reactor::Token;
use std::time::{SystemTime, UNIX_EPOCH};

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
    /// `stats conns`.
    Connections,
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
        let (started, errors) = (self.executor.stopwatch(), self.executor.counters.error_replies());
        self.dispatch_local(command, pending, args);
        let nanoseconds = self.executor.stopwatch().saturating_sub(started);
        self.executed_local(command, pending, args, nanoseconds, errors);
    }

    /// Counts a command of this file, which took so long; there were `errors` error replies before it.
    fn executed_local(&mut self, command: Command, pending: &Pending, args: Args, nanoseconds: u64, errors: u64) {
        if self.connections.at(pending.id).is_some_and(|connection| connection.wait().is_some()) {
            // It was set back, and will be executed later.
            return;
        }
        let row = command.row();
        let arguments = args.skip(1);
        let is_here = matches!(row.handler, Handler::Local | Handler::Container);
        let has_failed = self.executor.counters.error_replies() > errors;
        let counted = row.executed_by(arguments.iter());
        let counters = &mut self.executor.counters;
        if !counted.accepts(args.len()) {
            return counters.rejected(counted);
        }
        if !row.subcommands.is_empty() && !arguments.is_empty() && std::ptr::eq(counted, row) {
            // There is no such subcommand.
            return;
        }
        match row.handler {
            Handler::Local | Handler::Container => {
                counters.called(counted, nanoseconds);
                if has_failed {
                    counters.failed(counted);
                }
            }
            // Its parts are measured, and say whether they failed.
            Handler::EveryShard(_) | Handler::Cursor => counters.called(counted, 0),
            // `check` has refused it.
            Handler::Keyed | Handler::PerKey(_) => {}
        }
        if is_here && (row.may_be_slow() || self.executor.time_all) {
            let call = Call { command, count: arguments.len() as u32, args: arguments.bytes() };
            self.log_slow(Some(pending.id), &Operation::Call(call), nanoseconds / 1000);
        }
    }

    /// Finds a command by name, and checks that this client may call it with these arguments.
    fn check(&mut self, id: ConnectionId, name: &[u8], args: Args) -> Result<Command, Refused> {
        let now = self.executor.now();
        let Some(client) = self.connections.at(id).and_then(|c| c.client.as_mut()) else {
            return Err("ERR no client".into());
        };
        if client.in_refused_transaction {
            within_refused_transaction(client, name)?;
        }
        let Some(command) = Command::find(name) else {
            // Clients send the commands of a transaction without waiting for the reply to MULTI.
            client.in_refused_transaction |= client.authenticated && name.eq_ignore_ascii_case(b"multi");
            return Err(unknown_command(name, args));
        };
        let row = command.row();
        let called = row.executed_by(args.skip(1).iter());
        client.sent(called, now);
        let refused = match () {
            () if !row.accepts(args.len()) => introspect::wrong_arity(row),
            () if !client.authenticated && !row.flags.has(Flags::NO_AUTH) => "NOAUTH Authentication required.".into(),
            () if row.keys.first > 0 => format!("ERR the key is longer than {KEY_BYTES_MAX} bytes"),
            () => return Ok(command),
        };
        self.executor.counters.rejected(called);
        Err(refused)
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

    /// LASTSAVE: nothing is ever saved; as in Redis, the start counts as a save.
    fn lastsave(&mut self, pending: &Pending, _: Args) {
        let seconds = self.shared.started_seconds();
        self.reply(pending.id, |w| w.integer(seconds as i64));
    }

    /// ACL: there is one user.
    fn acl(&mut self, pending: &Pending, args: Args) {
        let row = Command::Acl.row();
        self.reply(pending.id, |w| match introspect::find_subcommand(row, args) {
            Ok(subcommand) if subcommand.name == "whoami" => w.bulk(b"default"),
            Ok(_) => introspect::help(row, w),
            Err(error) => w.error(error),
        });
    }

    /// MODULE: there are none.
    fn module(&mut self, pending: &Pending, args: Args) {
        let row = Command::Module.row();
        self.reply(pending.id, |w| match introspect::find_subcommand(row, args) {
            Ok(subcommand) if subcommand.name == "list" => w.array(0),
            Ok(_) => introspect::help(row, w),
            Err(error) => w.error(error),
        });
    }

    /// CLUSTER, READONLY and their like: cluster support is disabled.
    fn cluster_disabled(&mut self, pending: &Pending, _: Args) {
        self.reply(pending.id, |w| w.error("ERR This instance has cluster support disabled"));
    }

    /// OBJECT HELP; its other subcommands concern keys.
    fn object_help(&mut self, pending: &Pending, args: Args) {
        let row = Command::Object.row();
        self.reply(pending.id, |w| match introspect::find_subcommand(row, args) {
            Ok(subcommand) if subcommand.name == "help" => introspect::help(row, w),
            Ok(_) => w.error("ERR syntax error"),
            Err(error) => w.error(error),
        });
    }

    /// Appends a reply to the connection's reply queue, unless the client suppresses replies.
    fn reply(&mut self, id: ConnectionId, write: impl FnOnce(&mut Writer)) {
        let Some(connection) = self.connections.answering(id) else { return };
        let session = connection.session();
        if connection.take_noreply() {
            return;
        }
        let counters = &mut self.executor.counters;
        connection.write(|out| {
            let start = out.len();
            write(&mut Writer::new(out, session.resp3));
            if let Some(error) = out[start..].strip_prefix(b"-") {
                counters.replied_error(error);
            }
        });
    }

    /// SCAN: executed by the shard that its cursor names, and by those after it while its page is not full.
    fn scan(&mut self, pending: &Pending, args: Args) {
        let shards = self.router.shards();
        let shard = cursor(args.iter().nth(1).unwrap_or_default())
            .map(|cursor| (cursor & ((1 << CURSOR_SHARD_BITS) - 1)) as usize);
        let Some(shard) = shard.ok().filter(|&shard| shard < shards) else {
            return self.fail_in_parts(pending, Command::Scan, "ERR invalid cursor");
        };
        if !self.has_room(shard..shard + 1, pending) {
            return;
        }
        let token = self.connections.token(pending.id);
        let Some(connection) = self.connections.at(pending.id) else { return };
        let (session, noreply) = (connection.session(), connection.take_noreply());
        let gather = Gather::new(Merge::Page, 1).answering(session.resp3, noreply);
        let sequence = connection.replies.expect_parts(gather);
        let arguments = args.skip(1);
        let call = Call { command: Command::Scan, count: arguments.len() as u32, args: arguments.bytes() };
        self.ask_shard(shard, token, sequence, whole_database(session.database), &call);
    }

    /// Goes on with a SCAN at the next shard: the page before is `part`.
    pub(super) fn scan_on(
        &mut self,
        token: Token,
        sequence: u32,
        hash: KeyHash,
        call: &Call<&[u8]>,
        part: Part,
        shard: usize,
    ) {
        let Part::Page { next, left, .. } = part else { return };
        if self.connections.get(token).is_none_or(|connection| connection.is_abandoned()) {
            return;
        }
        let options = Args::new(call.args, call.count as usize).skip(1);
        let mut args = Vec::new();
        push_arg(next.to_string().as_bytes(), &mut args);
        args.extend_from_slice(options.bytes());
        // Of several counts, the last one is valid.
        push_arg(b"COUNT", &mut args);
        push_arg(left.to_string().as_bytes(), &mut args);
        let call = Call { command: call.command, count: options.len() as u32 + 3, args: &args[..] };
        self.ask_shard(shard, token, sequence, hash, &call);
    }

    /// Has one shard contribute a part on its whole keyspace. The caller has seen to it that its batch has room.
    fn ask_shard(&mut self, shard: usize, token: Token, sequence: u32, hash: KeyHash, call: &Call<&[u8]>) {
        match shard == self.id {
            true => self.execute_part(token.slot, sequence, &[], hash, call),
            false => self.router.batch(shard).push_part(token, sequence, hash, &[], call),
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
                return self.fail_in_parts(pending, command, "ERR syntax error");
            }
            self.executor.counters.add(Counter::CmdFlush);
        }
        let database = self.connections.at(pending.id).map_or(0, |connection| connection.session().database);
        let call = Call { command, count: arguments.len() as u32, args: arguments.bytes() };
        let gather = Gather::new(merge, self.router.shards() as u32);
        self.ask_every_shard(pending, ShardPart::Call { call, database }, gather);
    }

    /// Replies an error to a command that would be executed in parts.
    fn fail_in_parts(&mut self, pending: &Pending, command: Command, error: &str) {
        self.executor.counters.failed(command.row());
        self.reply(pending.id, |w| w.error(error));
    }

    /// Gathers a reply from the parts of every shard, this one included.
    pub(super) fn ask_every_shard(&mut self, pending: &Pending, part: ShardPart, gather: Gather) {
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
                ShardPart::Connections => batch.push_connections(token, sequence),
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
            ShardPart::Connections => {
                let mut bytes = Vec::new();
                let kind = self.connections_part(&mut bytes);
                self.take_part(token, sequence, kind, &bytes, false);
            }
        }
    }
}

/// The hash of a command that concerns a whole database: it encodes the database.
fn whole_database(database: u8) -> KeyHash {
    if database == 0 { KeyHash(0) } else { KeyHash(0).in_database(database) }
}

/// Decides about a command of a client that was refused MULTI: Ok if it is executed all the same. Executing what was to
/// be executed all at once or not at all, one by one, would be worse than not at all.
fn within_refused_transaction(client: &mut Client, name: &[u8]) -> Result<(), Refused> {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match () {
        () if is(b"reset") || is(b"quit") => Ok(()),
        () if is(b"multi") => Err("ERR MULTI calls can not be nested".into()),
        () if is(b"exec") || is(b"discard") => {
            client.in_refused_transaction = false;
            Err("EXECABORT Transaction discarded because of previous errors.".into())
        }
        () => Err("ERR refused, because it follows a MULTI that was refused: EXEC or DISCARD ends this".into()),
    }
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
