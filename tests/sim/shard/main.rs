//! Shards under a seeded simulator: real engines and connections, a mesh with random delays, sockets that cut, delay
//! and stall, clients of both protocols that pipeline and vanish, memory that runs out, connections that move, stops in
//! the middle. Each reply is checked against a model, and in the end nothing may be left: no connection, reader, upload
//! or batch.
//!
//! ```text
//! scripts/sim shard --seeds 1000          runs seeds 0 to 999
//! scripts/sim shard --seconds 60          as many fresh seeds as fit
//! scripts/sim shard --seed 17             one seed
//! scripts/sim shard --fault LostReply     puts a fault in: some seed must notice it
//! scripts/sim shard --faults 2000         every fault, each to be found within 2,000 seeds
//! ```

mod client;
mod model;
#[path = "../random.rs"]
mod random;
mod reply;
mod world;

use clap::Parser;
use client::Client;
use pinion::eviction::Eviction;
use pinion::shard::faults::Fault;
use random::Random;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use world::{Setup, World};

/// Rounds after which a run that has not ended is stuck.
const ROUNDS_MAX: u64 = 60_000;

/// Rounds of more than a second, in a run.
const SLOW_ROUNDS_MAX: u64 = 15;

/// Rounds in which a client's bytes may lie in its socket while it reads its replies: more, and others starve it. More
/// are allowed where messages between shards are slow.
const WAIT_ROUNDS_MAX: u64 = 600;

#[derive(Parser, Debug)]
struct Arguments {
    /// Runs one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs so many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Runs seeds for so long.
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed (default: 0, or, with --seconds, of the time of day).
    #[arg(long)]
    from: Option<u64>,
    /// Puts a fault in: then some seed must fail.
    #[arg(long, value_parser = fault)]
    fault: Option<Fault>,
    /// Puts every fault in, one after the other, for so many seeds each at most.
    #[arg(long)]
    faults: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn fault(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("no such fault; there are {:?}", Fault::ALL))
}

/// Runs one seed: the number of replies checked, or what went wrong.
fn run(seed: u64) -> Result<u64, String> {
    let mut random = Random::new(seed);
    let is_tight = random.permille(250);
    // All clients send long values, all the time, and there are fewer buffers than clients.
    let is_greedy = !is_tight && random.permille(10);
    let mut setup = Setup {
        shards: random.between(1, 3) as usize,
        memory_mib: if is_tight { 4 } else { 16 },
        eviction: match is_tight {
            true => *random.pick(&[Eviction::None, Eviction::Lru, Eviction::S3Fifo]),
            false => Eviction::None,
        },
        mesh_delay_us: *random.pick(&[0, 50, 300, 5000]),
        elements_per_slice: *random.pick(&[1, 8, 1024]),
        stage_time: *random.pick(&[Some(Duration::ZERO), None]),
        batch: *random.pick(&[(4, 4 << 10), (1024, 256 << 10)]),
        buffers: *random.pick(&[2, 4, 64]),
        progress_permille: *random.pick(&[300, 900, 1000]),
    };
    if is_greedy {
        // Nothing but the buffers makes anybody wait.
        (setup.shards, setup.mesh_delay_us, setup.batch) = (1, 0, (1024, 256 << 10));
        (setup.buffers, setup.progress_permille, setup.memory_mib) = (2, 1000, 16);
    }
    let clients = if is_greedy { 8 } else { random.between(1, 8) as usize };
    let stops_at = if random.permille(150) { Some(random.below(300)) } else { None };
    let mut world = World::new(setup.clone(), Random::new(random.next()));
    let mut clients: Vec<Client> =
        (0..clients).map(|n| Client::new(n, setup.shards, is_tight, Random::new(random.next()))).collect();
    let mut slow_rounds = 0;
    if is_greedy {
        clients.iter_mut().for_each(Client::become_greedy);
    }
    // Where messages take long and batches are small, connections rightly wait for siblings; and for their own commands
    // where these take hundreds of slices.
    let in_slices = 1 + 8 / setup.elements_per_slice as u64;
    let in_batches = if setup.batch.0 < 16 { 4 } else { 1 };
    let wait_rounds_max = WAIT_ROUNDS_MAX * (1 + setup.mesh_delay_us / 50) * in_batches * in_slices;
    for round in 0..ROUNDS_MAX {
        // Ticks come, but no client becomes too slow for a long value.
        let is_slow = slow_rounds < SLOW_ROUNDS_MAX && random.permille(5);
        slow_rounds += u64::from(is_slow);
        world.advance(Duration::from_micros(if is_slow { 1_100_000 } else { random.below(200) }));
        if stops_at.is_some_and(|at| round >= at) && round % 8 == 0 {
            world.shared.stop();
            clients.iter_mut().for_each(|client| client.may_be_cut = true);
        }
        let first = random.below(setup.shards as u64) as usize;
        for shard in (0..setup.shards).map(|n| (n + first) % setup.shards) {
            if random.permille(850) {
                world.turn(shard);
            }
        }
        for client in &mut clients {
            if random.permille(700) {
                client.act(&mut world);
            }
            if let Some(violation) = client.violation.take() {
                return Err(violation);
            }
        }
        watch_progress(&mut clients, &world, wait_rounds_max)?;
        if clients.iter().all(|client| client.is_done) {
            let replies = clients.iter().map(|client| client.replied).sum();
            return wind_up(&mut world, &setup).map(|()| replies);
        }
    }
    let stuck: Vec<_> = clients.iter().filter(|client| !client.is_done).map(Client::describe).collect();
    let shards = world.shards.iter_mut().flatten().map(|shard| shard.describe().join("\n  "));
    let shards: Vec<_> = shards.collect();
    Err(format!("stuck: {}\n  {}", stuck.join("; "), shards.join("\n  ")))
}

/// No client's bytes may lie in its socket for long.
fn watch_progress(clients: &mut [Client], world: &World, wait_rounds_max: u64) -> Result<(), String> {
    for client in clients {
        let length = client.wire.map_or(0, |wire| world.network.borrow().wires[wire].to_shard.len());
        if length < client.last_length || length == 0 {
            client.waited = 0;
        }
        client.last_length = length;
        // While it reads no replies, it may be made to wait.
        client.waited += u64::from(client.is_waiting(world));
        if client.waited > wait_rounds_max {
            return Err(format!("starved: {}", client.describe()));
        }
    }
    Ok(())
}

/// All clients are gone: the shards must let go of everything, and then end.
fn wind_up(world: &mut World, setup: &Setup) -> Result<(), String> {
    let mut left = Vec::new();
    for _ in 0..4000 {
        world.advance(Duration::from_micros(400));
        (0..setup.shards).for_each(|shard| _ = world.turn(shard));
        left = world.shards.iter().flatten().flat_map(|shard| shard.leftovers()).collect();
        if left.is_empty() && world.mesh_is_empty() {
            break;
        }
    }
    if !left.is_empty() {
        return Err(format!("left when all clients were gone: {left:?}"));
    }
    let open: usize = world.network.borrow().wires.iter().filter(|wire| !wire.closed).count();
    if open > 0 {
        return Err(format!("{open} sockets were never closed"));
    }
    // A connection that was on its way to a shard that had ended is closed, and counts no more.
    let counted = if world.shared.is_stopping() { 0 } else { world.shared.connections_counted() };
    if counted > 0 {
        return Err(format!("{counted} connections are still counted"));
    }
    world.shared.stop();
    for _ in 0..200 {
        world.advance(Duration::from_millis(20));
        (0..setup.shards).for_each(|shard| _ = world.turn(shard));
        if world.shards.iter().all(Option::is_none) {
            return Ok(());
        }
    }
    Err("the shards do not end".into())
}

fn checked(seed: u64) -> Result<u64, String> {
    let result = std::panic::catch_unwind(|| run(seed));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("it panicked: {}", text.unwrap_or_default()))
    })
}

/// What came of many seeds.
struct Outcome {
    seeds: u64,
    replies: u64,
    failed: Option<(u64, String)>,
}

fn run_many(from: u64, seeds: u64, deadline: Option<Instant>, jobs: usize) -> Outcome {
    let (next, stops) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Outcome { seeds: 0, replies: 0, failed: None });
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = deadline.is_some_and(|deadline| Instant::now() > deadline);
                    if number >= seeds || is_late || stops.load(Ordering::Relaxed) {
                        return;
                    }
                    let result = checked(from + number);
                    let mut sum = sum.lock().expect("nobody panics with it");
                    sum.seeds += 1;
                    match result {
                        Ok(replies) => sum.replies += replies,
                        Err(violation) => {
                            stops.store(true, Ordering::Relaxed);
                            sum.failed.get_or_insert((from + number, violation));
                        }
                    }
                }
            });
        }
    });
    sum.into_inner().expect("nobody panicked with it")
}

/// Puts every fault in; each must be found.
fn find_faults(seeds: u64, jobs: usize) -> bool {
    std::panic::set_hook(Box::new(|_| {}));
    let mut all_found = true;
    for fault in Fault::ALL {
        pinion::shard::faults::put_in(Some(fault));
        let outcome = run_many(0, seeds, None, jobs);
        match outcome.failed {
            Some((seed, violation)) => {
                println!("{fault:?}: found after {} seeds, seed {seed}: {violation}", outcome.seeds)
            }
            None => {
                all_found = false;
                println!("{fault:?}: NOT FOUND in {seeds} seeds");
            }
        }
    }
    all_found
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(seeds) = arguments.faults {
        std::process::exit(i32::from(!find_faults(seeds, arguments.jobs)));
    }
    pinion::shard::faults::put_in(arguments.fault);
    if let Some(seed) = arguments.seed {
        let result = run(seed);
        println!("{result:?}");
        std::process::exit(i32::from(result.is_err()));
    }
    let from = arguments.from.unwrap_or_else(|| match arguments.seconds {
        Some(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
        None => 0,
    });
    let seeds = arguments.seeds.unwrap_or(if arguments.seconds.is_some() { u64::MAX / 2 } else { 500 });
    let started = Instant::now();
    let deadline = arguments.seconds.map(|seconds| started + Duration::from_secs(seconds));
    let outcome = run_many(from, seeds, deadline, arguments.jobs);
    let per_second = outcome.seeds as f64 / started.elapsed().as_secs_f64();
    println!("{} seeds from {from}, {per_second:.0} a second, {} replies checked", outcome.seeds, outcome.replies);
    if let Some((seed, violation)) = &outcome.failed {
        let fault = arguments.fault.map_or(String::new(), |fault| format!(" --fault {fault:?}"));
        println!("seed {seed}: {violation}\n  scripts/sim shard --seed {seed}{fault}");
    }
    std::process::exit(i32::from(outcome.failed.is_some() != arguments.fault.is_some()));
}
