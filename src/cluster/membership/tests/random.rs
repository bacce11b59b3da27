//! Random faults and the invariants under them: `net.rs` checks fencing at each decision, no node that could always be
//! heard is declared down, and once all faults are repaired no fence is left.

use super::net::*;
use crate::cluster::membership::{Action, Leader};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Fault {
    Cut(usize, usize),
    Isolate(usize),
    Pause(usize, u64),
    Kill(usize),
    Elect(usize),
    Heal,
    Run(u64),
}

fn faults(nodes: usize) -> impl Strategy<Value = Vec<Fault>> {
    let node = move || 0..nodes;
    let fault = prop_oneof![
        2 => (node(), node()).prop_map(|(from, to)| Fault::Cut(from, to)),
        1 => node().prop_map(Fault::Isolate),
        2 => (node(), 100..2000_u64).prop_map(|(host, pause_ms)| Fault::Pause(host, pause_ms)),
        1 => node().prop_map(Fault::Kill),
        1 => node().prop_map(Fault::Elect),
        2 => Just(Fault::Heal),
        6 => (10..1500_u64).prop_map(Fault::Run),
    ];
    prop::collection::vec(fault, 1..30)
}

/// Runs faults; returns the hosts that were affected.
fn suffer(net: &mut Net, faults: &[Fault]) -> BTreeSet<usize> {
    let mut touched = BTreeSet::new();
    for fault in faults {
        match *fault {
            Fault::Cut(from, to) if from != to => {
                net.cut(from, to);
                touched.extend([from, to]);
            }
            Fault::Isolate(host) => {
                let others: Vec<usize> = (0..net.hosts.len()).filter(|&other| other != host).collect();
                others.into_iter().for_each(|other| net.cut_both(host, other));
                touched.insert(host);
            }
            Fault::Pause(host, pause_ms) => {
                net.pause(host, pause_ms);
                touched.insert(host);
            }
            Fault::Kill(host) if net.hosts.iter().filter(|host| host.is_running).count() > 3 => {
                net.kill(host);
                touched.insert(host);
            }
            Fault::Elect(host) => {
                net.resolve_proposals();
                if net.may_lead(host) {
                    net.elect(host);
                }
            }
            Fault::Heal => net.cuts.clear(),
            Fault::Run(time_ms) => net.run_ms(time_ms),
            _ => {}
        }
    }
    touched
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn random_faults_keep_the_invariants(nodes in 3..8_usize, seed: u64, is_raft_slow: bool, faults in faults(8)) {
        let mut net = Net::cluster(nodes as u64, seed);
        net.loss = 0.02;
        if is_raft_slow {
            net.commit_ms = 1200;
        }
        let valid = |fault: &Fault| match *fault {
            Fault::Cut(one, other) => one < nodes && other < nodes,
            Fault::Isolate(host) | Fault::Pause(host, _) | Fault::Kill(host) | Fault::Elect(host) => host < nodes,
            Fault::Heal | Fault::Run(_) => true,
        };
        let faults: Vec<Fault> = faults.into_iter().filter(valid).collect();
        let touched = suffer(&mut net, &faults);
        // Hosts that no fault touched hear each other; if they are a majority, none of them can be outvoted.
        let untouched: Vec<usize> = (0..nodes).filter(|host| !touched.contains(host)).collect();
        if untouched.len() * 2 > nodes {
            prop_assert!(net.downs.iter().all(|(_, about)| touched.contains(&(about.node.0 as usize))), "{:?}", net.downs);
        }

        net.cuts.clear();
        net.resolve_proposals();
        if let Some(host) = (0..nodes).find(|&host| net.may_lead(host)) {
            net.elect(host);
            net.run_ms(12_000);
            for host in (0..nodes).filter(|&host| net.is_member(host)) {
                let left = (0..nodes).filter(|&other| other != host && net.is_fenced(host, id(other as u64)));
                prop_assert_eq!(left.collect::<Vec<_>>(), Vec::<usize>::new(), "fencing of {}", host);
            }
            let dead = (0..nodes).filter(|&host| !net.hosts[host].is_running);
            for host in dead {
                prop_assert!(!net.map.is_alive(id(host as u64)), "{} is dead", host);
            }
        }
    }
}

/// Of `members`, how many are witnesses that are cut off from one; and the number of its others. Node 0 leads.
fn naive_votes(
    members: &BTreeSet<usize>,
    about: usize,
    hear_each_other: impl Fn(usize, usize) -> bool,
) -> (usize, usize) {
    let others = members.iter().copied().filter(|&other| other != about);
    let witnesses = others.clone().filter(|&other| other == 0 || hear_each_other(0, other));
    (witnesses.filter(|&witness| !hear_each_other(witness, about)).count(), others.count())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Cuts links all at once, one or both ways: the members proposed to be down, in order, are those that the table in
    /// `arbiter.rs` gives, computed from the cuts.
    #[test]
    fn decisions_follow_the_table(
        nodes in 2..9_usize,
        seed: u64,
        cuts in prop::collection::btree_set((0..9_usize, 0..9_usize), 0..40),
    ) {
        let mut net = Net::cluster(nodes as u64, seed);
        net.checks_quorum = false;
        cuts.iter().filter(|(from, to)| from != to).for_each(|&(from, to)| net.cut(from, to));
        net.run_ms(3000);
        let hear_each_other = |one, other| !net.cuts.contains(&(one, other)) && !net.cuts.contains(&(other, one));
        let is_down = |members: &BTreeSet<usize>, about| {
            let (votes, others) = naive_votes(members, about, hear_each_other);
            votes * 2 > others
        };
        let mut members: BTreeSet<usize> = (0..nodes).collect();
        for about in net.proposed_down() {
            let about = about.node.0 as usize;
            prop_assert!(about != 0 && is_down(&members, about), "{} is down, of {:?}", about, members);
            members.remove(&about);
        }
        for &about in members.iter().filter(|&&about| about != 0) {
            prop_assert!(!is_down(&members, about), "{} stays, of {:?}", about, members);
        }
    }
}

/// Two runs with one seed are equal.
#[test]
fn a_seed_is_a_run() {
    let run = || -> (Vec<(u64, usize, Action)>, Option<Leader>) {
        let mut net = Net::cluster(5, 77);
        net.loss = 0.1;
        let faults =
            [Fault::Run(500), Fault::Isolate(3), Fault::Run(900), Fault::Heal, Fault::Kill(4), Fault::Run(4000)];
        suffer(&mut net, &faults);
        (net.news, net.leader)
    };
    assert_eq!(run(), run());
}
