//! Frames that no peer sends which follows the protocol. (The simulator in `tests/sim` covers those that do.)

use super::*;
use crate::cluster::Member;
use crate::cluster::map::{Change, MemberState, Settings};

const NOW: Ms = 1_000_000;
/// `FETCHED_KEYS_MAX` values of that size do not fit a frame.
const LARGE_BYTES: usize = 512 << 10;

/// A map as the store of one group.
#[derive(Default)]
struct Items(BTreeMap<Key, Image>);

impl Store for Items {
    fn version(&self, _: Group, key: &[u8]) -> Option<Position> {
        self.0.get(key).map(|image| image.at)
    }

    fn image(&self, _: Group, key: &[u8]) -> Option<Image> {
        self.0.get(key).cloned()
    }

    fn images(&self, _: Group, _: u64, _: usize) -> (Vec<Image>, u64) {
        (self.0.values().cloned().collect(), 0)
    }

    fn put(&mut self, _: Group, image: Image) {
        self.0.insert(image.key.clone(), image);
    }

    fn apply(&mut self, group: Group, effect: &Effect, at: Position) {
        match effect.clone() {
            Effect::Put { key, value, expires } => self.put(group, Image { key, at, value, expires }),
            Effect::Remove { key } => self.remove(group, &key),
            Effect::Change { .. } => {}
        }
    }

    fn remove(&mut self, _: Group, key: &[u8]) {
        self.0.remove(key);
    }

    fn clear(&mut self, _: Group) {
        self.0.clear();
    }
}

fn node(number: u64) -> Identity {
    Identity { node: NodeId(number), incarnation: 1 }
}

fn at(epoch: u32, seq: Seq) -> Position {
    Position { epoch: Epoch(epoch), seq }
}

fn put(key: &[u8], bytes: usize) -> Effect {
    Effect::Put { key: key.into(), value: vec![b'v'; bytes].into(), expires: None }
}

/// Node 1 of a cluster of three that all hold one group.
struct Scene {
    map: Map,
    group: Group,
    replication: Replication,
    store: Items,
}

impl Scene {
    /// The group is in epoch 4; it was opened in epoch 1 at node 1.
    fn led_by(primary: u64) -> Self {
        let mut map = Map::empty();
        let member = |id| Member { id: NodeId(id), zone: String::new(), memory_bytes: 1 };
        let address = |id| format!("node-{id}");
        let first = MemberState { member: member(1), incarnation: 1, raft: 1, address: address(1), state: State::Up };
        let settings = Settings { replicas: 3, min_in_sync: 2 };
        map.apply(&Change::Bootstrap { cluster: 7, settings, first }).expect("it is empty");
        for id in [2, 3] {
            let join = Change::Join { member: member(id), incarnation: 1, raft: id, address: address(id) };
            map.apply(&join).expect("it is new");
        }
        let (replication, store) = (Replication::new(node(1), 1 << 10, Rules::default()), Items::default());
        let mut scene = Self { map, group: Group::numbered(5), replication, store };
        scene.assign(1, &[1], &[2, 3]);
        scene.assign(1, &[1, 2, 3], &[]);
        scene.assign(primary, &[1, 2, 3], &[]);
        scene
    }

    /// Decides who holds the group.
    fn assign(&mut self, primary: u64, in_sync: &[u64], learners: &[u64]) {
        let of = |numbers: &[u64]| numbers.iter().map(|&number| node(number)).collect();
        let expected = self.map.assignment(self.group).epoch;
        let (in_sync, learners) = (of(in_sync), of(learners));
        let change = GroupChange { group: self.group, expected, primary: node(primary), in_sync, learners };
        self.map.apply(&Change::Groups(vec![change])).expect("there is a cluster");
        assert_eq!(self.map.assignment(self.group).epoch, Epoch(expected.0 + 1));
        self.replication.map_changed(&self.map, [self.group], NOW, &mut self.store, &mut Vec::new());
    }

    /// The answers of the node to a message about the group.
    fn receive(&mut self, from: u64, epoch: u32, body: Body) -> Vec<Body> {
        let message = Message::Group { group: self.group.index() as u16, epoch: Epoch(epoch), body };
        let mut out = Vec::new();
        self.replication.receive(node(from), message, NOW, &mut self.store, &mut out);
        let body = |action| match action {
            Action::Send { message: Message::Group { body, .. }, .. } => Some(body),
            _ => None,
        };
        out.into_iter().filter_map(body).collect()
    }

    fn append(&mut self, from: u64, previous: Position, entries: &[Position], committed: Seq) -> Vec<Body> {
        let epoch = entries.last().map_or(previous.epoch, |at| at.epoch).0;
        let entries = entries.iter().map(|&at| Entry { at, effect: put(b"k", 1) }).collect();
        self.receive(from, epoch, Body::Append { previous, entries, committed, has_yielded: false })
    }

    /// Ticks until idle groups were ticked, too.
    fn tick(&mut self) {
        (0..IDLE_TICKS).for_each(|_| self.replication.tick(NOW, &mut self.store, &mut Vec::new()));
    }
}

/// A committed entry was truncated, and applying it found nothing.
#[test]
fn committed_entries_are_not_truncated() {
    let mut scene = Scene::led_by(2);
    let entries: Vec<_> = (1..=2_000).map(|seq| at(4, seq)).collect();
    let answer = scene.append(2, at(1, 0), &entries, 2_000);
    assert_eq!(answer, [Body::Acknowledge { matched: 2_000, committed: 2_000, snapshot: None }]);
    // About a thousand of them are applied by now.
    assert_eq!(scene.append(3, at(4, 1_500), &[at(5, 1_501)], 0), [Body::Mismatch { common: None }]);
    scene.tick();
    assert!(scene.store.0.is_empty());
}

/// The epoch of the last applied entry was dropped from the history, and its lookup failed.
#[test]
fn many_epochs_without_a_commit_are_survived() {
    let mut scene = Scene::led_by(2);
    let entries: Vec<_> = (1..=200).map(|seq| at(3 + seq as u32, seq)).collect();
    assert_eq!(
        scene.append(2, at(1, 0), &entries, 0),
        [Body::Acknowledge { matched: 200, committed: 0, snapshot: None }]
    );
    scene.tick();
    assert_eq!(
        scene.append(3, at(1, 0), &[at(300, 1)], 1),
        [Body::Acknowledge { matched: 1, committed: 1, snapshot: None }]
    );
    scene.tick();
    assert_eq!(scene.replication.next_position(scene.group), Some(at(300, 2)));
}

/// The log got entries of a later epoch than the node's, which then became primary and could not append to it.
#[test]
fn a_snapshot_of_a_later_epoch_than_its_frames_is_refused() {
    let mut scene = Scene::led_by(2);
    for history in [vec![(Epoch(9), 0)], vec![(Epoch(1), 4), (Epoch(2), 4)], Vec::new()] {
        assert!(scene.receive(2, 4, Body::SnapshotBegin { id: 1, history, base: 5 }).is_empty());
    }
    let begin = Body::SnapshotBegin { id: 1, history: vec![(Epoch(1), 0), (Epoch(4), 4)], base: 5 };
    assert_eq!(scene.receive(2, 4, begin), [Body::SnapshotAcknowledge { id: 1, next_chunk: 1 }]);
}

/// The position before the first entry underflowed.
#[test]
fn a_log_from_before_the_group_was_opened_is_lost() {
    let mut scene = Scene::led_by(1);
    assert!(scene.receive(2, 4, Body::Mismatch { common: Some(at(0, 9)) }).is_empty());
    scene.tick();
}

/// Sixty-four large values did not fit the largest frame.
#[test]
fn fetched_images_fit_a_frame() {
    let mut scene = Scene::led_by(1);
    scene.store.apply(scene.group, &put(b"k", LARGE_BYTES), at(4, 1));
    let answer = scene.receive(2, 4, Body::Fetch { keys: vec![b"k"[..].into(); FETCHED_KEYS_MAX] });
    let [Body::Images { images }] = &answer[..] else { panic!("{answer:?}") };
    assert_eq!(images.len(), 1, "the first is more than is sent at once");
}

/// A frame of an epoch that the map never had deposed a primary, which discarded its writes; then the map named it
/// primary again.
#[test]
fn a_primary_that_had_to_clear_its_data_opens_empty() {
    let mut scene = Scene::led_by(1);
    scene.replication.record(scene.group, put(b"k", 1));
    scene.store.apply(scene.group, &put(b"k", 1), at(4, 1));
    assert_eq!(scene.append(2, at(5, 7), &[], 0), [Body::Mismatch { common: None }]);
    assert_eq!(scene.replication.leads_in(scene.group), None);
    scene.assign(1, &[1, 2, 3], &[]);
    assert_eq!(scene.replication.leads_in(scene.group), Some(Epoch(5)));
    assert_eq!(scene.replication.next_position(scene.group), Some(at(5, 1)));
    assert!(scene.store.0.is_empty());
}

/// Every identity that a peer made up was remembered for ever.
#[test]
fn strangers_get_no_leases() {
    let mut scene = Scene::led_by(1);
    let mut answers = |from| {
        let mut out = Vec::new();
        let message = Message::LeaseRequest { sent_at: NOW };
        scene.replication.receive(from, message, NOW, &mut scene.store, &mut out);
        out.len()
    };
    assert_eq!(answers(node(2)), 1);
    assert_eq!(answers(node(4)), 0);
    assert_eq!(answers(Identity { node: NodeId(2), incarnation: 2 }), 0);
}
