//! Clients' identity and settings: HELLO, AUTH, SELECT, RESET, CLIENT.

use super::{Io, Refused, SHOWN_BYTES_MAX, Shard, ShardPart};
use crate::command::table::{Merge, Row};
use crate::command::{Args, Command, DATABASES, Part, UnixMs};
use crate::execute::introspect;
use crate::metrics::Counter;
use crate::protocol::State;
use crate::shard::complaints::Complaint;
use crate::shard::connection::{Client, Connection, ConnectionId, Gather, Replies, Wait};
use crate::shard::pending::Pending;
use crate::values::numbers;
use std::fmt::Write;

/// The version of Redis that is announced: clients infer the supported commands from it.
pub(super) const REDIS_VERSION: &str = "7.4.0";

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is \
     correct?";

/// The longest name of a client, of its library and of that one's version.
const NAME_BYTES_MAX: usize = 1024;

/// What errors call the names of clients.
const CLIENT_NAMES: &str = "Client names";

impl<I: Io> Shard<I> {
    fn client_of(&mut self, id: ConnectionId) -> Option<&mut Client> {
        self.connections.at(id)?.client.as_deref_mut()
    }

    /// RESET.
    pub(super) fn reset(&mut self, pending: &Pending, _: Args) {
        let id = pending.id;
        let open = self.shared.tunables.password().is_empty();
        if let Some(client) = self.client_of(id) {
            client.reset(open);
        }
        self.reply(id, |w| w.simple("RESET"));
    }

    /// SELECT.
    pub(super) fn select(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let number = args.iter().nth(1).and_then(numbers::integer);
        let database = number.and_then(|n| u8::try_from(n).ok()).filter(|&n| usize::from(n) < DATABASES);
        match (database, self.client_of(id)) {
            (Some(database), Some(client)) => {
                client.database = database;
                self.reply(id, |w| w.simple("OK"));
            }
            _ if number.is_none() => self.reply(id, |w| w.error("ERR value is not an integer or out of range")),
            _ => self.reply(id, |w| w.error("ERR DB index is out of range")),
        }
    }

    /// Authenticates a client; the only user is `default`.
    fn authenticate(&mut self, id: ConnectionId, user: Option<&[u8]>, password: &[u8]) -> Result<(), Refused> {
        if self.client_of(id).is_some_and(|client| !client.is_delayed) {
            self.executor.counters.add(Counter::AuthCmds);
        }
        let wanted = self.shared.tunables.password();
        if wanted.is_empty() && user.is_none() {
            return Err(NO_PASSWORD.into());
        }
        let is_default = user.is_none_or(|user| user == b"default");
        if !is_default || !wanted.is_empty() && !is_same(&wanted, password) {
            return Err(WRONG_PASSWORD.into());
        }
        if let Some(client) = self.client_of(id) {
            client.authenticated = true;
        }
        Ok(())
    }

    /// AUTH.
    pub(super) fn auth(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let all: Vec<&[u8]> = args.iter().skip(1).collect();
        let done = match all[..] {
            [password] => self.authenticate(id, None, password),
            [user, password] => self.authenticate(id, Some(user), password),
            _ => Err("ERR syntax error".into()),
        };
        if self.delays(pending, &done) {
            return;
        }
        self.reply(id, |w| match done {
            Ok(()) => w.simple("OK"),
            Err(error) => w.error(error),
        });
    }

    /// True if a client has given a wrong password: it is counted and logged, and the command set back to the next
    /// tick, so that a client that guesses has less than two attempts a second.
    fn delays(&mut self, pending: &Pending, done: &Result<(), Refused>) -> bool {
        let id = pending.id;
        let is_wrong = done.as_ref().is_err_and(|error| error == WRONG_PASSWORD);
        let Some(client) = self.client_of(id) else { return false };
        let was_delayed = std::mem::replace(&mut client.is_delayed, is_wrong);
        if !is_wrong || was_delayed {
            client.is_delayed = false;
            return false;
        }
        let address = client.address.clone();
        self.executor.counters.add(Counter::AuthErrors);
        if let Some(left_out) = self.complaints.due(Complaint::WrongPassword, self.instant) {
            tracing::warn!(shard = self.id, client = address, left_out, "a client gave a wrong password");
        }
        self.set_back(id, Wait::Tick, pending.rest, pending.state);
        true
    }

    /// HELLO.
    pub(super) fn hello(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let done = self.negotiate(id, args.skip(1));
        if self.delays(pending, &done) {
            return;
        }
        if let Err(error) = done {
            return self.reply(id, |w| w.error(error));
        }
        let Some(client) = self.client_of(id) else { return };
        let (number, resp3) = (client.id, client.resp3);
        self.reply(id, |w| {
            w.map(7);
            let mut pair = |name: &str, value: &str| {
                w.bulk(name.as_bytes());
                w.bulk(value.as_bytes());
            };
            pair("server", "redis");
            pair("version", REDIS_VERSION);
            w.bulk(b"proto");
            w.integer(if resp3 { 3 } else { 2 });
            w.bulk(b"id");
            w.integer(number as i64);
            for (name, value) in [("mode", "standalone"), ("role", "master")] {
                w.bulk(name.as_bytes());
                w.bulk(value.as_bytes());
            }
            w.bulk(b"modules");
            w.array(0);
        });
    }

    /// Applies the options of HELLO.
    fn negotiate(&mut self, id: ConnectionId, args: Args) -> Result<(), Refused> {
        let mut args = args.into_iter();
        let version = match args.next().map(numbers::integer) {
            None => None,
            Some(Some(version @ 2..=3)) => Some(version),
            Some(Some(_)) => return Err("NOPROTO unsupported protocol version".into()),
            Some(None) => return Err("ERR Protocol version is not an integer or out of range".into()),
        };
        let (mut name, mut login) = (None, None);
        while let Some(option) = args.next() {
            let shown = String::from_utf8_lossy(option).into_owned();
            let syntax = || format!("ERR Syntax error in HELLO option '{shown}'");
            match option.to_ascii_uppercase().as_slice() {
                b"AUTH" => {
                    login = Some((args.next().ok_or_else(syntax)?, args.next().ok_or_else(syntax)?));
                }
                b"SETNAME" => name = Some(checked_name(CLIENT_NAMES, args.next().ok_or_else(syntax)?)?),
                _ => return Err(syntax()),
            }
        }
        if let Some((user, password)) = login {
            self.authenticate(id, Some(user), password)?;
        }
        let Some(client) = self.client_of(id) else { return Ok(()) };
        if !client.authenticated {
            return Err(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                        AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                        version at the same time"
                    .into(),
            );
        }
        if let Some(version) = version {
            client.resp3 = version == 3;
        }
        if let Some(name) = name {
            client.name = name;
        }
        Ok(())
    }

    /// CLIENT.
    pub(super) fn client(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let row = Command::Client.row();
        let subcommand = match introspect::find_subcommand(row, args) {
            Ok(subcommand) => subcommand.name,
            Err(error) => return self.reply(id, |w| w.error(error)),
        };
        let arguments: Vec<&[u8]> = args.skip(2).iter().collect();
        if matches!(subcommand, "list" | "kill") {
            if let Err(error) = Filter::read(args.skip(1), None) {
                return self.reply(id, |w| w.error(error));
            }
            let shards = self.router.shards() as u32;
            let asked_by = self.client_of(id).map_or(0, |client| client.id);
            let merge = match subcommand {
                "list" => Merge::Text,
                _ if arguments.len() == 1 => Merge::Killed,
                _ => Merge::Sum,
            };
            let part = ShardPart::Clients { asked_by, args: args.skip(1) };
            return self.ask_every_shard(pending, part, Gather::new(merge, shards));
        }
        let (now, shard) = (self.executor.now(), self.id);
        let connection = self.connections.at(id);
        let Some(connection) = connection else { return };
        let line = shown(connection, shard, now);
        let Some(client) = connection.client.as_deref_mut() else { return };
        let toggle = || match arguments.first().map(|arg| arg.to_ascii_lowercase()).as_deref() {
            Some(b"on") => Ok(true),
            Some(b"off") => Ok(false),
            _ => Err("ERR syntax error".to_owned()),
        };
        let done = match subcommand {
            "id" => {
                let number = client.id as i64;
                return self.reply(id, |w| w.integer(number));
            }
            "getname" => {
                let name = client.name.clone();
                return self.reply(id, |w| if name.is_empty() { w.null() } else { w.bulk(&name) });
            }
            "info" => return self.reply(id, |w| w.verbatim(b"txt", line.as_bytes())),
            "setname" => checked_name(CLIENT_NAMES, arguments[0]).map(|name| client.name = name),
            "setinfo" => set_info(client, arguments[0], arguments[1]),
            "no-touch" => toggle().map(|on| client.no_touch = on),
            "no-evict" => toggle().map(|on| client.no_evict = on),
            "reply" => match arguments[0].to_ascii_lowercase().as_slice() {
                b"on" => {
                    client.replies = Replies::On;
                    Ok(())
                }
                b"off" => {
                    client.replies = Replies::Off;
                    return;
                }
                b"skip" => {
                    if client.replies == Replies::On {
                        client.replies = Replies::Skip;
                    }
                    return;
                }
                _ => Err("ERR syntax error".into()),
            },
            _ => return self.reply(id, |w| introspect::help(row, w)),
        };
        self.reply(id, |w| match done {
            Ok(()) => w.simple("OK"),
            Err(error) => w.error(error),
        });
    }

    /// This shard's part of CLIENT LIST or CLIENT KILL. `args` are those after CLIENT. `asked_by` is the id of the
    /// client that asks, which SKIPME needs.
    pub(in crate::shard) fn clients_part(&mut self, asked_by: u64, args: Args, out: &mut Vec<u8>) -> Part {
        let filter = match Filter::read(args, Some(asked_by)) {
            Ok(filter) => filter,
            Err(error) => {
                out.extend_from_slice(error.as_bytes());
                return Part::Error;
            }
        };
        let mut lines = String::new();
        let mut killed = 0;
        for id in self.connections.ids() {
            let (shard, now) = (self.id, self.executor.now());
            let Some(connection) = self.connections.at(id) else { continue };
            if !filter.matches(connection, now) {
                continue;
            }
            if !filter.kill {
                lines.push_str(&shown(connection, shard, now));
                continue;
            }
            killed += 1;
            match connection.client.as_ref().is_some_and(|client| client.id == asked_by) {
                true => connection.quit(),
                false => self.abandon(id),
            }
        }
        if filter.kill {
            return Part::Count(killed);
        }
        out.extend_from_slice(lines.as_bytes());
        Part::Text
    }
}

/// Compares two passwords in a time that does not depend on where they differ.
fn is_same(wanted: &[u8], told: &[u8]) -> bool {
    let difference = wanted.iter().zip(told).fold(0, |all, (a, b)| all | (a ^ b));
    wanted.len() == told.len() && difference == 0
}

/// Validates a client's name, or what `what` is: it is kept as long as the connection, and shown in one line.
fn checked_name(what: &str, name: &[u8]) -> Result<Vec<u8>, Refused> {
    match name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        true if name.len() > NAME_BYTES_MAX => {
            Err(format!("ERR {what} cannot be longer than {NAME_BYTES_MAX} bytes: there are {}", name.len()))
        }
        true => Ok(name.to_vec()),
        false => Err(format!("ERR {what} cannot contain spaces, newlines or special characters.")),
    }
}

/// The start of a text, for an error.
fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_BYTES_MAX).collect()
}

fn set_info(client: &mut Client, attribute: &[u8], value: &[u8]) -> Result<(), Refused> {
    let name = String::from_utf8_lossy(attribute).to_lowercase();
    let kept = match name.as_str() {
        "lib-name" => &mut client.library,
        "lib-ver" => &mut client.library_version,
        _ => return Err(format!("ERR Unrecognized option '{}'", shortened(&name))),
    };
    *kept = checked_name(&name, value)?;
    Ok(())
}

/// Formats a connection's line in CLIENT LIST.
fn shown(connection: &Connection, shard: usize, now: UnixMs) -> String {
    let Some(client) = &connection.client else { return String::new() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut line = String::new();
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags=N db={} sub=0 psub=0 ssub=0 multi=-1 watch=0 qbuf={} \
         qbuf-free=0 argv-mem=0 multi-mem=0 rbs={} rbp=0 obl={} oll=0 omem=0 tot-mem={} events=r cmd={} user=default \
         redir=-1 resp={} lib-name={} lib-ver={} io-thread={shard} tot-net-in=0 tot-net-out=0 tot-cmds=0",
        client.id,
        client.address,
        client.local_address,
        text(&client.name),
        now.saturating_sub(client.connected) / 1000,
        now.saturating_sub(client.active) / 1000,
        client.database,
        connection.input.len(),
        connection.output.capacity(),
        connection.output.len(),
        connection.input.capacity() + connection.output.capacity(),
        client.last_command.map_or_else(|| "NULL".to_owned(), Row::full_name),
        if client.resp3 { 3 } else { 2 },
        text(&client.library),
        text(&client.library_version),
    );
    line
}

/// Selects the clients that CLIENT LIST shows, or that CLIENT KILL disconnects.
#[derive(Debug, Default)]
struct Filter {
    kill: bool,
    ids: Option<Vec<u64>>,
    address: Option<String>,
    local_address: Option<String>,
    /// The filter asks for a type of client that does not exist here, so that it matches none.
    none: bool,
    /// The minimum age of a connection, in seconds.
    age: u64,
    /// The client that asks, if SKIPME excludes it.
    skipped: Option<u64>,
}

impl Filter {
    /// Parses the arguments after CLIENT; `own` is the id of the client that asks.
    fn read(args: Args, own: Option<u64>) -> Result<Self, Refused> {
        let mut args = args.into_iter();
        let kill = args.next().is_some_and(|arg| arg.eq_ignore_ascii_case(b"kill"));
        let mut filter = Self { kill, ..Self::default() };
        let text = |arg: &[u8]| String::from_utf8_lossy(arg).into_owned();
        if kill && args.len() == 1 {
            filter.address = args.next().map(text);
            return Ok(filter);
        }
        filter.skipped = own.filter(|_| kill);
        let positive = |number: i64| u64::try_from(number).ok().filter(|&number| number > 0);
        let id = |arg: &[u8]| {
            numbers::integer(arg).and_then(positive).ok_or("ERR client-id should be greater than 0".to_owned())
        };
        while let Some(option) = args.next() {
            let value = args.next().ok_or("ERR syntax error")?;
            match option.to_ascii_uppercase().as_slice() {
                b"ID" => {
                    let ids = filter.ids.get_or_insert_default();
                    ids.push(id(value)?);
                    while !kill && args.len() > 0 {
                        ids.push(id(args.next().unwrap_or_default())?);
                    }
                }
                b"ADDR" => filter.address = Some(text(value)),
                b"LADDR" => filter.local_address = Some(text(value)),
                b"TYPE" => match value.to_ascii_lowercase().as_slice() {
                    b"normal" => {}
                    b"master" | b"replica" | b"slave" | b"pubsub" => filter.none = true,
                    _ => return Err(format!("ERR Unknown client type '{}'", text(value))),
                },
                b"USER" if value == b"default" => {}
                b"USER" => return Err(format!("ERR No such user '{}'", text(value))),
                b"MAXAGE" => {
                    let seconds = numbers::integer(value).ok_or("ERR value is not an integer or out of range")?;
                    filter.age = positive(seconds).ok_or("ERR maxage should be greater than 0")?;
                }
                b"SKIPME" if value.eq_ignore_ascii_case(b"yes") => filter.skipped = own,
                b"SKIPME" if value.eq_ignore_ascii_case(b"no") => filter.skipped = None,
                _ => return Err("ERR syntax error".into()),
            }
        }
        Ok(filter)
    }

    fn matches(&self, connection: &Connection, now: UnixMs) -> bool {
        let Some(client) = &connection.client else { return false };
        matches!(connection.state, State::Resp(_))
            && !connection.is_abandoned()
            && !self.none
            && now.saturating_sub(client.connected) / 1000 >= self.age
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.address.as_ref().is_none_or(|address| *address == client.address)
            && self.local_address.as_ref().is_none_or(|address| *address == client.local_address)
            && self.skipped != Some(client.id)
    }
}
