//! Who votes: a few of the members, over zones, and as long as they can be the same; the others learn.
//!
//! Three vote, five where nine members are up (until fewer than seven are, so that one which comes and goes moves nothing), and
//! always an odd number: a fourth voter would tolerate no more failures than three do. Those that are up come first, of these
//! the zones that have no voter yet, of these the leader and the present voters. A voter that is down stays until there is
//! another for its place: with fewer voters, the loss of one more could be for good.

use super::events::Fault;
use super::storage::Configuration;
use crate::cluster::map::{Map, MemberState, State};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};
use std::collections::{BTreeMap, BTreeSet};

/// Voters of a small cluster, and of a large one.
const VOTERS_FEW: usize = 3;
const VOTERS_MANY: usize = 5;
/// Members that are up from which on there are many voters, and down to which there stay as many.
const LARGE_FROM: usize = 9;
const LARGE_UNTIL: usize = 7;

/// What the leader does to come nearer to the voters that it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Changes the configuration, in one entry.
    Change(Vec<(ConfChangeType, u64)>),
    /// Has another be the leader, because it is itself to lose its vote.
    Transfer(u64),
}

/// The members that are to vote, by their identities in Raft.
pub(super) fn wanted(map: &Map, current: &Configuration, leader: u64) -> BTreeSet<u64> {
    let votes = |member: &MemberState| current.voters.contains(&member.raft);
    let up = map.members().filter(|member| member.state == State::Up).count();
    let is_large = up >= LARGE_FROM || (current.voters.len() > VOTERS_FEW && up >= LARGE_UNTIL);
    let mut candidates: Vec<&MemberState> =
        map.members().filter(|member| member.state == State::Up || votes(member)).collect();
    let count = candidates.len().min(if is_large { VOTERS_MANY } else { VOTERS_FEW });
    let count = if count % 2 == 0 { count.saturating_sub(1) } else { count };

    let mut chosen = BTreeSet::new();
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..count {
        let rank = |member: &&MemberState| {
            let state = match member.state {
                State::Up => 0,
                State::Leaving => 1,
                State::Down => 2,
            };
            let zone = in_zone.get(&member.member.zone[..]).copied().unwrap_or(0);
            (state, zone, member.raft != leader, !votes(member), member.member.id)
        };
        let Some(best) = candidates.iter().copied().min_by_key(rank) else { break };
        candidates.retain(|member| member.raft != best.raft);
        *in_zone.entry(&best.member.zone).or_default() += 1;
        chosen.insert(best.raft);
    }
    chosen
}

/// The next step of the leader, if there is something to do. Nobody gets a vote who does not follow the log: `follows` tells.
/// A leader never takes its own vote, since Raft's crate cannot do without it.
pub(super) fn next_step(
    map: &Map,
    current: &Configuration,
    leader: u64,
    follows: impl Fn(u64) -> bool,
) -> Option<Step> {
    let mut target = wanted(map, current, leader);
    if !target.contains(&leader) {
        let heir = target.iter().copied().find(|&id| current.voters.contains(&id) && follows(id));
        if let Some(heir) = heir {
            return Some(Step::Transfer(heir));
        }
        target.insert(leader);
    }
    let members: BTreeSet<u64> = map.members().map(|member| member.raft).collect();
    let known = |id: &u64| current.voters.contains(id) || current.learners.contains(id);
    let mut changes = Vec::new();
    if target.iter().all(|&id| current.voters.contains(&id) || follows(id)) {
        let new = target.iter().filter(|id| !current.voters.contains(id));
        changes.extend(new.map(|&id| (ConfChangeType::AddNode, id)));
        for &id in current.voters.iter().filter(|id| !target.contains(id)) {
            let stays = members.contains(&id);
            let change = if stays { ConfChangeType::AddLearnerNode } else { ConfChangeType::RemoveNode };
            changes.push((change, id));
        }
    }
    let new = members.iter().filter(|id| !known(id));
    changes.extend(new.map(|&id| (ConfChangeType::AddLearnerNode, id)));
    let gone = current.learners.iter().filter(|id| !members.contains(id));
    changes.extend(gone.map(|&id| (ConfChangeType::RemoveNode, id)));
    (!changes.is_empty()).then_some(Step::Change(changes))
}

/// Changes of the configuration in our form: what is done, and with whom.
pub(super) fn encode_changes(changes: &[(ConfChangeType, u64)]) -> Vec<u8> {
    let numbers: Vec<(u8, u64)> = changes.iter().map(|&(change, id)| (change as u8, id)).collect();
    postcard::to_allocvec(&numbers).expect("postcard encodes numbers")
}

/// The same read. Nothing at all is what Raft writes to leave a joint configuration.
pub(super) fn decode_changes(context: &[u8]) -> Result<Vec<(ConfChangeType, u64)>, Fault> {
    if context.is_empty() {
        return Ok(Vec::new());
    }
    let types = [ConfChangeType::AddNode, ConfChangeType::RemoveNode, ConfChangeType::AddLearnerNode];
    let numbers: Vec<(u8, u64)> = postcard::from_bytes(context).unwrap_or_default();
    let read = |(number, id)| types.into_iter().find(|&change| change as u8 == number).map(|change| (change, id));
    let changes: Option<Vec<_>> = numbers.into_iter().map(read).collect();
    changes.filter(|changes| !changes.is_empty()).ok_or(Fault::NotUnderstood("a change of the configuration"))
}

/// The same in Raft's form.
pub(super) fn configuration_change(changes: &[(ConfChangeType, u64)]) -> ConfChangeV2 {
    let single = |&(change, id): &(ConfChangeType, u64)| {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(change);
        single.node_id = id;
        single
    };
    let mut change = ConfChangeV2::default();
    change.set_changes(changes.iter().map(single).collect::<Vec<_>>().into());
    change
}
