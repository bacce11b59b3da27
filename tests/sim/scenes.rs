//! Scenes of larger clusters: how long writes stop when a primary dies, whether live nodes are declared down, and how
//! much data moves when nodes come and go.

use crate::client::{self, Op, Outcome, Request, Wake};
use crate::world::{Event, MS, Options, SECOND, Us, World};
use crate::{check, handle};
use pinion::replication::{Key, Level};
use pinion::slots::Group;
use std::collections::BTreeSet;

/// The parameters of a scene.
pub struct Stage {
    pub seed: u64,
    pub hosts: usize,
    pub loss_permille: u64,
    pub groups: usize,
    pub zones: usize,
    pub trace: bool,
}

/// Interval at which the probe tries to write.
const PROBE_US: Us = 2 * MS;
const REST_MAX: Us = 120 * SECOND;

/// One key in each of `groups` groups.
fn keys(groups: usize) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut seen = BTreeSet::new();
    for number in 0.. {
        let key = Key::from(format!("{{t{number}}}").as_bytes());
        if seen.insert(Group::of(&key)) {
            keys.push(key);
        }
        if keys.len() == groups {
            break;
        }
    }
    keys
}

fn world(stage: &Stage) -> World {
    let groups = keys(stage.groups).iter().map(|key| Group::of(key)).collect();
    World::new(Options {
        seed: stage.seed,
        hosts: stage.hosts,
        broken: None,
        trace: stage.trace,
        loss_permille: stage.loss_permille,
        drift_permille: 10,
        skew_ms: 50,
        replicas: 3,
        groups,
        zones: stage.zones,
    })
}

fn run_until(world: &mut World, until: Us) {
    while let Some(event) = world.next_event(until) {
        // A late answer to the probe is ignored.
        if !matches!(event, Event::Client { .. }) {
            handle(world, &mut [], event);
        }
    }
}

/// Runs until the cluster of `hosts` live hosts has converged. Returns how long that took.
fn rest(world: &mut World, hosts: usize) -> Us {
    let started = world.now;
    loop {
        let up = (0..world.hosts.len()).filter(|&host| world.is_up(host)).count();
        if up == hosts && check::divergence(world).is_none() && members(world) == hosts {
            return world.now - started;
        }
        assert!(world.now < started + REST_MAX, "the cluster does not converge: {:?}", check::divergence(world));
        let until = world.now + 50 * MS;
        run_until(world, until);
    }
}

/// The number of live members in the map.
fn members(world: &World) -> usize {
    let node = world.hosts.iter().find_map(|host| host.node.as_ref());
    let map = node.map(|node| node.map());
    map.map_or(0, |map| map.members().filter(|member| map.is_live(member.identity())).count())
}

/// Kills primaries; returns, for each, the milliseconds until a strong write of its group is acknowledged again.
pub fn failovers(stage: &Stage, kills: usize) -> Vec<u64> {
    let mut world = world(stage);
    rest(&mut world, stage.hosts);
    let keys = keys(stage.groups);
    let mut times = Vec::new();
    for number in 0..kills {
        let key = keys[world.random.below(keys.len() as u64) as usize].clone();
        let group = Group::of(&key);
        let leads = |host: &usize| {
            let node = world.hosts[*host].node.as_ref();
            node.is_some_and(|node| node.replication().leads_in(group).is_some())
        };
        let victim = (0..world.hosts.len()).find(leads).expect("a group at rest has a primary");
        let wait = world.random.below(300 * MS);
        let until = world.now + wait;
        run_until(&mut world, until);
        world.kill(victim, None);
        times.push(until_written(&mut world, &key, number as u64 + 1) / MS);
        world.after(SECOND, Event::Start { host: victim, loses_disk: false });
        let until = world.now + 2 * SECOND;
        run_until(&mut world, until);
        rest(&mut world, stage.hosts);
    }
    assert!(world.violations.is_empty(), "{:?}", world.violations);
    times
}

/// Tries to write until a write is acknowledged. Returns how long that took.
fn until_written(world: &mut World, key: &Key, number: u64) -> Us {
    let started = world.now;
    for attempt in 0.. {
        assert!(world.now < started + REST_MAX, "no host admits writes");
        for host in 0..world.hosts.len() {
            let (id, op) = (number << 32 | attempt, Op::Put { value: number as u32, ttl_ms: None });
            let request = Request { client: 0, id, key: key.clone(), op, level: Level::Strong, token: None };
            client::execute(world, host, request);
        }
        let until = world.now + PROBE_US;
        while let Some(event) = world.next_event(until) {
            match event {
                Event::Client { what: Wake::Reply(reply), .. } => {
                    if reply.outcome == Outcome::Done(true) && reply.id >> 32 == number {
                        return world.now - started;
                    }
                }
                event => handle(world, &mut [], event),
            }
        }
    }
    unreachable!("attempts have no end")
}

/// How many live nodes were declared down in `minutes` of message loss, or of pauses of 400 ms.
pub fn false_removals(stage: &Stage, minutes: u64, pauses: bool) -> usize {
    let mut world = world(stage);
    rest(&mut world, stage.hosts);
    let restarts = world.counts.restarts;
    let end = world.now + minutes * 60 * SECOND;
    while world.now < end {
        let until = world.now + SECOND + world.random.below(2 * SECOND);
        run_until(&mut world, until);
        if pauses {
            let host = world.random.below(stage.hosts as u64) as usize;
            world.hosts[host].paused_until = world.now + 400 * MS;
        }
    }
    // An expelled node restarts.
    (world.counts.restarts - restarts) as usize
}

/// What moved and what had to: copies created, and copies that were missing or are the newcomer's share.
#[derive(Debug)]
pub struct Movement {
    pub moved: usize,
    pub ideal: f64,
    pub rest_ms: u64,
}

/// The movement is over once the holders have not changed for so long.
const STILL_US: Us = 5_000 * MS;

/// What happens to the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Upheaval {
    Join,
    Leave,
    ZoneLoss,
}

/// The holders of each group.
fn holders(world: &World) -> BTreeSet<(usize, u64)> {
    let node = world.hosts.iter().find_map(|host| host.node.as_ref()).expect("somebody is up");
    let groups = world.options.groups.iter();
    let holders = groups
        .flat_map(|&group| node.map().assignment(group).holders().map(move |holder| (group.index(), holder.node.0)));
    holders.collect()
}

/// Plays a scene with a value in each group, and checks that all values survive.
pub fn movement(stage: &Stage, upheaval: Upheaval) -> Movement {
    let mut world = world(stage);
    let newcomer = stage.hosts - 1;
    if matches!(upheaval, Upheaval::Join) {
        world.absent.insert(newcomer);
        rest(&mut world, stage.hosts - 1);
    } else {
        rest(&mut world, stage.hosts);
    }
    let keys = keys(stage.groups);
    for (number, key) in keys.iter().enumerate() {
        until_written(&mut world, key, number as u64 + 1);
    }
    let before = holders(&world);
    let started = world.now;
    let gone: Vec<usize> = match upheaval {
        Upheaval::Join => {
            world.absent.clear();
            world.start(newcomer, false);
            Vec::new()
        }
        Upheaval::Leave => {
            world.step(newcomer, pinion::node::Event::Leave);
            vec![newcomer]
        }
        Upheaval::ZoneLoss => (0..stage.hosts).filter(|host| host % stage.zones == 0).collect(),
    };
    if matches!(upheaval, Upheaval::ZoneLoss) {
        gone.iter().for_each(|&host| world.kill(host, None));
    }
    let left = stage.hosts - gone.len();
    if matches!(upheaval, Upheaval::Leave) {
        while members(&world) > left {
            assert!(world.now < started + REST_MAX, "it does not get away");
            let until = world.now + 50 * MS;
            run_until(&mut world, until);
        }
        world.kill(newcomer, None);
    }
    rest(&mut world, left);
    let (mut rested, mut after) = (world.now, holders(&world));
    // The cluster has converged, too, before the mover begins and between its steps.
    while world.now < rested + STILL_US {
        assert!(world.now < started + REST_MAX, "it moves without end");
        let until = world.now + 50 * MS;
        run_until(&mut world, until);
        rest(&mut world, left);
        let now = holders(&world);
        if now != after {
            (rested, after) = (world.now, now);
        }
    }
    let rest_ms = (rested - started) / MS;
    for (number, key) in keys.iter().enumerate() {
        let group = Group::of(key);
        let value = (number as u32 + 1).to_le_bytes();
        let holders = world
            .hosts
            .iter()
            .filter(|host| host.node.is_some() && host.store.item(group, key).is_some_and(|item| item.value == value));
        assert_eq!(holders.count(), 3, "copies of {}", String::from_utf8_lossy(key));
    }
    assert!(world.violations.is_empty(), "{:?}", world.violations);
    let missing = before.iter().filter(|(_, node)| gone.contains(&(*node as usize - 1))).count();
    let ideal = match upheaval {
        Upheaval::Join => before.len() as f64 / stage.hosts as f64,
        Upheaval::Leave | Upheaval::ZoneLoss => missing as f64,
    };
    Movement { moved: after.difference(&before).count(), ideal, rest_ms }
}

/// Plays all scenes and reports. Exits with 1 if a limit is missed.
pub fn report(kills: usize, minutes: u64, only: Option<usize>, trace: bool) {
    let mut missed = 0;
    let mut judge = |line: String, holds: bool| {
        println!("{line}{}", if holds { "" } else { "   MISSED" });
        missed += i32::from(!holds);
    };
    for hosts in [3, 8, 24].into_iter().filter(|&hosts| only.is_none_or(|only| only == hosts)) {
        for loss_permille in [0, 50] {
            // Several worlds, so that kills differ in clocks and maps.
            let mut times = Vec::new();
            let worlds = kills.div_ceil(20);
            for seed in 0..worlds as u64 {
                let stage = Stage { seed: seed + 1, hosts, loss_permille, groups: 4 * hosts, zones: 3, trace };
                times.extend(failovers(&stage, kills / worlds));
            }
            times.sort_unstable();
            let quantile = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
            let (p50, p99) = (quantile(50), quantile(99));
            let line = format!(
                "failover, {hosts} nodes, {} % loss: p50 {p50} ms, p99 {p99} ms, longest {} ms, of {}",
                loss_permille / 10,
                times[times.len() - 1],
                times.len()
            );
            judge(line, p50 <= 1000 && p99 <= 2000);
        }
        for (name, loss_permille, pauses) in [("5 % loss", 50, false), ("pauses of 400 ms", 0, true)] {
            let stage = Stage { seed: 7, hosts, loss_permille, groups: 2 * hosts, zones: 3, trace };
            let removed = false_removals(&stage, minutes, pauses);
            judge(format!("{hosts} nodes, {minutes} minutes of {name}: {removed} declared down"), removed == 0);
        }
    }
    for upheaval in [Upheaval::Join, Upheaval::Leave, Upheaval::ZoneLoss] {
        let hosts = 24 + usize::from(matches!(upheaval, Upheaval::Join));
        let stage = Stage { seed: 3, hosts, loss_permille: 0, groups: 768, zones: 4, trace };
        let Movement { moved, ideal, rest_ms } = movement(&stage, upheaval);
        let line =
            format!("{upheaval:?}, 24 nodes: {moved} copies made, ideal {ideal:.0}, converged after {rest_ms} ms");
        judge(line, moved as f64 <= 1.2 * ideal);
    }
    std::process::exit(missed.min(1));
}
