//! The plan of a replay: the cells to run, each policy with each amount of memory, and the scale at which they fit into
//! this machine.

use super::cache::{self, Limits};
use super::trace::Trace;
use crate::config::Memory;
use crate::eviction::Eviction;
use std::str::FromStr;

/// Least capacity, in mean items, when it is given as a percentage: anything smaller is not a useful cache.
const MEAN_ITEMS_MIN: u64 = 10;

/// An amount of memory, as given by the user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, a multiple of 1 KiB.
    Bytes(u64),
    /// Percent of the footprint: of the bytes of all distinct items.
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
    /// The fraction of the footprint, if the amount is a percentage.
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
            // Exact, so that different amounts never print alike.
            Self::Bytes(bytes) if bytes % (1 << 30) == 0 => write!(f, "{}GiB", bytes >> 30),
            Self::Bytes(bytes) if bytes % (1 << 20) == 0 => write!(f, "{}MiB", bytes >> 20),
            Self::Bytes(bytes) => write!(f, "{}KiB", bytes >> 10),
        }
    }
}

/// The bytes that an amount of memory limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// All memory of the engine, as in a server with that limit
    Real,
    /// Bytes of keys and values alone, as simulators count; the engine gets as much memory as these need
    User,
}

/// One run: a policy with an amount of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The amount as given by the user.
    pub amount: Amount,
    /// The amount in bytes, at the plan's scale.
    pub capacity_bytes: u64,
    pub(super) limits: Limits,
}

impl Cell {
    /// The policy.
    pub fn eviction(&self) -> Eviction {
        self.limits.eviction
    }

    /// Most memory that its engine may use.
    pub fn memory_bytes(&self) -> u64 {
        self.limits.memory_bytes
    }
}

/// An amount of memory that no engine can be given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A percentage that is less than an engine needs.
    #[error(
        "{amount} is {}; allowed: {} and more, or --count user",
        super::report::bytes(*bytes),
        super::report::bytes(cache::MEMORY_BYTES_MIN)
    )]
    TooLittle {
        /// The amount as given by the user.
        amount: Amount,
        /// The amount in bytes.
        bytes: u64,
    },
    /// More than the machine has, at this scale.
    #[error(
        "{amount} needs {} of memory at scale {scale}, of {} allowed; a higher --scale divides sizes",
        super::report::bytes(*bytes),
        super::report::bytes(*allowed)
    )]
    TooMuch {
        /// The amount as given by the user.
        amount: Amount,
        /// Memory that the engine would need.
        bytes: u64,
        /// Most memory allowed.
        allowed: u64,
        /// The divisor of all sizes.
        scale: u32,
    },
}

/// The cells of one trace, and their scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The divisor of all sizes, and of amounts in bytes.
    pub scale: u32,
    /// Bytes of all distinct items, after the division.
    pub footprint_bytes: u64,
    /// All amounts for the first policy, then for the next, and so on.
    pub cells: Vec<Cell>,
    /// Percentages that are too small for an engine, and why.
    pub left_out: Vec<(Amount, Refusal)>,
}

impl Plan {
    /// Plans the cells of a trace for a machine with `machine_bytes` of memory. If no `scale` is given, it is the least
    /// power of two at which all cells fit.
    ///
    /// # Errors
    /// An amount that no engine can be given.
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
        // One curve or block of rows per policy.
        let order = |cell: &Cell| policies.iter().position(|&p| p == cell.limits.eviction);
        plan.cells.sort_by_key(order);
        Ok(plan)
    }
}
