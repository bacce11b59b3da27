//! Parsers of the settings' values. Each error says which values are allowed.

use super::ConfigError;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The TCP port of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 0: the protocol is not served.
    Off,
    /// auto: the kernel chooses a free port, which the log shows.
    Auto,
    /// 1 to 65535.
    Fixed(u16),
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "0" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => {
                text.parse().map(Self::Fixed).map_err(|_| "allowed: 1 to 65535, 0 (off), or auto (a free port)".into())
            }
        }
    }
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Memory {
    /// Bytes.
    Bytes(u64),
    /// A percentage of the machine's memory.
    Percent(u8),
}

impl Memory {
    /// The amount in bytes that `flag` asks for, on a machine with `machine_bytes` of memory, if that is known.
    ///
    /// # Errors
    /// A percentage of an unknown amount.
    pub fn bytes(self, flag: &str, machine_bytes: Option<u64>) -> Result<u64, ConfigError> {
        match (self, machine_bytes) {
            (Self::Bytes(bytes), _) => Ok(bytes),
            (Self::Percent(percent), Some(machine)) => Ok(machine / 100 * u64::from(percent)),
            (Self::Percent(percent), None) => Err(ConfigError(format!(
                "{flag} {percent}%: the memory of this machine is unknown; allowed: a number of MiB (1024), or with a unit \
                 (512MiB, 4GiB)"
            ))),
        }
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str =
            "allowed: a number of MiB (1024), an amount with a unit (512MiB, 4GiB), or 1% to 100% of the machine's";
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|p| (1..=100).contains(p));
            return percent.map(Self::Percent).ok_or_else(|| ALLOWED.into());
        }
        if let Ok(mebibytes) = text.parse::<u64>() {
            return mebibytes.checked_mul(1 << 20).filter(|&b| b > 0).map(Self::Bytes).ok_or_else(|| ALLOWED.into());
        }
        bytes(text).filter(|&b| b > 0).map(Self::Bytes).ok_or_else(|| ALLOWED.into())
    }
}

/// A number of bytes, in the notation of memcached's -I: 1048576, 512k, 1m.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.parse::<u64>().ok();
        plain
            .or_else(|| bytes(text))
            .map(Self)
            .ok_or_else(|| "allowed: a number of bytes, or with a unit: 512k, 1m".into())
    }
}

/// A parser of whole numbers within a range.
pub fn number<T: TryFrom<u64>>(
    allowed: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|n| allowed.contains(n)).and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| format!("allowed: {} to {}", allowed.start(), allowed.end()))
    }
}

/// A parser of powers of two within a range.
pub(super) fn power_of_two(
    allowed: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u16, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = number::<u16>(allowed.clone())(text).ok().filter(|n| n.is_power_of_two());
        number.ok_or_else(|| format!("allowed: a power of two, {} to {}", allowed.start(), allowed.end()))
    }
}

/// A parser of byte sizes within a range, which must start and end with whole KiB.
pub(super) fn size(
    allowed: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<ByteSize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let shown =
            |bytes: u64| if bytes < 1 << 20 { format!("{}k", bytes >> 10) } else { format!("{}m", bytes >> 20) };
        let size = text.parse().ok().filter(|ByteSize(bytes)| allowed.contains(bytes));
        size.ok_or_else(|| format!("allowed: {} to {}", shown(*allowed.start()), shown(*allowed.end())))
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The IP address.
    pub ip: IpAddr,
    /// The port of memcached's protocol on this address, if it is not that of `--port`.
    pub port: Option<u16>,
    /// One of several addresses of a name: those that this machine does not have are left out.
    pub is_optional: bool,
}

impl Listen {
    /// The address as `--listen` accepts it.
    pub fn shown(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).to_string(),
            None => self.ip.to_string(),
        }
    }
}

/// What `--listen` names: one address, or those of a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOn(pub Vec<Listen>);

impl FromStr for ListenOn {
    type Err = String;

    /// Parses an IP address or a host name, with or without a port. Names are looked up.
    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: IPv4 and IPv6 addresses and names of this machine, separated by commas, each with or \
                               without a port of memcached's protocol: 127.0.0.1,[::1]:11212,localhost";
        let one = |ip, port| Ok(Self(vec![Listen { ip, port, is_optional: false }]));
        if let Ok(ip) = text.parse() {
            return one(ip, None);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return one(address.ip(), Some(address.port()).filter(|&port| port != 0));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|&port| port != 0).ok_or(ALLOWED)?)),
            None => (text, None),
        };
        let mut found: Vec<IpAddr> = Vec::new();
        for address in (host, 0).to_socket_addrs().map_err(|error| format!("{error}; {ALLOWED}"))? {
            if !found.contains(&address.ip()) {
                found.push(address.ip());
            }
        }
        let is_optional = found.len() > 1;
        Ok(Self(found.into_iter().map(|ip| Listen { ip, port, is_optional }).collect()))
    }
}

/// A number with a unit: k, KiB, m, MiB, g, GiB, t, TiB, in any case (powers of 1024).
fn bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A list of cores: 0-7,16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

impl Cores {
    /// Formats cores in this notation.
    pub fn shown(cores: &[usize]) -> String {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for &core in cores {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == core => *last = core,
                _ => ranges.push((core, core)),
            }
        }
        let range = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
        ranges.iter().map(range).collect::<Vec<_>>().join(",")
    }
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: core numbers and ranges, each core once: 0-7,16";
        /// Linux supports no higher number.
        const CORE_MAX: usize = 8191;
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |s: &str| s.trim().parse().ok().filter(|&core| core <= CORE_MAX);
            let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(ALLOWED.into()) };
            if first > last || (first..=last).any(|core| cores.contains(&core)) {
                return Err(ALLOWED.into());
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}
