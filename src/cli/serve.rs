//! `pinion [serve]`: run a node until it is told to stop.

use crate::config::{Config, ConfigError, Cores, Machine, Options, resolve};
use crate::log::Log;
use crate::server::{Address, Server};
use crate::sys;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::time::Duration;

/// How long the end of the process waits for its last log lines to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a node with these flags and the weaker layers of settings, until a signal stops it.
pub(super) fn run(flags: Options) -> Result<(), ConfigError> {
    let options = resolve(flags, std::env::vars_os())?;
    sys::return_large_memory();
    let open_files = sys::raise_file_limit(u64::MAX).map_err(|e| ConfigError(format!("getrlimit: {e}")))?;
    let machine = Machine { cores: sys::allowed_cores(), memory_bytes: sys::physical_memory_bytes(), open_files };
    let config = Config::new(&options, &machine)?;
    let log = start_log(config.verbosity)?;
    let outcome = serve(config);
    log.flush(LOG_PATIENCE);
    outcome
}

fn serve(config: Config) -> Result<(), ConfigError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }

    // Installed before anything starts, so that no early signal is lost.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])
        .map_err(|e| ConfigError(format!("cannot handle signals: {e}")))?;
    let (shards, cores, memory) =
        (config.shard_cores.len(), Cores::shown(&config.shard_cores), config.memory_bytes >> 20);
    let server = Server::start(config).map_err(|e| ConfigError(e.to_string()))?;
    for Address { protocol, address } in server.addresses() {
        tracing::info!(protocol, %address, "listening");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), shards, cores, memory_mib = memory, "ready");

    for signal in signals.forever() {
        match signal {
            // Nothing is to be reopened or read again: the log is standard error, and CONFIG SET changes settings.
            SIGHUP | SIGUSR1 | SIGUSR2 => tracing::info!(signal, "ignored"),
            _ => {
                tracing::info!(signal, "stopping");
                break;
            }
        }
    }
    server.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Logs to standard error, panics included.
fn start_log(verbosity: u8) -> Result<Log, ConfigError> {
    let log = Log::start(std::io::stderr()).map_err(|error| ConfigError(format!("cannot start a thread: {error}")))?;
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::new(level);
    let colours = std::io::stderr().is_terminal();
    let (writer, last) = (log.clone(), log.clone());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone());
    // This fails only if the process has a logger already.
    let _ = lines.with_ansi(colours).try_init();
    // The default hook would wait for standard error.
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{}", panic.to_string().replace('\n', " "));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!("{backtrace}");
        }
        last.flush(LOG_PATIENCE);
    }));
    Ok(log)
}
