//! Executes commands whose value arrived as an upload.

use super::arguments::{Error, required};
use super::strings;
use super::{Context, Done};
use crate::command::{Args, Command, End, UnixMs};
use crate::engine::Upload;
use crate::metrics::Counter;
use crate::protocol::resp::Writer;

/// How a command uses its uploaded value, and its reply.
enum Plan {
    /// Store the value with this expiry, then reply as the condition decided.
    Store(Option<UnixMs>, strings::Proceed),
    /// Append the value to the stored string.
    Append,
    /// Discard the value: the condition does not hold, and the reply is already written.
    Drop,
}

pub(super) fn finish(command: Command, c: &mut Context, upload: Upload, after: Args, w: &mut Writer) -> Done {
    let plan = match plan(command, c, after, w) {
        Ok(plan) => plan,
        Err(error) => {
            // The command is in error: free the value.
            c.engine.abort(upload);
            return Err(error);
        }
    };
    match plan {
        Plan::Drop => c.engine.abort(upload),
        Plan::Store(expires, proceed) => {
            commit(c, upload, expires)?;
            match command {
                Command::SetNx => w.integer(1),
                _ => proceed.finish(w),
            }
        }
        Plan::Append => {
            // APPEND to a missing key stores the value as SET does.
            let known = c.engine.get(c.hash, c.key, c.now).is_some();
            match known {
                true => _ = c.engine.extend_by(c.hash, c.group(), c.key, End::Back, upload, c.now)?,
                false => commit(c, upload, None)?,
            }
            w.integer(strings::length(c)?.unwrap_or(0) as i64);
        }
    }
    Ok(())
}

fn plan(command: Command, c: &mut Context, after: Args, w: &mut Writer) -> Result<Plan, Error> {
    let always = strings::Proceed { old: None };
    Ok(match command {
        Command::Set => {
            // SET's options follow its value, so they are parsed only now.
            let (options, expire) = strings::set_options(c, after.iter())?;
            match strings::set_condition(c, options, w)? {
                Some(proceed) => Plan::Store(strings::resolve(c, expire), proceed),
                None => Plan::Drop,
            }
        }
        // The key exists, so SETNX stores nothing.
        Command::SetNx if c.engine.get(c.hash, c.key, c.now).is_some() => {
            w.integer(0);
            Plan::Drop
        }
        Command::SetEx | Command::PSetEx => {
            // The time to live precedes the value, so it is among the context's arguments.
            let (unit, name) = if command == Command::SetEx { (1000, "setex") } else { (1, "psetex") };
            let expires = c.future(required(&mut c.args.skip(1).into_iter())?, unit, true, name)?;
            Plan::Store(Some(expires), always)
        }
        // The old value is read before the new one replaces it.
        Command::GetSet => Plan::Store(None, strings::Proceed { old: Some(strings::replaced(c)?) }),
        Command::Append => Plan::Append,
        _ => Plan::Store(None, always),
    })
}

fn commit(c: &mut Context, upload: Upload, expires: Option<UnixMs>) -> Result<(), Error> {
    c.counters.add(Counter::CmdSet);
    c.engine.commit(c.hash, c.group(), upload, c.now)?;
    // An upload is committed without an expiry, so the expiry is set afterwards.
    if expires.is_some() {
        c.engine.touch(c.hash, c.key, expires, c.now)?;
    }
    Ok(())
}
