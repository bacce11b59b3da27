//! The eviction policies by name: settings, statistics and the engine agree on them.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// The eviction policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// S3-FIFO: a small queue that most items leave soon, and a main part for those that were asked for again.
    #[default]
    S3Fifo,
    /// SIEVE: the oldest one that was not used since a hand last passed it.
    Sieve,
    /// The one that was not used for the longest time, of a sample.
    Lru,
    /// The one that is used least, of a sample; use long ago counts less.
    Lfu,
    /// The one that was stored first.
    Fifo,
    /// The one that expires first, of a sample.
    Ttl,
    /// Any.
    Random,
    /// None: writes fail instead.
    None,
}

impl Eviction {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::S3Fifo, Self::Sieve, Self::Lru, Self::Lfu, Self::Fifo, Self::Ttl, Self::Random, Self::None];

    /// The name, as settings and statistics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::S3Fifo => "s3fifo",
            Self::Sieve => "sieve",
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Fifo => "fifo",
            Self::Ttl => "ttl",
            Self::Random => "random",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Eviction {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|e| e.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|e| e.name()).collect();
            format!("allowed: {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_known_by_its_name() {
        for eviction in Eviction::ALL {
            assert_eq!(eviction.to_string().parse(), Ok(eviction));
        }
        assert_eq!("LRU".parse::<Eviction>().unwrap_err(), "allowed: s3fifo, sieve, lru, lfu, fifo, ttl, random, none");
    }
}
