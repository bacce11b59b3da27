//! What a client must be told: a model of its own keys, which no other client uses.

use crate::reply::Reply;
use std::collections::{BTreeMap, BTreeSet};

/// A command, as far as its reply depends on it.
#[derive(Clone, Debug)]
pub enum Command {
    Get {
        keys: Vec<u8>,
    },
    Set {
        key: u8,
        value: Vec<u8>,
        condition: Condition,
    },
    Append {
        key: u8,
        value: Vec<u8>,
    },
    Delete {
        keys: Vec<u8>,
    },
    Exists {
        keys: Vec<u8>,
    },
    Increment {
        key: u8,
    },
    Length {
        key: u8,
    },
    /// Adds members to a set, or removes them.
    Members {
        key: u8,
        members: Vec<u8>,
        adds: bool,
    },
    /// The members of a set.
    AllMembers {
        key: u8,
    },
    /// Which of these a set has.
    HasMembers {
        key: u8,
        members: Vec<u8>,
    },
    Size,
    Keys,
    RandomKey,
    Flush,
    /// The reply is this line, or this string.
    Fixed(&'static str),
    /// Any reply but an error.
    Any,
    /// An error.
    Wrong,
    /// `CLIENT REPLY`.
    Replies(Replies),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    Absent,
    Present,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    #[default]
    On,
    Off,
    Skip,
}

/// One client's keys.
#[derive(Debug, Default)]
pub struct Model {
    values: BTreeMap<u8, Vec<u8>>,
    /// Sets, under keys of their own.
    sets: BTreeMap<u8, BTreeSet<u8>>,
    /// Keys that may have been evicted or refused since they were written without a reply.
    unsure: BTreeSet<u8>,
    /// Sets to which members were added that may have been refused.
    unsure_sets: BTreeSet<u8>,
    /// The memory may run out: items go, or writes fail.
    pub is_tight: bool,
    pub is_memcached: bool,
    /// The prefix of this client's keys.
    pub name: String,
}

impl Model {
    pub fn new(number: usize, is_memcached: bool, is_tight: bool) -> Self {
        Self { is_tight, is_memcached, name: format!("c{number}"), ..Self::default() }
    }

    pub fn key(&self, key: u8) -> String {
        format!("{}-{key}", self.name)
    }

    fn clear(&mut self) {
        self.values.clear();
        self.unsure.clear();
        self.sets.clear();
        self.unsure_sets.clear();
    }

    /// The key of a set.
    pub fn set_key(&self, key: u8) -> String {
        format!("{}-set-{key}", self.name)
    }

    /// True if a number is stored in the shortest way.
    fn is_canonical(&self, key: u8, number: i64) -> bool {
        self.values.get(&key).is_some_and(|value| number.to_string().as_bytes() == value)
    }

    /// The value that a client would find. In tight memory, any value may be gone.
    fn may_be(&mut self, key: u8, found: Option<&[u8]>) -> Result<(), String> {
        let expected = self.values.get(&key).map(Vec::as_slice);
        let is_gone = found.is_none() && self.is_tight;
        if found == expected || is_gone {
            if found.is_none() {
                self.values.remove(&key);
            }
            return Ok(());
        }
        if self.unsure.contains(&key) && found.is_some() {
            // A write that was not confirmed: this tells how it went.
            self.values.insert(key, found.unwrap_or_default().to_vec());
            self.unsure.remove(&key);
            return Ok(());
        }
        let show = |value: Option<&[u8]>| match value {
            Some(value) => {
                format!("{} bytes, {:?}", value.len(), String::from_utf8_lossy(&value[..value.len().min(20)]))
            }
            None => "nothing".into(),
        };
        Err(format!("{} is {}, and should be {}", self.key(key), show(found), show(expected)))
    }

    /// True if a write was refused for want of memory, and may be.
    fn is_refused(&mut self, key: u8, reply: &Reply) -> bool {
        let refused = self.is_tight && reply.is_out_of_memory();
        if refused && self.is_memcached {
            // A failed set removes the old value.
            self.unsure.insert(key);
        }
        refused
    }

    /// Checks a reply, and follows the command's effect.
    pub fn check(&mut self, command: &Command, reply: &Reply) -> Result<(), String> {
        let wrong = || Err(format!("{reply:?}"));
        match command {
            Command::Get { keys } => {
                let found = reply.values(self, keys).ok_or_else(|| format!("{reply:?}"))?;
                for (key, value) in keys.iter().zip(found) {
                    self.may_be(*key, value.as_deref())?;
                }
            }
            Command::Set { key, value, condition } => {
                if self.is_refused(*key, reply) {
                    return Ok(());
                }
                let stored = reply.stored().ok_or_else(|| format!("{reply:?}"))?;
                let exists = self.values.contains_key(key);
                let should = match condition {
                    Condition::Always => true,
                    Condition::Absent => !exists,
                    Condition::Present => exists,
                };
                if stored != should && !(self.is_tight || self.unsure.contains(key)) {
                    return wrong();
                }
                if stored {
                    self.values.insert(*key, value.clone());
                    self.unsure.remove(key);
                }
            }
            Command::Append { key, value } => {
                if self.is_refused(*key, reply) {
                    return Ok(());
                }
                let old = self.values.get(key).cloned();
                if self.is_memcached {
                    match (reply.stored().ok_or_else(|| format!("{reply:?}"))?, old) {
                        (true, Some(old)) => _ = self.values.insert(*key, [old, value.clone()].concat()),
                        (false, None) => {}
                        (false, Some(_)) if self.is_tight => _ = self.values.remove(key),
                        _ => return wrong(),
                    }
                    return Ok(());
                }
                let length = reply.integer().ok_or_else(|| format!("{reply:?}"))? as usize;
                let whole = [old.unwrap_or_default(), value.clone()].concat();
                if length == whole.len() {
                    self.values.insert(*key, whole);
                } else if self.is_tight && length == value.len() {
                    self.values.insert(*key, value.clone());
                } else {
                    return wrong();
                }
            }
            Command::Delete { keys } | Command::Exists { keys } => {
                let count = reply.count().ok_or_else(|| format!("{reply:?}"))?;
                let is_delete = matches!(command, Command::Delete { .. });
                let mut most = 0;
                for key in keys {
                    let exists = match is_delete {
                        true => self.values.remove(key).is_some(),
                        false => self.values.contains_key(key),
                    };
                    most += usize::from(exists);
                }
                if count != most && !(self.is_tight && count < most) {
                    return wrong();
                }
            }
            Command::Increment { key } => {
                if self.is_refused(*key, reply) {
                    return Ok(());
                }
                let old = self.values.get(key).map(|value| String::from_utf8_lossy(value).parse::<i64>());
                let new = match (old, reply.integer()) {
                    (_, Some(new)) => new,
                    (None, None) if self.is_memcached && reply.is_not_found() => return Ok(()),
                    (Some(Err(_)), None) if reply.is_error() => return Ok(()),
                    // Numbers with leading zeros are not numbers, or too long: it depends on the protocol.
                    (Some(Ok(old)), None) if reply.is_error() && !self.is_canonical(*key, old) => return Ok(()),
                    (Some(_), None) if self.is_tight && reply.is_not_found() => {
                        self.values.remove(key);
                        return Ok(());
                    }
                    _ => return wrong(),
                };
                let expected = match self.values.get(key).map(|value| String::from_utf8_lossy(value).parse::<i64>()) {
                    Some(Ok(old)) => old + 1,
                    _ => 1,
                };
                if new != expected && !(self.is_tight && new == 1) {
                    return wrong();
                }
                self.values.insert(*key, new.to_string().into_bytes());
            }
            Command::Length { key } => {
                let length = reply.integer().ok_or_else(|| format!("{reply:?}"))? as usize;
                let expected = self.values.get(key).map_or(0, Vec::len);
                if length != expected && !(self.is_tight && length == 0) {
                    return wrong();
                }
            }
            Command::Members { key, members, adds } => {
                if self.is_tight && reply.is_out_of_memory() {
                    // Those before the one that did not fit stay.
                    self.unsure_sets.insert(*key);
                    return Ok(());
                }
                let count = reply.integer().ok_or_else(|| format!("{reply:?}"))? as usize;
                let set = self.sets.entry(*key).or_default();
                let named: BTreeSet<u8> = members.iter().copied().collect();
                let changes = named.iter().filter(|member| set.contains(member) != *adds).count();
                change(set, members, *adds);
                self.sets.retain(|_, set| !set.is_empty());
                // Where the set may be gone, more are added or fewer removed.
                let may_differ = self.is_tight && if *adds { count > changes } else { count < changes };
                if count != changes && !may_differ && !self.unsure_sets.contains(key) {
                    return Err(format!("{reply:?}, and should be {changes}"));
                }
            }
            Command::AllMembers { key } => {
                let found = reply.strings().ok_or_else(|| format!("{reply:?}"))?;
                let numbers = found.iter().map(|text| String::from_utf8_lossy(text).parse());
                let found: BTreeSet<u8> = numbers.collect::<Result<_, _>>().map_err(|_| format!("{reply:?}"))?;
                let set = self.sets.remove(key).unwrap_or_default();
                let may_differ = self.unsure_sets.remove(key) || self.is_tight && found.is_subset(&set);
                if found != set && !may_differ {
                    return wrong();
                }
                if !found.is_empty() {
                    self.sets.insert(*key, found);
                }
            }
            Command::HasMembers { key, members } => {
                let found = reply.integers().ok_or_else(|| format!("{reply:?}"))?;
                let set = self.sets.get(key);
                let expected = members.iter().map(|member| set.is_some_and(|set| set.contains(member)));
                let mut pairs = found.iter().map(|&found| found == 1).zip(expected);
                let is_right = |(found, expected): (bool, bool)| found == expected || self.is_tight && !found;
                if found.len() != members.len() || !pairs.all(is_right) && !self.unsure_sets.contains(key) {
                    return wrong();
                }
            }
            Command::Size => {
                let size = reply.integer().ok_or_else(|| format!("{reply:?}"))? as usize;
                let unsure = self.unsure_sets.iter().filter(|key| !self.sets.contains_key(key)).count();
                if size > self.values.len() + self.sets.len() && size <= self.values.len() + self.sets.len() + unsure {
                    return Ok(());
                }
                let most = self.values.len() + self.sets.len();
                if size != most && !(self.is_tight && size < most) {
                    let (strings, sets) = (self.values.keys(), self.sets.keys());
                    return Err(format!("{size}, and there should be {strings:?} and sets {sets:?}"));
                }
            }
            Command::Keys => {
                let mut found = reply.strings().ok_or_else(|| format!("{reply:?}"))?;
                found.sort_unstable();
                let strings = self.values.keys().map(|key| self.key(*key));
                let sets = self.sets.keys().map(|key| self.set_key(*key));
                let mut expected: Vec<Vec<u8>> = strings.chain(sets).map(String::into_bytes).collect();
                expected.sort_unstable();
                let unsure: Vec<Vec<u8>> = self.unsure_sets.iter().map(|key| self.set_key(*key).into_bytes()).collect();
                let is_part = found.iter().all(|key| expected.contains(key) || unsure.contains(key));
                if found != expected && !(self.is_tight && is_part) {
                    return wrong();
                }
            }
            Command::RandomKey => match reply.string() {
                Some(found) if self.values.keys().any(|key| self.key(*key).as_bytes() == found) => {}
                Some(found)
                    if self.sets.keys().chain(&self.unsure_sets).any(|key| self.set_key(*key).as_bytes() == found) => {}
                None if reply.is_nothing() && (self.values.is_empty() && self.sets.is_empty() || self.is_tight) => {}
                _ => return wrong(),
            },
            Command::Flush => {
                if !reply.is_line("OK") {
                    return wrong();
                }
                self.clear();
            }
            Command::Fixed(text) => {
                if !reply.is_line(text) && reply.string() != Some(text.as_bytes()) {
                    return wrong();
                }
            }
            Command::Any if reply.is_error() => return wrong(),
            Command::Wrong if !reply.is_error() => return wrong(),
            Command::Any | Command::Wrong | Command::Replies(_) => {}
        }
        Ok(())
    }

    /// Follows a command whose reply is suppressed.
    pub fn apply(&mut self, command: &Command) {
        match command {
            Command::Set { key, value, condition } => {
                let exists = self.values.contains_key(key);
                let stores = match condition {
                    Condition::Always => true,
                    Condition::Absent => !exists,
                    Condition::Present => exists,
                };
                if self.is_tight {
                    self.unsure.insert(*key);
                }
                if stores {
                    self.values.insert(*key, value.clone());
                }
            }
            Command::Append { key, value } => {
                let old = self.values.get(key).cloned();
                if old.is_some() || !self.is_memcached {
                    self.values.insert(*key, [old.unwrap_or_default(), value.clone()].concat());
                }
                if self.is_tight {
                    self.unsure.insert(*key);
                }
            }
            Command::Delete { keys } => keys.iter().for_each(|key| {
                self.values.remove(key);
                self.unsure.remove(key);
            }),
            Command::Increment { key } => {
                let old = self.values.get(key).map(|value| String::from_utf8_lossy(value).parse::<i64>());
                match old {
                    Some(Ok(old)) => _ = self.values.insert(*key, (old + 1).to_string().into_bytes()),
                    None if !self.is_memcached => _ = self.values.insert(*key, b"1".to_vec()),
                    _ => {}
                }
                if self.is_tight {
                    self.unsure.insert(*key);
                }
            }
            Command::Members { key, members, adds } => {
                change(self.sets.entry(*key).or_default(), members, *adds);
                self.sets.retain(|_, set| !set.is_empty());
                if self.is_tight {
                    self.unsure_sets.insert(*key);
                }
            }
            Command::Flush => self.clear(),
            _ => {}
        }
    }
}

/// Adds members to a set, or removes them.
fn change(set: &mut BTreeSet<u8>, members: &[u8], adds: bool) {
    members.iter().for_each(|member| _ = if adds { set.insert(*member) } else { set.remove(member) });
}
