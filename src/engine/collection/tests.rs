//! Collections against naive models in little memory, with both encodings, conversions, evacuation and eviction.

use super::*;
use crate::command::End;
use crate::engine::{Attributes, Engine, EngineConfig, Eviction, KEY_BYTES_MAX, KeyHash, KeyHasher};
use crate::slots::Group;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

const NOW: UnixMs = 1_700_000_000_000;
const MIB: u64 = 1 << 20;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(n)) >> 64) as u64
    }

    /// Strings that are usually short, and sometimes too long for an entry.
    fn bytes(&mut self, variety: u64) -> Vec<u8> {
        let n = self.below(variety);
        let length = match self.below(400) {
            0 => 5000,
            1..4 => 193 + n as usize % 100,
            4..80 => 60 + n as usize % 100,
            _ => 0,
        };
        let mut bytes = format!("element-{n}").into_bytes();
        bytes.resize(bytes.len().max(length), b'.');
        bytes
    }
}

fn engine(memory_bytes: u64, eviction: Eviction) -> Engine {
    let config = EngineConfig { memory_bytes, value_bytes_max: 1 << 20, eviction, user_bytes_max: None };
    Engine::new(config, KeyHasher::with_seed(7), NOW).expect("memory")
}

fn hash(key: &[u8]) -> KeyHash {
    KeyHasher::with_seed(7).hash(key)
}

#[derive(Clone, Debug)]
enum Model {
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, (Vec<u8>, Option<UnixMs>)>),
    Sorted(BTreeMap<Vec<u8>, f64>),
}

impl Model {
    fn new(n: u64) -> Self {
        match n % 4 {
            0 => Self::List(VecDeque::new()),
            1 => Self::Set(BTreeSet::new()),
            2 => Self::Hash(BTreeMap::new()),
            _ => Self::Sorted(BTreeMap::new()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Hash(hash) => hash.is_empty(),
            Self::Sorted(sorted) => sorted.is_empty(),
        }
    }
}

fn by_score(sorted: &BTreeMap<Vec<u8>, f64>) -> Vec<(f64, Vec<u8>)> {
    let mut all: Vec<_> = sorted.iter().map(|(member, &score)| (score, member.clone())).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    all
}

/// The value of a key in the engine, read completely.
fn contents(engine: &mut Engine, key: &[u8], model: &Model, now: UnixMs) -> Option<Model> {
    let hash = hash(key);
    match model {
        Model::List(_) => engine.as_list(hash, key, now).expect("a list").map(|list| {
            let forward: VecDeque<_> = list.forward_from(0).map(|b| b.into_owned()).collect();
            let mut backward: Vec<_> = list.backward_from(list.len() - 1).map(|b| b.into_owned()).collect();
            backward.reverse();
            assert_eq!(forward, backward);
            assert_eq!(forward.len() as u64, list.len());
            Model::List(forward)
        }),
        Model::Set(_) => engine.as_set(hash, key, now).expect("a set").map(|set| {
            let members: BTreeSet<_> = set.members().map(|b| b.into_owned()).collect();
            assert_eq!(members.len() as u64, set.len());
            let (mut scanned, mut cursor) = (BTreeSet::new(), 0);
            loop {
                cursor = set.scan(cursor, 10, |member| usize::from(scanned.insert(member.into_owned())));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(members, scanned);
            Model::Set(members)
        }),
        Model::Hash(_) => engine.as_hash(hash, key, now).expect("a hash").map(|hash| {
            let fields = hash.fields().map(|f| (f.name.into_owned(), (f.value.into_owned(), f.expires)));
            Model::Hash(fields.collect())
        }),
        Model::Sorted(_) => engine.as_sorted(hash, key, now).expect("a sorted set").map(|sorted| {
            let forward: Vec<_> = sorted.forward_from(0).map(|(m, s)| (s, m.into_owned())).collect();
            let mut backward: Vec<_> =
                sorted.backward_from(sorted.len() - 1).map(|(m, s)| (s, m.into_owned())).collect();
            backward.reverse();
            assert_eq!(forward, backward);
            let members: BTreeMap<_, _> = forward.iter().map(|(s, m)| (m.clone(), *s)).collect();
            assert_eq!(forward, by_score(&members), "in order");
            let (mut scanned, mut cursor) = (BTreeMap::new(), 0);
            loop {
                cursor = sorted.scan(cursor, 10, |member, score| {
                    scanned.insert(member.into_owned(), score);
                    1
                });
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(members, scanned);
            members.iter().for_each(|(member, &score)| assert_eq!(sorted.score(member), Some(score)));
            Model::Sorted(members)
        }),
    }
}

fn same(a: &Model, b: &Model) -> bool {
    match (a, b) {
        (Model::List(a), Model::List(b)) => a == b,
        (Model::Set(a), Model::Set(b)) => a == b,
        (Model::Hash(a), Model::Hash(b)) => a == b,
        (Model::Sorted(a), Model::Sorted(b)) => a == b,
        _ => false,
    }
}

/// One random change, applied to the engine and to the model.
fn change(engine: &mut Engine, key: &[u8], model: &mut Model, random: &mut Random, variety: u64, now: UnixMs) {
    let hash = hash(key);
    let value = random.bytes(variety);
    let grows = random.below(100) < 60;
    match model {
        Model::List(list) => {
            let end = if random.below(2) == 0 { End::Front } else { End::Back };
            let length = list.len() as u64;
            match random.below(10) {
                0..6 if grows => {
                    match end {
                        End::Front => list.push_front(value.clone()),
                        End::Back => list.push_back(value.clone()),
                    }
                    let pushed = engine.list_push(hash, key, end, [&value[..]].into_iter(), true, now);
                    assert_eq!(pushed, Ok(list.len() as u64));
                }
                0..6 => {
                    let count = 1 + random.below(3);
                    let mut popped = Vec::new();
                    engine.list_pop(hash, key, end, count, now, |b| popped.push(b.into_owned())).expect("a list");
                    for value in popped {
                        let expected = if end == End::Front { list.pop_front() } else { list.pop_back() };
                        assert_eq!(expected, Some(value));
                    }
                }
                6 if length > 0 => {
                    let index = random.below(length);
                    list[index as usize] = value.clone();
                    assert_eq!(engine.list_set(hash, key, index as i64, &value, now), Ok(Some(true)));
                }
                7 if length > 0 => {
                    let pivot = list[random.below(length) as usize].clone();
                    let at = list.iter().position(|v| *v == pivot).expect("it is there");
                    list.insert(at + 1, value.clone());
                    let inserted = engine.list_insert(hash, key, &pivot, true, &value, now);
                    assert_eq!(inserted, Ok(Some(list.len() as u64)));
                }
                8 if length > 0 => {
                    let wanted = list[random.below(length) as usize].clone();
                    let removed = engine.list_remove(hash, key, -1, &wanted, now).expect("a list");
                    let at = list.iter().rposition(|v| *v == wanted).expect("it is there");
                    list.remove(at);
                    assert_eq!(removed, 1);
                }
                _ if random.below(200) == 0 => {
                    let (first, count) = (random.below(length + 1), random.below(length + 1));
                    engine.list_trim(hash, key, first, count, now).expect("a list");
                    *list = list.iter().skip(first as usize).take(count as usize).cloned().collect();
                }
                _ => {}
            }
        }
        Model::Set(set) => {
            if grows {
                let added = engine.set_add(hash, key, [&value[..]].into_iter(), |_| false, now);
                assert_eq!(added, Ok(u64::from(set.insert(value))));
            } else if random.below(4) == 0 {
                engine.set_pop(hash, key, now, |member| assert!(set.remove(&*member))).expect("a set");
            } else {
                let removed = engine.set_remove(hash, key, [&value[..]].into_iter(), now);
                assert_eq!(removed, Ok(u64::from(set.remove(&value))));
            }
        }
        Model::Hash(fields) => {
            let field = random.bytes(variety);
            if grows {
                let expires = (random.below(5) == 0).then(|| now + 1 + random.below(5000));
                let pairs = [(&field[..], &value[..])];
                let added = engine.hash_set(hash, key, pairs.into_iter(), FieldExpiry::Set(expires), now);
                assert_eq!(added, Ok(u64::from(fields.insert(field, (value, expires)).is_none())));
            } else {
                let removed = engine.hash_remove(hash, key, [&field[..]].into_iter(), now);
                assert_eq!(removed, Ok(u64::from(fields.remove(&field).is_some())));
            }
        }
        Model::Sorted(sorted) => {
            // Some scores have few members, others many.
            let scores = if random.below(2) == 0 { variety / 2 } else { variety / 60 };
            let score = random.below(scores + 1) as f64 / 4.0;
            if grows {
                let pairs = [(score, &value[..])];
                engine.sorted_add(hash, key, pairs.into_iter(), ScoreChange::default(), now, |_| {}).expect("room");
                sorted.insert(value.clone(), score);
            } else if random.below(100) == 0 {
                let from = random.below(sorted.len() as u64 + 1);
                let mut gone: Vec<_> = by_score(sorted).into_iter().skip(from as usize).take(5).collect();
                let downwards = random.below(2) == 0;
                if downwards {
                    gone.reverse();
                }
                let mut seen = Vec::new();
                let removed = engine
                    .sorted_remove_range(hash, key, [from, from + 5], downwards, now, |m, s| seen.push((s, m.to_vec())))
                    .expect("a sorted set");
                assert_eq!((removed as usize, &seen), (gone.len(), &gone));
                gone.iter().for_each(|(_, member)| _ = sorted.remove(member));
            } else {
                let removed = engine.sorted_remove(hash, key, [&value[..]].into_iter(), now);
                assert_eq!(removed, Ok(u64::from(sorted.remove(&value).is_some())));
            }
            if let Some(read) = engine.as_sorted(hash, key, now).expect("a sorted set") {
                assert_eq!(read.score(&value), sorted.get(&value).copied());
                let bound = Bound::Score { score, after: false };
                if sorted.len() < 100 {
                    let before = sorted.values().filter(|&&s| s < score).count() as u64;
                    assert_eq!(read.rank_of(bound), before);
                }
                if let Some((rank, _)) = read.rank(&value) {
                    let found = read.forward_from(rank).next().map(|(m, _)| m.into_owned());
                    assert_eq!(found.as_deref(), Some(&value[..]));
                }
            }
        }
    }
}

fn run(seed: u64, memory_bytes: u64, keys: u64, variety: u64, steps: u64, eviction: Eviction) {
    let mut engine = engine(memory_bytes, eviction);
    let mut random = Random(seed);
    let mut models: HashMap<u64, Model> = HashMap::new();
    let mut now = NOW;
    for step in 0..steps {
        let n = random.below(keys);
        let key = format!("key-{n}").into_bytes();
        let model = models.entry(n).or_insert_with(|| Model::new(n));
        // A collection is evicted as a whole or not at all.
        if !model.is_empty() && engine.get(hash(&key), &key, now).is_none() {
            assert!(engine.stats().evictions > 0 || matches!(model, Model::Hash(_)), "it vanished: {n} at {step}");
            *model = Model::new(n);
        }
        let version = engine.get(hash(&key), &key, now).map(|item| item.version);
        change(&mut engine, &key, model, &mut random, variety, now);
        if let (Some(before), Some(item)) = (version, engine.get(hash(&key), &key, now)) {
            assert!(item.version >= before);
        }
        if random.below(8) == 0 {
            now += random.below(40);
            engine.work(now);
        }
        for model in models.values_mut() {
            if let Model::Hash(fields) = model {
                fields.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now));
            }
        }
        if step % (steps / 8 + 1) == 0 {
            engine.check();
        }
        // Plain strings cause collections to be moved and evicted.
        if random.below(3) == 0 {
            let key = format!("string-{}", random.below(2000)).into_bytes();
            let value = vec![b's'; random.below(900) as usize];
            let put = engine.put(hash(&key), Group::of(&key), &key, &value, Attributes::default(), now);
            assert!(put.is_ok() || eviction == Eviction::None);
        }
    }
    engine.check();
    for (n, model) in &models {
        let key = format!("key-{n}").into_bytes();
        match contents(&mut engine, &key, model, now) {
            Some(found) => assert!(same(&found, model), "key {n}: {found:?} is not {model:?}"),
            None => assert!(model.is_empty() || engine.stats().evictions > 0, "key {n} is gone"),
        }
    }
    for n in models.keys() {
        let key = format!("key-{n}").into_bytes();
        engine.remove(hash(&key), &key, now);
    }
    while engine.work(now) == crate::engine::Next::Now {}
    assert!(engine.deferred.is_empty());
    engine.check();
}

#[test]
fn few_collections_grow_large_and_shrink_again() {
    for seed in 1..5 {
        run(seed, 64 * MIB, 4, 3000, 20_000, Eviction::default());
    }
}

#[test]
fn many_small_collections_are_evicted_and_moved() {
    for eviction in [Eviction::S3Fifo, Eviction::Lru, Eviction::Random] {
        run(99, 4 * MIB, 3000, 60, 40_000, eviction);
    }
}

#[test]
fn large_collections_are_evicted_and_moved() {
    run(5, 4 * MIB, 24, 2000, 60_000, Eviction::S3Fifo);
}

/// Regression: when a long value was replaced by a short one and the leaf had to grow, the relocated leaf updated the
/// parent of the old value's blobs. These were in the list of nodes to be freed, which is linked through that field, so
/// the leaf was freed in their stead while in use.
#[test]
fn a_long_value_that_becomes_short() {
    let mut engine = engine(64 * MIB, Eviction::default());
    let key = b"key".as_slice();
    for round in 0..50 {
        for length in [1000, 150] {
            let (field, value) = (format!("field-{round}").into_bytes(), vec![b'v'; length]);
            let pairs = [(&field[..], &value[..])];
            engine.hash_set(hash(key), key, pairs.into_iter(), FieldExpiry::Set(None), NOW).expect("room");
        }
        engine.work(NOW);
        engine.check();
    }
    let found = engine.as_hash(hash(key), key, NOW).expect("a hash").expect("it is there");
    assert!(found.fields().all(|field| field.value.len() == 150));
}

/// If nothing can be evicted, a write without room fails as a whole, and removals need no room.
#[test]
fn full_memory_refuses_and_lets_go() {
    let mut engine = engine(4 * MIB, Eviction::None);
    let mut random = Random(11);
    let (mut refused, mut round) = (0, 0);
    while refused < 3000 {
        round += 1;
        let key = format!("key-{}", random.below(40)).into_bytes();
        let (hash, value) = (hash(&key), random.bytes(100_000));
        let grows = random.below(10) < if round / 2000 % 2 == 0 { 9 } else { 3 };
        let one = [&value[..]].into_iter();
        let done = match (key.len() + usize::from(key[key.len() - 1])) % 4 {
            0 if grows => engine.list_push(hash, &key, End::Back, one, true, NOW).map(|_| ()),
            0 => engine.list_pop(hash, &key, End::Front, 3, NOW, |_| {}).map(|_| ()),
            1 if grows => engine.set_add(hash, &key, one, |_| false, NOW).map(|_| ()),
            1 => engine.set_pop(hash, &key, NOW, |_| {}).map(|_| ()),
            2 => {
                let field = random.bytes(500);
                let pairs = [(&field[..], &value[..])].into_iter();
                match grows {
                    true => engine.hash_set(hash, &key, pairs, FieldExpiry::Set(None), NOW).map(|_| ()),
                    false => engine.hash_remove(hash, &key, [&field[..]].into_iter(), NOW).map(|_| ()),
                }
            }
            _ if grows => {
                let pairs = [(random.below(9) as f64, &value[..])].into_iter();
                engine.sorted_add(hash, &key, pairs, ScoreChange::default(), NOW, |_| {})
            }
            _ => engine.sorted_remove_range(hash, &key, [0, 2], false, NOW, |_, _| {}).map(|_| ()),
        };
        match done {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, crate::engine::PutError::OutOfMemory);
                refused += 1;
            }
        }
        engine.work(NOW);
        if round % 5000 == 0 {
            engine.check();
        }
    }
    engine.check();
    assert_eq!(engine.stats().evictions, 0);
}

/// Regression: a collection got its version only after its first change. If a flush's pass was under way it counted as
/// flushed until then, so it was not found, and the client received an out-of-memory error.
#[test]
fn a_collection_is_made_while_a_flush_goes_on() {
    let mut engine = engine(16 * MIB, Eviction::S3Fifo);
    for round in 0..100 {
        let key = format!("key-{round}").into_bytes();
        engine.flush();
        for _ in 0..2 {
            let one = [&b"value"[..]].into_iter();
            engine.list_push(hash(&key), &key, End::Back, one, true, NOW).expect("there is room");
        }
        let list = engine.as_list(hash(&key), &key, NOW).expect("a list").expect("it is there");
        assert_eq!(list.len(), 2);
    }
}

/// Regression: a large hash is swept in steps. If a field in a leaf behind the sweep was given an expiry time, the
/// sweep recorded at its end that no field expires; the field was counted after its expiry, not returned, and never
/// removed.
#[test]
fn a_field_that_is_to_expire_behind_a_sweep() {
    let mut engine = engine(64 * MIB, Eviction::default());
    let key = b"key".as_slice();
    let names: Vec<Vec<u8>> = (0..5000).map(|n| format!("field-{n}").into_bytes()).collect();
    let pairs = names.iter().map(|name| (&name[..], &b"value"[..]));
    engine.hash_set(hash(key), key, pairs, FieldExpiry::Set(None), NOW).expect("room");
    let first = engine.as_hash(hash(key), key, NOW).expect("a hash").expect("it is there");
    let first = first.fields().next().expect("a field").name.into_owned();
    let expire = |engine: &mut Engine, name: &[u8], expires, now| {
        let one = [name].into_iter();
        engine
            .hash_expire(hash(key), key, one, Some(expires), |_| true, now, |_| {})
            .expect("room")
            .expect("it is there");
    };
    expire(&mut engine, &first, NOW + 1000, NOW);

    let now = NOW + 2000;
    while engine.field_sweep.is_idle() {
        engine.work(now);
    }
    engine.work(now);
    assert!(!engine.field_sweep.is_idle(), "the sweep is under way");
    let next = engine.as_hash(hash(key), key, now).expect("a hash").expect("it is there");
    let next = next.fields().next().expect("a field").name.into_owned();
    expire(&mut engine, &next, now + 1000, now);
    while !engine.field_sweep.is_idle() {
        engine.work(now);
    }

    let now = now + 2000;
    let found = engine.as_hash(hash(key), key, now).expect("a hash").expect("it is there");
    assert_eq!(found.live_len(), found.fields().count() as u64);
    (0..10_000).for_each(|_| _ = engine.work(now));
    assert_eq!(engine.as_hash(hash(key), key, now).expect("a hash").expect("it is there").len(), 4998);
    engine.check();
}

/// Regression: room was made for the longer of a field and its value only. When the room made for the whole command was
/// used up by strings that occupy more memory than their length, the other string had none. Setting an expiry time
/// counted the value alone, but rewrites both.
#[test]
fn a_long_field_with_a_long_value() {
    let mut engine = engine(16 * MIB, Eviction::default());
    let long = vec![b'l'; 700_000];
    let names: Vec<Vec<u8>> = (0..6000).map(|n| format!("{n:0193}").into_bytes()).collect();
    for round in 0..20 {
        let key = format!("key-{round}").into_bytes();
        let short = names.iter().map(|name| (&name[..], &name[..]));
        let pairs = short.chain([(&long[..], &long[..])]);
        engine.hash_set(hash(&key), &key, pairs, FieldExpiry::Set(None), NOW).expect("room");
        for n in 0..200 {
            let filler = format!("filler-{round}-{n}").into_bytes();
            engine
                .put(hash(&filler), Group::of(&filler), &filler, &[b'v'; 3000], Attributes::default(), NOW)
                .expect("room");
            let one = [&long[..]].into_iter();
            engine.hash_expire(hash(&key), &key, one, Some(NOW + 1000), |_| true, NOW, |_| {}).expect("room");
        }
        engine.work(NOW);
    }
    engine.check();
}

/// Regression: a small collection under a long key filled its chunk to the last byte. An expiry time no longer fitted,
/// and the size class for it did not exist.
#[test]
fn a_time_of_expiry_for_a_full_chunk() {
    let mut engine = engine(64 * MIB, Eviction::default());
    for key_bytes in 3870..KEY_BYTES_MAX {
        let key = vec![b'k'; key_bytes];
        let value = [b'v'; 192];
        let pairs = [(&b"f"[..], &value[..])].into_iter();
        engine.hash_set(hash(&key), &key, pairs, FieldExpiry::Set(None), NOW).expect("room");
        for expires in [Some(NOW + 1000), None] {
            assert_eq!(engine.touch(hash(&key), &key, expires, NOW), Ok(true));
        }
    }
    engine.check();
}

/// A long member is stored once while few members have its score. Other members get and lose the score, and it moves to
/// another.
#[test]
fn members_that_share_a_score_and_do_not() {
    let mut engine = engine(64 * MIB, Eviction::default());
    let key = b"players";
    let member = |n: u32| format!("player-{n:033}").into_bytes();
    let put = |engine: &mut Engine, n: u32, score: f64| {
        let (member, mut came) = (member(n), None);
        let pairs = [(score, &member[..])].into_iter();
        engine
            .sorted_add(hash(key), key, pairs, ScoreChange::default(), NOW, |scored| came = Some(scored))
            .expect("room");
        came.expect("one")
    };
    let mut bytes = Vec::new();
    // Up to ten members for each of 200 scores; up to eight count as few.
    for round in 0..10 {
        for n in 0..200 {
            assert_eq!(put(&mut engine, 1_000 * round + n, n.into()), Scored::Added(n.into()));
        }
        engine.check();
        bytes.push(engine.stats().item_bytes as f64 / f64::from(200 * (round + 1)));
    }
    assert!(bytes[7] < 1.1 * bytes[1] && bytes[8] > 1.3 * bytes[7], "bytes per member: {bytes:?}");
    // Some move to scores of their own, and back to shared ones.
    for moved in [1_000.0, 0.0] {
        for n in 0..200 {
            let score = f64::from(n) + moved;
            assert_eq!(put(&mut engine, 5_000 + n, score), Scored::Changed(score));
        }
        engine.check();
    }
    // Where few members are left, new ones are stored as hashes again.
    for round in 3..10 {
        let members: Vec<_> = (0..200).map(|n| member(1_000 * round + n)).collect();
        let gone = engine.sorted_remove(hash(key), key, members.iter().map(|member| &member[..]), NOW);
        assert_eq!(gone, Ok(200));
    }
    for n in 0..200 {
        assert_eq!(put(&mut engine, 3_000 + n, n.into()), Scored::Added(n.into()));
    }
    engine.check();
    let sorted = engine.as_sorted(hash(key), key, NOW).expect("a sorted set").expect("it is there");
    let (mut scanned, mut cursor) = (BTreeMap::new(), 0);
    loop {
        cursor =
            sorted.scan(cursor, 10, |member, score| usize::from(scanned.insert(member.into_owned(), score).is_none()));
        if cursor == 0 {
            break;
        }
    }
    let members = || (0..4).flat_map(|round| (0..200).map(move |n| (member(1_000 * round + n), f64::from(n))));
    assert_eq!(scanned, members().collect());
    assert!(members().all(|(member, score)| sorted.score(&member) == Some(score)));
    assert_eq!(sorted.score(&member(4_000)), None);
}
