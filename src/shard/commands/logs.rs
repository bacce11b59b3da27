//! SLOWLOG and LATENCY: the logs of slow commands and latency spikes.

use super::{Io, Shard};
use crate::command::{Args, Command};
use crate::execute::introspect;
use crate::shard::pending::Pending;
use crate::shard::tunables::Spike;
use crate::values::numbers;

/// The number of entries that SLOWLOG GET shows without a count.
const SHOWN_DEFAULT: i64 = 10;

impl<I: Io> Shard<I> {
    /// SLOWLOG.
    pub(super) fn slowlog(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let row = Command::SlowLog.row();
        let subcommand = match introspect::find_subcommand(row, args) {
            Ok(subcommand) => subcommand.name,
            Err(error) => return self.reply(id, |w| w.error(error)),
        };
        match subcommand {
            "len" => {
                let count = self.shared.tunables.slow_commands().len();
                self.reply(id, |w| w.integer(count as i64));
            }
            "reset" => {
                self.shared.tunables.forget_slow_commands();
                self.reply(id, |w| w.simple("OK"));
            }
            "get" => {
                let count = args.iter().nth(2).map_or(Some(SHOWN_DEFAULT), numbers::integer);
                let Some(count) = count.filter(|&count| count >= -1) else {
                    return self.reply(id, |w| w.error("ERR count should be greater than or equal to -1"));
                };
                let mut slow = self.shared.tunables.slow_commands();
                slow.truncate(usize::try_from(count).unwrap_or(usize::MAX));
                self.reply(id, |w| {
                    w.array(slow.len());
                    for command in slow {
                        w.array(6);
                        for number in [command.id, command.seconds, command.micros] {
                            w.integer(number as i64);
                        }
                        w.array(command.args.len());
                        command.args.iter().for_each(|arg| w.bulk(arg));
                        w.bulk(command.client_address.as_bytes());
                        w.bulk(&command.client_name);
                    }
                });
            }
            _ => self.reply(id, |w| introspect::help(row, w)),
        }
    }

    /// LATENCY.
    pub(super) fn latency(&mut self, pending: &Pending, args: Args) {
        let id = pending.id;
        let row = Command::Latency.row();
        let subcommand = match introspect::find_subcommand(row, args) {
            Ok(subcommand) => subcommand.name,
            Err(error) => return self.reply(id, |w| w.error(error)),
        };
        let arguments = args.skip(2);
        let spikes = self.shared.tunables.spikes();
        let longest = |history: &mut dyn Iterator<Item = &Spike>| history.map(|spike| spike.milliseconds).max();
        match subcommand {
            "latest" => self.reply(id, |w| {
                w.array(spikes.len());
                for (event, history) in &spikes {
                    let last = history.back().copied().unwrap_or(Spike { seconds: 0, milliseconds: 0 });
                    w.array(4);
                    w.bulk(event.as_bytes());
                    w.integer(last.seconds as i64);
                    w.integer(last.milliseconds as i64);
                    w.integer(longest(&mut history.iter()).unwrap_or(0) as i64);
                }
            }),
            "history" => {
                let wanted = arguments.iter().next().unwrap_or_default();
                let found = spikes.iter().find(|(event, _)| wanted.eq_ignore_ascii_case(event.as_bytes()));
                self.reply(id, |w| {
                    w.array(found.map_or(0, |(_, history)| history.len()));
                    for spike in found.into_iter().flat_map(|(_, history)| history) {
                        w.array(2);
                        w.integer(spike.seconds as i64);
                        w.integer(spike.milliseconds as i64);
                    }
                });
            }
            "reset" => {
                let forgotten = self.shared.tunables.forget_spikes(arguments.iter());
                self.reply(id, |w| w.integer(forgotten as i64));
            }
            "doctor" => {
                let lines = spikes.iter().map(|(event, history)| {
                    let longest = longest(&mut history.iter()).unwrap_or(0);
                    format!("{event}: {} spikes, the longest {longest} ms\n", history.len())
                });
                let mut text: String = lines.collect();
                if text.is_empty() {
                    text.push_str("No spike was seen. (CONFIG SET latency-monitor-threshold MS turns this on.)\n");
                }
                self.reply(id, |w| w.verbatim(b"txt", text.as_bytes()));
            }
            "help" => self.reply(id, |w| introspect::help(row, w)),
            _ => self.reply(id, |w| w.error(format!("ERR LATENCY {} is not supported", subcommand.to_uppercase()))),
        }
    }
}
