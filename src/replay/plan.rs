//! Which cells are run: every policy with every amount of memory, and the scale at which they fit into this machine.

use super::cache::{self, Limits};
use super::trace::Trace;
use crate::config::Memory;
use crate::eviction::Eviction;
use std::str::FromStr;

/// A capacity taken from the footprint has room for so many mean items at least: fewer are no cache.
const MEAN_ITEMS_MIN: u64 = 10;

/// An amount of memory, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many bytes, whole KiB.
    Bytes(u64),
    /// So many percent of the bytes of all distinct items.
    Percent(f64),
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str =
            "allowed: a number of MiB (64), with a unit (64MiB, 1GiB) or of the footprint (0.0001% to 1000%)";
        const PERCENT_MIN: f64 = 0.0001;
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|p| (PERCENT_MIN..=1000.0).contains(p));
            return percent.map(Self::Percent).ok_or_else(|| ALLOWED.into());
        }
        match text.parse() {
            Ok(Memory::Bytes(bytes)) => Ok(Self::Bytes(bytes)),
            _ => Err(ALLOWED.into()),
        }
    }
}

impl Amount {
    /// The part of the footprint, if that is what was asked for.
    pub fn fraction(self) -> Option<f64> {
        match self {
            Self::Percent(percent) => Some(percent / 100.0),
            Self::Bytes(_) => None,
        }
    }

    fn bytes(self, footprint_bytes: u64, distinct: u32, scale: u32) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes / u64::from(scale),
            Self::Percent(percent) => {
                let part = (footprint_bytes as f64 * percent / 100.0) as u64;
                part.max(MEAN_ITEMS_MIN * footprint_bytes / u64::from(distinct))
            }
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            // Exactly: two amounts never read the same.
            Self::Bytes(bytes) if bytes % (1 << 30) == 0 => write!(f, "{}GiB", bytes >> 30),
            Self::Bytes(bytes) if bytes % (1 << 20) == 0 => write!(f, "{}MiB", bytes >> 20),
            Self::Bytes(bytes) => write!(f, "{}KiB", bytes >> 10),
        }
    }
}

/// What an amount of memory counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// Everything that the engine holds, as a server with that limit does
    Real,
    /// Only bytes of keys and values, as simulators do; the engine has as much memory as it needs for them
    User,
}

/// One run: a policy with an amount of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// What was asked for.
    pub amount: Amount,
    /// That in bytes, of the trace at the plan's scale.
    pub capacity_bytes: u64,
    pub(super) limits: Limits,
}

impl Cell {
    /// The policy.
    pub fn eviction(&self) -> Eviction {
        self.limits.eviction
    }

    /// Memory that its engine may come to use.
    pub fn memory_bytes(&self) -> u64 {
        self.limits.memory_bytes
    }
}

/// An amount of memory that an engine cannot have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A part of a small footprint, less than an engine needs.
    #[error(
        "{amount} is {}; allowed: {} and more, or --count user",
        super::report::bytes(*bytes),
        super::report::bytes(cache::MEMORY_BYTES_MIN)
    )]
    TooLittle {
        /// What was asked for.
        amount: Amount,
        /// That in bytes.
        bytes: u64,
    },
    /// More than there is, at this scale.
    #[error(
        "{amount} needs {} of memory at scale {scale}, of {} allowed; a higher --scale divides sizes",
        super::report::bytes(*bytes),
        super::report::bytes(*allowed)
    )]
    TooMuch {
        /// What was asked for.
        amount: Amount,
        /// Memory of its engine.
        bytes: u64,
        /// Most that it may have.
        allowed: u64,
        /// What sizes were divided by.
        scale: u32,
    },
}

/// The cells of one trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What sizes, and amounts in bytes, are divided by.
    pub scale: u32,
    /// Bytes of all distinct items, divided.
    pub footprint_bytes: u64,
    /// Amounts by policies.
    pub cells: Vec<Cell>,
    /// Parts of the footprint that are too small for an engine, and why.
    pub left_out: Vec<(Amount, Refusal)>,
}

impl Plan {
    /// Plans the cells of a trace for a machine with so much memory. Without a `scale`, the least power of two at which
    /// all of them fit.
    ///
    /// # Errors
    /// An amount that no engine can have.
    pub fn new(
        trace: &Trace,
        policies: &[Eviction],
        amounts: &[Amount],
        count: Count,
        scale: Option<u32>,
        machine_bytes: u64,
    ) -> Result<Self, Refusal> {
        let allowed = cache::MEMORY_BYTES_MAX.min(machine_bytes);
        let mut tried = scale.unwrap_or(1);
        loop {
            match Self::at_scale(trace, policies, amounts, count, tried, allowed) {
                Err(Refusal::TooMuch { .. }) if scale.is_none() && tried < 1 << 31 => tried *= 2,
                outcome => return outcome,
            }
        }
    }

    fn at_scale(
        trace: &Trace,
        policies: &[Eviction],
        amounts: &[Amount],
        count: Count,
        scale: u32,
        allowed: u64,
    ) -> Result<Self, Refusal> {
        let footprint_bytes = trace.footprint_bytes(scale);
        let longest = trace.user_bytes_max(scale);
        let mut plan = Self { scale, footprint_bytes, cells: Vec::new(), left_out: Vec::new() };
        for &amount in amounts {
            let capacity_bytes = amount.bytes(footprint_bytes, trace.distinct(), scale);
            let memory_bytes = match count {
                Count::Real => capacity_bytes,
                Count::User => {
                    // A key has at least one byte, and so has an item.
                    let items = capacity_bytes.min(trace.distinct().into());
                    cache::memory_bytes_for(capacity_bytes, items, longest.min(capacity_bytes))
                }
            };
            if memory_bytes > allowed {
                return Err(Refusal::TooMuch { amount, bytes: memory_bytes, allowed, scale });
            }
            if memory_bytes < cache::MEMORY_BYTES_MIN {
                let refusal = Refusal::TooLittle { amount, bytes: memory_bytes };
                if amount.fraction().is_none() {
                    return Err(refusal);
                }
                plan.left_out.push((amount, refusal));
                continue;
            }
            plan.cells.extend(policies.iter().map(|&eviction| Cell {
                amount,
                capacity_bytes,
                limits: Limits {
                    eviction,
                    memory_bytes,
                    user_bytes_max: (count == Count::User).then_some(capacity_bytes),
                    value_bytes_max: longest,
                },
            }));
        }
        // Policies are compared side by side.
        let order = |cell: &Cell| policies.iter().position(|&p| p == cell.limits.eviction);
        plan.cells.sort_by_key(order);
        Ok(plan)
    }
}
