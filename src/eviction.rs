//! Names of the eviction policies, shared by settings, statistics and the engine.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// The eviction policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// S3-FIFO: most new items leave a small queue soon; those that were hit move on to a main part.
    #[default]
    S3Fifo,
    /// SIEVE: the oldest item that was not hit since the hand last passed it.
    Sieve,
    /// LRU: the item of a sample whose last access is longest ago.
    Lru,
    /// LFU: the item of a sample that is accessed least; old accesses count less.
    Lfu,
    /// FIFO: the item that was stored first.
    Fifo,
    /// The item of a sample that expires first.
    Ttl,
    /// A random item.
    Random,
    /// No eviction: writes fail instead.
    None,
}

impl Eviction {
    /// All policies. The default comes first, no eviction last.
    pub const ALL: [Self; 8] =
        [Self::S3Fifo, Self::Sieve, Self::Lru, Self::Lfu, Self::Fifo, Self::Ttl, Self::Random, Self::None];

    /// The name in settings and statistics.
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

impl Eviction {
    /// All names, separated by commas: for error messages.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
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
        Self::ALL.into_iter().find(|e| e.name() == name).ok_or_else(|| format!("allowed: {}", Self::names()))
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
        let error = "LRU".parse::<Eviction>().unwrap_err();
        assert_eq!(error, format!("allowed: {}", Eviction::names()));
        assert!(error.starts_with("allowed: s3fifo, ") && error.ends_with(", none"), "{error}");
    }
}
