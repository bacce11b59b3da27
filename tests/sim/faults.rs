//! Faults and their repair.

use crate::random::Random;
use crate::world::{DiskFault, Event, MS, SECOND, Us, World};

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Repair {
    /// These links work again.
    Links(Vec<(usize, usize)>),
    /// A host is as fast as before.
    Speed(usize),
}

/// Mean time between faults.
const INTERVAL_US: Us = 450 * MS;

/// Schedules the next fault.
pub fn plan_next(world: &mut World) {
    let wait = INTERVAL_US / 4 + world.random.below(INTERVAL_US * 3 / 2);
    world.after(wait, Event::Fault);
}

/// Injects a fault.
pub fn inject(world: &mut World) {
    let victim = victim(world);
    world.counts.faults += 1;
    let is_out = |host: &usize| {
        let has_no_peer = world.hosts[*host].isolated_since.is_some();
        !world.is_up(*host) || world.hosts[*host].paused_until > world.now || has_no_peer
    };
    let out = (0..world.hosts.len()).filter(is_out).count();
    // With most hosts out nothing is served, which is correct but reveals little: allow it only rarely.
    let spares = out >= (world.hosts.len() - 1) / 2 && !world.random.permille(100);
    match world.random.below(100) {
        0..12 => slow_down(world, victim),
        12..22 => evict(world, victim),
        22..38 => cut_links(world, victim),
        _ if spares => nap(world, victim),
        38..65 => kill(world, victim),
        65..78 => pause(world, victim),
        78..92 => isolate(world, victim),
        _ => split(world),
    }
}

/// The host to be hit: often the primary of one of the groups.
fn victim(world: &mut World) -> usize {
    let group = *world.random.pick(&world.options.groups.clone());
    let leads = |host: &usize| {
        let node = world.hosts[*host].node.as_ref();
        node.is_some_and(|node| node.replication().leads_in(group).is_some())
    };
    let primary = (0..world.hosts.len()).find(leads);
    match primary {
        Some(primary) if world.random.permille(650) => primary,
        _ => world.random.below(world.hosts.len() as u64) as usize,
    }
}

fn kill(world: &mut World, host: usize) {
    if !world.is_up(host) {
        return;
    }
    // Losing most disks of Raft's voters would end the cluster for good, so at most one is lost in a run.
    let disk_fault = match world.random.below(10) {
        0 if world.counts.lost_disks == 0 => Some(DiskFault::Loses),
        1..3 => Some(DiskFault::Tears),
        _ => None,
    };
    world.kill(host, disk_fault);
    let down = if world.random.permille(300) { 20 * MS } else { 500 * MS + world.random.below(2 * SECOND) };
    world.after(down, Event::Start { host, loses_disk: false });
}

/// A pause that is too short to be declared down for.
fn nap(world: &mut World, host: usize) {
    let length = 20 * MS + world.random.below(380 * MS);
    pause_for(world, host, length);
}

fn pause(world: &mut World, host: usize) {
    let length = match world.random.below(2) {
        0 => 400 * MS + world.random.below(600 * MS),
        _ => SECOND + world.random.below(2 * SECOND),
    };
    pause_for(world, host, length);
}

fn pause_for(world: &mut World, host: usize, length: Us) {
    world.trace(|| format!("host {host} is paused for {} ms", length / MS));
    world.hosts[host].paused_until = world.now + length;
}

fn isolate(world: &mut World, host: usize) {
    let others = (0..world.hosts.len()).filter(|&other| other != host);
    let links = others.flat_map(|other| [(host, other), (other, host)]).collect();
    cut(world, links, "is isolated", host);
}

/// Cuts some links of a host, one or both ways.
fn cut_links(world: &mut World, host: usize) {
    let mut links = Vec::new();
    for other in (0..world.hosts.len()).filter(|&other| other != host) {
        let both = [(host, other), (other, host)];
        match world.random.below(4) {
            0 => links.push(both[0]),
            1 => links.push(both[1]),
            2 => links.extend(both),
            _ => {}
        }
    }
    cut(world, links, "loses links", host);
}

/// Splits the hosts into two sides that do not reach each other.
fn split(world: &mut World) {
    let count = world.hosts.len();
    let side: Vec<bool> = (0..count).map(|_| world.random.permille(500)).collect();
    let one_way = world.random.permille(300);
    let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    let links = pairs.filter(|&(from, to)| if one_way { side[from] && !side[to] } else { side[from] != side[to] });
    cut(world, links.collect(), "and others are split off", 0);
}

fn cut(world: &mut World, links: Vec<(usize, usize)>, what: &str, host: usize) {
    world.trace(|| format!("host {host} {what}: {links:?}"));
    links.iter().for_each(|&(from, to)| world.cut[from][to] = true);
    world.note_isolation();
    let length = match world.random.below(3) {
        0 => 100 * MS + world.random.below(500 * MS),
        1 => 600 * MS + world.random.below(SECOND),
        _ => 2 * SECOND + world.random.below(2 * SECOND),
    };
    world.after(length, Event::Repair(Repair::Links(links)));
}

fn slow_down(world: &mut World, host: usize) {
    world.hosts[host].slow_us = 2 * MS + world.random.below(100 * MS);
    world.trace(|| format!("host {host} is slow"));
    let length = 200 * MS + world.random.below(2 * SECOND);
    world.after(length, Event::Repair(Repair::Speed(host)));
}

/// A host's memory is full: it evicts a key of its own choice, as a replica may.
fn evict(world: &mut World, host: usize) {
    let mut random = Random::new(world.random.next());
    crate::client::evict(world, host, &mut random);
}

/// Repairs a fault.
pub fn repair(world: &mut World, repair: Repair) {
    world.trace(|| format!("repaired: {repair:?}"));
    match repair {
        Repair::Links(links) => {
            links.iter().for_each(|&(from, to)| world.cut[from][to] = false);
            world.note_isolation();
        }
        Repair::Speed(host) => world.hosts[host].slow_us = 0,
    }
}

/// Repairs everything.
pub fn heal(world: &mut World) {
    world.trace(|| "all is healed".to_string());
    world.cut.iter_mut().flatten().for_each(|cut| *cut = false);
    world.note_isolation();
    for host in 0..world.hosts.len() {
        world.hosts[host].slow_us = 0;
        world.hosts[host].paused_until = 0;
        if !world.is_up(host) {
            world.start(host, false);
        }
    }
}
