//! The command line.

#![forbid(unsafe_code)]

mod replay;
mod serve;

use crate::config::{ConfigError, Options};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Exit status when the settings or the machine do not allow a start.
const CANNOT_START: u8 = 2;

#[derive(Parser)]
#[command(
    name = "pinion",
    version,
    about = "Pinion: an in-memory cache server for memcached clients and Redis clients, on Linux with io_uring",
    long_about = "Pinion: an in-memory cache server for memcached clients (text protocol) and Redis clients (RESP2 and RESP3), \
        on Linux with io_uring. Both protocols access the same items.\n\n\
        Each shard is a thread pinned to a core; it owns a part of the keyspace, with its own memory and connections. \
        Without arguments, Pinion listens on 127.0.0.1, on port 11211 for memcached's protocol and on port 6379 for \
        RESP, with one shard on every core that the process may use and 1 GiB of memory in all. The flags -p -m -t -c \
        -l -I -v have the meaning that they have in memcached.",
    after_help = "Precedence: flags > environment (PINION_PORT, PINION_MEMORY, ...) > --config file > --profile > defaults.\n\
        SIGTERM or SIGINT stops the server; it answers the requests that it has received first. SIGHUP, SIGUSR1 and SIGUSR2 \
        are ignored.\n\n\
        Examples:\n  \
        pinion -m 4GiB -t 4                      four shards, 1 GiB each\n  \
        pinion --cores 2-7 --profile low-latency\n  \
        PINION_MEMORY=80% pinion --config /etc/pinion.toml",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server (the default command)
    Serve(Serve),
    /// Replay recorded requests through the storage engine, and report hit ratios by eviction policy and memory
    Replay(replay::Replay),
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    options: Options,
}

/// Runs the program with the process's arguments and environment.
pub fn run() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let outcome = match parsed {
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => error.exit(),
        Err(error) => Err(ConfigError(one_line(&error))),
        Ok(Cli { command: Some(Command::Replay(options)), .. }) => replay::run(options),
        Ok(Cli { command: Some(Command::Serve(Serve { options })), .. } | Cli { command: None, options }) => {
            serve::run(options)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(ConfigError(line)) => {
            report(&line);
            ExitCode::from(CANNOT_START)
        }
    }
}

/// Writes a line to standard error. If that fails there is nobody to tell.
fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "pinion: {line}");
}

/// The first paragraph of clap's message, on one line; the rest of the message is the usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let tip = text.lines().find_map(|l| l.trim().strip_prefix("tip: ")).map(|tip| format!(" ({tip})"));
    format!("{line}{}; see --help", tip.unwrap_or_default())
}
