//! Closed-loop load generator on one thread: `--conns` connections, each keeping `--depth` requests in flight.
//!
//! Two kinds of load:
//!
//! ```text
//! load --port 11211 --pid 4711 --proto memcached --depth 16 --ms 1000     sets and gets; every reply byte is checked
//! load --port 6379 --depth 16 --requests 300000 LPUSH list element:__rand_int__
//! ```
//!
//! Without a command it stores `--keys` keys, then sends gets and sets of them (`checked.rs`) for `--reps` windows of
//! `--ms` milliseconds. Per window it prints one JSON object: `ops` per second, latency quantiles in µs, and `cpu`, the
//! server's CPU time per operation in µs. That is the time of all threads of `--pid` from schedstat, kernel included.
//!
//! With a command (`command.rs`), as redis-benchmark takes one, it sends that `--requests` times over RESP and prints
//! the number of requests per second. It is faster than the servers; redis-benchmark is slower where pipelines are
//! deep.
//!
//! Exit status: 3 after an unexpected reply, 4 after an I/O error, 2 for an argument that it cannot use. `scripts/pair`
//! and `scripts/collections` run it.
#![allow(missing_docs)]

mod checked;
mod command;
mod driver;

use checked::{Checked, Protocol};
use clap::Parser;
use command::Command;
use driver::Driver;
use hdrhistogram::Histogram;
use std::process::exit;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Options {
    #[arg(long)]
    port: u16,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    conns: u32,
    /// Requests in flight per connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,
    /// Different keys, or different random numbers of a command
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Core to run on (default: those that the process may use)
    #[arg(long)]
    core: Option<usize>,

    /// Process of the server, whose CPU time is read
    #[arg(long, required_unless_present = "words")]
    pid: Option<u32>,
    #[arg(long, value_enum, default_value = "memcached")]
    proto: Protocol,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    val: usize,
    /// Keys per get
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    mget: u32,
    /// Percentage of sets
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    setpct: u8,
    /// Windows to measure
    #[arg(long, default_value_t = 3)]
    reps: u32,
    /// Length of a window
    #[arg(long, default_value_t = 1000)]
    ms: u64,
    /// Time before the first window
    #[arg(long, default_value_t = 200)]
    warm: u64,
    /// The keys are stored already
    #[arg(long)]
    nopreload: bool,

    /// Times to send the command
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Command to send; `__rand_int__` in it stands for a number of 12 digits, drawn for each request
    #[arg(trailing_var_arg = true)]
    words: Vec<String>,

    /// Cargo gives this
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    if let Some(core) = options.core {
        pin_to(core);
    }
    if options.words.is_empty() {
        run_checked(&options, options.pid.expect("clap requires it"));
    } else {
        run_command(&options);
    }
    // Receives are still in flight, so buffers and sockets are left to the exit.
    exit(0);
}

/// Sets and gets for a fixed time.
fn run_checked(options: &Options, pid: u32) {
    let load = Checked::new(options.proto, options.keys, options.val, options.mget, options.setpct);
    if !options.nopreload {
        load.preload(options.port);
    }
    let mut driver = Driver::connect(options.port, options.conns, options.depth, load);
    let mut latency = Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("valid bounds");
    let mut record = |since: Duration| latency.saturating_record(since.as_nanos() as u64);

    let mut cpu = run_until(&mut driver, Instant::now() + Duration::from_millis(options.warm), pid, &mut record).1;
    for _ in 0..options.reps {
        latency.reset();
        let mut record = |since: Duration| latency.saturating_record(since.as_nanos() as u64);
        let begun = Instant::now();
        let (ops, cpu_after) = run_until(&mut driver, begun + Duration::from_millis(options.ms), pid, &mut record);
        report(ops, begun.elapsed(), cpu_after - cpu, &latency);
        cpu = cpu_after;
    }
}

/// Returns the replies received until `end`, and the server's CPU time then.
fn run_until(driver: &mut Driver<Checked>, end: Instant, pid: u32, record: &mut dyn FnMut(Duration)) -> (u64, u64) {
    let mut ops = 0;
    loop {
        let now = driver.wait();
        if now >= end {
            // Replies that have arrived by now are processed, and counted, in the next window.
            return (ops, cpu_ns(pid));
        }
        ops += driver.process(now, record);
    }
}

/// One command, a fixed number of times.
fn run_command(options: &Options) {
    let load = Command::new(&options.words, options.keys, options.requests);
    let begun = Instant::now();
    let mut driver = Driver::connect(options.port, options.conns, options.depth, load);
    let mut done = 0;
    while done < options.requests {
        let now = driver.wait();
        done += driver.process(now, &mut |_| ());
    }
    println!("{:.0} requests per second", options.requests as f64 / begun.elapsed().as_secs_f64());
}

fn report(ops: u64, elapsed: Duration, cpu_ns: u64, latency: &Histogram<u64>) {
    let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        r#"{{"ops":{:.0},"p50":{:.1},"p99":{:.1},"p999":{:.1},"cpu":{:.3}}}"#,
        ops as f64 / elapsed.as_secs_f64(),
        us(0.5),
        us(0.99),
        us(0.999),
        cpu_ns as f64 / 1e3 / ops.max(1) as f64
    );
}

/// CPU time of all threads of a process.
fn cpu_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.unwrap_or_else(|error| fail(4, &format!("--pid {pid}: {error}")));
    let cpu_ns = |task: std::fs::DirEntry| {
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(cpu_ns).sum()
}

fn pin_to(core: usize) {
    // SAFETY: a zeroed cpu_set_t is an empty set; sched_setaffinity(2) reads it and nothing else.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) != 0 {
            fail(4, &format!("--core {core}: {}", std::io::Error::last_os_error()));
        }
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A random number below `bound`.
fn below(state: &mut u64, bound: u32) -> u32 {
    (((xorshift(state) >> 32) * u64::from(bound)) >> 32) as u32
}

/// A seed that differs from run to run.
fn seed() -> u64 {
    0x9e37_79b9_7f4a_7c15 ^ (u64::from(std::process::id()) << 20)
}

fn fail(status: i32, message: &str) -> ! {
    eprintln!("load: {message}");
    exit(status)
}
