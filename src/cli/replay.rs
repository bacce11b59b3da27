//! `pinion replay`: hit ratios of recorded requests, by eviction policy and memory.

use crate::config::{ConfigError, number};
use crate::replay::{
    self, Amount, Cell, Count, Eviction, Outcome, Plan, Report, TRACE_BYTES_MAX, Trace, TraceReport, html, svg,
};
use crate::sys;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Args)]
pub(super) struct Replay {
    /// Traces, CTR1 or lines of time,key,size[,ttl[,op]], optionally compressed by zstd
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Eviction policies to compare, separated by commas: s3fifo, sieve, lru, lfu, fifo, ttl, random, none [default:
    /// all but none]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    policy: Option<Vec<Eviction>>,

    /// Amounts of memory to compare, separated by commas: a number of MiB, an amount with a unit (64MiB, 1GiB), or a
    /// percentage of the bytes of all distinct items (0.0001% to 1000%)
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', default_value = "1%,5%,10%")]
    memory: Vec<Amount>,

    /// Which bytes these amounts limit
    #[arg(long, value_enum, default_value = "real")]
    count: Count,

    /// Divide all sizes, and amounts of memory in bytes, by N, 1 to 2147483648 [default: the least power of two at
    /// which all runs fit into memory]
    #[arg(long, value_name = "N", value_parser = number::<u32>(1..=1 << 31))]
    scale: Option<u32>,

    /// Runs at a time, 1 to 1024 [default: one per core, fewer if memory does not suffice for all]
    #[arg(short, long, value_name = "N", value_parser = number::<u16>(1..=1024))]
    jobs: Option<u16>,

    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,

    /// Plot the miss ratio against memory, to a file that ends in .svg or .html
    #[arg(long, value_name = "FILE", value_parser = plot_file)]
    plot: Option<PathBuf>,
}

/// A trace and the plan of its runs.
struct Job {
    name: String,
    trace: Trace,
    plan: Plan,
}

/// Replays each file with each policy and amount of memory.
pub(super) fn run(options: Replay) -> Result<(), ConfigError> {
    let policies = options.policy.as_deref().unwrap_or(replay::POLICIES);
    // A quarter is left for the traces themselves and for other processes.
    let machine_bytes = sys::physical_memory_bytes().map_or(u64::MAX, |bytes| bytes / 4 * 3);
    let jobs = options.files.iter().map(|file| job(file, &options, policies, machine_bytes));
    let jobs = jobs.collect::<Result<Vec<_>, _>>()?;
    let outcomes = run_cells(&jobs, options.jobs, machine_bytes)?;

    let traces = jobs.iter().zip(&outcomes);
    let traces = traces.map(|(job, outcomes)| TraceReport::new(job.name.clone(), &job.trace, &job.plan, outcomes));
    let report = Report { count: options.count, traces: traces.collect() };
    if let Some(file) = &options.plot {
        let picture = if has_extension(file, "svg") { svg(&report) } else { html(&report) };
        std::fs::write(file, picture).map_err(|e| ConfigError(format!("--plot {}: {e}", file.display())))?;
    }
    print(&if options.json { report.json() + "\n" } else { report.table() })
}

/// Reads a trace and plans its cells.
fn job(file: &Path, options: &Replay, policies: &[Eviction], machine_bytes: u64) -> Result<Job, ConfigError> {
    let fail = |what: String| ConfigError(format!("{}: {what}", file.display()));
    let trace = replay::parse(&read(file).map_err(|e| fail(e.to_string()))?).map_err(|e| fail(e.to_string()))?;
    let plan = Plan::new(&trace, policies, &options.memory, options.count, options.scale, machine_bytes)
        .map_err(|refusal| fail(format!("--memory {refusal}")))?;
    match plan.left_out.as_slice() {
        [(_, first), ..] if plan.cells.is_empty() => return Err(fail(format!("--memory {first}"))),
        left_out => {
            for (_, refusal) in left_out {
                note(&format!("{}: left out: --memory {refusal}", file.display()));
            }
        }
    }
    if plan.scale > 1 {
        let what = "sizes, and amounts of memory in bytes, are divided by";
        note(&format!("{}: {what} {}; what the engine adds per item is not", file.display(), plan.scale));
    }
    Ok(Job { name: name(file), trace, plan })
}

/// Reads a file, but at most one byte more than a trace may have.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(TRACE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file's name without the extensions that name its format.
fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    name.strip_suffix(".ctr").or_else(|| name.strip_suffix(".csv")).unwrap_or(name).into()
}

/// Runs all cells, several at a time, each on its own engine. The outcomes are in the order of jobs and cells.
fn run_cells(jobs: &[Job], threads: Option<u16>, machine_bytes: u64) -> Result<Vec<Vec<Outcome>>, ConfigError> {
    let cells: Vec<(&Job, &Cell)> = jobs.iter().flat_map(|job| job.plan.cells.iter().map(move |c| (job, c))).collect();
    let largest = cells.iter().map(|(_, cell)| cell.memory_bytes()).max().unwrap_or(1);
    let fitting = usize::try_from(machine_bytes / largest.max(1)).unwrap_or(usize::MAX);
    let wanted = threads.map_or_else(|| sys::allowed_cores().len(), usize::from);
    let threads = wanted.min(fitting).min(cells.len()).max(1);

    let bar = progress_bar(cells.iter().map(|(job, _)| job.trace.len() as u64).sum());
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(cells.iter().map(|_| None).collect::<Vec<_>>()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, (job, cell))) = take(&next, &cells) {
                    let outcome = replay::run(&job.trace, &job.plan, cell, &mut |requests| bar.inc(requests));
                    outcomes.lock().expect("no panic")[i] = Some(outcome.map_err(|e| no_memory(job, cell, &e)));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut outcomes = outcomes.into_inner().expect("no panic").into_iter().map(|o| o.expect("all cells were run"));
    jobs.iter().map(|job| outcomes.by_ref().take(job.plan.cells.len()).collect()).collect()
}

/// Claims the next cell.
fn take<T: Copy>(next: &AtomicUsize, cells: &[T]) -> Option<(usize, T)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    cells.get(i).map(|&cell| (i, cell))
}

fn no_memory(job: &Job, cell: &Cell, error: &io::Error) -> ConfigError {
    ConfigError(format!("{}: --memory {}: {} MiB: {error}", job.name, cell.amount, cell.memory_bytes() >> 20))
}

/// A progress bar if standard error is a terminal; otherwise hidden.
fn progress_bar(requests: u64) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {percent}% of {human_len} requests, {eta} left");
    ProgressBar::with_draw_target(Some(requests), target).with_style(style.expect("the template is right"))
}

fn note(line: &str) {
    super::report(line);
}

/// Writes to standard output. A closed pipe is not an error.
fn print(text: &str) -> Result<(), ConfigError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(ConfigError(format!("standard output: {e}"))),
        _ => Ok(()),
    }
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn plot_file(text: &str) -> Result<PathBuf, String> {
    let file = PathBuf::from(text);
    let known = has_extension(&file, "svg") || has_extension(&file, "html");
    if known { Ok(file) } else { Err("allowed: a file that ends in .svg or .html".into()) }
}
