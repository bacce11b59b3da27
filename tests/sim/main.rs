//! The cluster's state machines under a seeded simulator: networks that lose, delay, duplicate and reorder; partitions,
//! pauses, crashes that lose memory, torn disks, drifting clocks, slow or full hosts; and clients of each consistency
//! level, whose histories are checked.
//!
//! ```text
//! scripts/sim --seeds 1000           runs seeds 0 to 999
//! scripts/sim --seconds 240          as many fresh seeds as fit
//! scripts/sim --seed 17 --trace      one seed, with a trace of all events
//! scripts/sim --without Grace        breaks a rule, until some seed fails
//! scripts/sim --scenes 100           larger clusters: failover, removals, movement
//! ```

mod check;
mod client;
mod faults;
mod random;
mod scenes;
mod store;
mod world;

use clap::Parser;
use pinion::replication::Rule;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use world::{Counts, Event, MS, Options, SECOND, Us, World};

/// How long a cluster may take to form, and to converge once everything is repaired.
const START_MAX: Us = 20 * SECOND;
const REST_MAX: Us = 40 * SECOND;

#[derive(Parser, Debug)]
struct Arguments {
    /// Runs one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Traces all events.
    #[arg(long)]
    trace: bool,
    /// Runs that many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Runs seeds for that many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed (default: 0; with --seconds, derived from the time of day).
    #[arg(long)]
    from: Option<u64>,
    /// Breaks a rule: some seed must fail then.
    #[arg(long, value_parser = rule)]
    without: Option<Rule>,
    /// Milliseconds of faults per run.
    #[arg(long, default_value_t = 8_000)]
    length_ms: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Plays the scenes of larger clusters, with that many deaths of primaries each, and reports.
    #[arg(long)]
    scenes: Option<usize>,
    /// Simulated minutes of loss or pauses in which no node may be declared down, in the scenes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Plays only the scenes of clusters of that many hosts.
    #[arg(long)]
    hosts: Option<usize>,
}

fn rule(name: &str) -> Result<Rule, String> {
    let found = Rule::ALL.into_iter().find(|rule| format!("{rule:?}").eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("no such rule; there are {:?}", Rule::ALL))
}

/// The result of a seed.
struct SeedResult {
    counts: Counts,
    violations: Vec<String>,
}

/// Runs one seed.
fn run(seed: u64, arguments: &Arguments) -> SeedResult {
    pinion::cluster::map::COMPARES.set(arguments.without != Some(Rule::CompareAndSet));
    let mut draw = random::Random::new(seed);
    let options = Options {
        seed,
        hosts: draw.between(3, 5) as usize,
        broken: arguments.without,
        trace: arguments.trace,
        loss_permille: *draw.pick(&[0, 0, 5, 20, 50]),
        drift_permille: draw.below(40),
        skew_ms: draw.below(120),
        replicas: 3,
        groups: client::groups(),
        zones: draw.between(1, 3) as usize,
    };
    let mut world = World::new(options);
    let mut clients = client::all(seed);
    while check::divergence(&world).is_some() || world.hosts.iter().any(|host| host.node.is_none()) {
        let until = world.now + 100 * MS;
        advance(&mut world, &mut clients, until);
        if world.now > START_MAX {
            let divergence = check::divergence(&world);
            world.violation(format!("the cluster does not form: {divergence:?}"));
            break;
        }
    }
    world.counts = Counts { events: world.counts.events, ..Counts::default() };
    for client in 0..clients.len() {
        let start = world.random.below(60 * MS);
        world.after(start, Event::Client { client, what: client::Wake::Next });
    }
    faults::plan_next(&mut world);
    let until = world.now + arguments.length_ms * MS;
    advance(&mut world, &mut clients, until);
    heal(&mut world, &mut clients);
    for key in world.history.not_linearizable() {
        if arguments.trace {
            world.history.print(&key);
        }
        world.violation(format!("{} is not linearizable", String::from_utf8_lossy(&key)));
    }
    SeedResult { counts: world.counts, violations: world.violations }
}

/// Repairs everything, stops the clients, and checks that the cluster converges.
fn heal(world: &mut World, clients: &mut [client::Client]) {
    world.options.loss_permille = 0;
    world.is_healing = true;
    faults::heal(world);
    let half = world.now + 1500 * MS;
    advance(world, clients, half);
    clients.iter_mut().for_each(|client| client.stops = true);
    // Requests without an answer time out.
    let drained = world.now + 6 * SECOND;
    advance(world, clients, drained);
    let deadline = world.now + REST_MAX;
    while let Some(divergence) = check::divergence(world) {
        if world.now > deadline || !world.violations.is_empty() {
            world.trace_hosts();
            return world.violation(format!("the cluster does not converge: {divergence}"));
        }
        let until = world.now + 200 * MS;
        advance(world, clients, until);
    }
}

fn advance(world: &mut World, clients: &mut [client::Client], until: Us) {
    while let Some(event) = world.next_event(until) {
        handle(world, clients, event);
        if !world.violations.is_empty() {
            return;
        }
    }
}

fn handle(world: &mut World, clients: &mut [client::Client], event: Event) {
    let host = match &event {
        Event::Frame { to, .. } => Some(*to),
        Event::Tick { host, .. } | Event::Request { host, .. } => Some(*host),
        _ => None,
    };
    if let Some(host) = host
        && world.hosts[host].paused_until > world.now
    {
        // A paused host handles its events, in order, when it resumes.
        let until = world.hosts[host].paused_until;
        return world.at(until, event);
    }
    match event {
        Event::Frame { from, to, bytes } => {
            let from = world.hosts[from].id;
            world.step(to, pinion::node::Event::Frame { from, bytes: &bytes });
        }
        Event::Tick { host, incarnation } => world.tick(host, incarnation),
        Event::Start { host, loses_disk } => world.start(host, loses_disk),
        Event::Client { client, what } => client::wake(world, clients, client, what),
        Event::Request { host, request } => client::execute(world, host, request),
        Event::Repair(repair) => faults::repair(world, repair),
        Event::Fault => {
            if !world.is_healing {
                faults::inject(world);
                faults::plan_next(world);
            }
        }
    }
}

fn command(seed: u64, arguments: &Arguments) -> String {
    let without = arguments.without.map_or(String::new(), |rule| format!(" --without {rule:?}"));
    format!("scripts/sim --seed {seed} --trace{without}")
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(kills) = arguments.scenes {
        scenes::report(kills, arguments.minutes, arguments.hosts, arguments.trace);
    }
    if let Some(seed) = arguments.seed {
        let SeedResult { counts, violations } = run(seed, &arguments);
        println!("{counts:?}");
        violations.iter().for_each(|violation| println!("{violation}"));
        std::process::exit(i32::from(!violations.is_empty()));
    }
    let from = arguments.from.unwrap_or_else(|| match arguments.seconds {
        Some(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
        None => 0,
    });
    let seeds = arguments.seeds.unwrap_or(if arguments.seconds.is_some() { u64::MAX / 2 } else { 200 });
    let deadline = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (next, stops, sum) =
        (AtomicU64::new(0), AtomicBool::new(false), Mutex::new((0, Counts::default(), Vec::new())));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = deadline.is_some_and(|deadline| Instant::now() > deadline);
                    if number >= seeds || is_late || stops.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = from + number;
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, &arguments)));
                    let result = result.unwrap_or_else(|_| SeedResult {
                        counts: Counts::default(),
                        violations: vec!["it panicked".to_string()],
                    });
                    let mut sum = sum.lock().expect("no thread panics while it holds the lock");
                    sum.0 += 1;
                    sum.1.add(&result.counts);
                    if !result.violations.is_empty() {
                        sum.2.push((seed, result.violations));
                        stops.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (count, counts, failed) = sum.into_inner().expect("no thread panicked while it held the lock");
    let per_second = count as f64 / started.elapsed().as_secs_f64();
    println!("{count} seeds from {from}, {per_second:.1} a second; on average {}", counts.averages(count));
    for (seed, violations) in &failed {
        violations.iter().for_each(|violation| println!("seed {seed}: {violation}"));
        println!("  {}", command(*seed, &arguments));
    }
    let is_right = failed.is_empty() == arguments.without.is_none();
    std::process::exit(i32::from(!is_right));
}
