//! C's `long double` on x86-64, as far as INCRBYFLOAT and HINCRBYFLOAT need it: parsing, addition, formatting.
//!
//! Redis adds in this type and writes 17 decimals, so 0.1 + 0.2 is `0.3`, where an `f64` has `0.30000000000000004`, but
//! 5000.1 + 0.1 is `5000.20000000000000018`. Clients see these decimals and servers replicate them, so this module
//! computes the identical digits: 64 bits of mantissa, rounded to nearest, ties to even.
//!
//! Parsing is exact: the digits form one large integer, which is divided by a power of ten bit by bit, one bit beyond
//! the mantissa; any remainder decides ties.

use std::cmp::Ordering;

/// Texts of this many bytes and more are rejected, as in Redis (`MAX_LONG_DOUBLE_CHARS`); this bounds the work.
const TEXT_BYTES_MAX: usize = 5 * 1024;

/// Numbers from 2 to this power on overflow to infinity.
const EXPONENT_MAX: i32 = 16_384;

/// 2 to this power is half of the smallest positive number; numbers up to it round to zero.
const EXPONENT_MIN: i32 = -16_446;

/// Decimals written.
const DECIMALS: usize = 17;

/// 10 to the power of [`DECIMALS`].
const DECIMALS_SCALE: u128 = 100_000_000_000_000_000;

/// A number, or infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    /// `mantissa` × 2^`exponent`; the mantissa has its highest bit set.
    Normal {
        mantissa: u64,
        exponent: i32,
    },
    Zero,
    Infinite,
}

impl LongDouble {
    /// Zero, the value of a key or field that does not exist.
    pub const ZERO: Self = Self { negative: false, magnitude: Magnitude::Zero };

    /// Parses a number: decimal with or without an exponent, or infinity (`string2ld`).
    ///
    /// `None` for NaN, for spaces, for 5,120 bytes and more, and for numbers that would round to infinity or zero.
    pub fn read(text: &[u8]) -> Option<Self> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let magnitude = if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            Magnitude::Infinite
        } else {
            let (digits, exponent) = decimal(unsigned)?;
            Magnitude::of_quotient(digits, exponent)?
        };
        Some(Self { negative, magnitude })
    }

    /// The sum; `None` if it is infinite or not a number.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        use Magnitude::{Infinite, Normal, Zero};
        let (mut larger, mut smaller) = match (self.magnitude, other.magnitude) {
            (Infinite, _) | (_, Infinite) => return None,
            (Zero, Zero) => return Some(Self { negative: self.negative && other.negative, ..self }),
            (Zero, _) => return Some(other),
            (_, Zero) => return Some(self),
            (Normal { mantissa: m, exponent: e }, Normal { mantissa: n, exponent: f }) => {
                ((self.negative, m, e), (other.negative, n, f))
            }
        };
        if (larger.2, larger.1) < (smaller.2, smaller.1) {
            std::mem::swap(&mut larger, &mut smaller);
        }
        // Room for the carry above and for 62 bits below; of still lower bits it only matters whether any is set.
        let augend = u128::from(larger.1) << 62;
        let addend = u128::from(smaller.1) << 62;
        let distance = (larger.2 - smaller.2) as u32;
        let addend = match addend.checked_shr(distance) {
            Some(shifted) => shifted | u128::from(shifted << distance != addend),
            None => 1,
        };
        let sum = if larger.0 == smaller.0 { augend + addend } else { augend - addend };
        match Magnitude::rounded(sum, larger.2 - 62) {
            Magnitude::Infinite => None,
            Magnitude::Zero => Some(Self::ZERO),
            magnitude => Some(Self { negative: larger.0, magnitude }),
        }
    }

    /// Appends the number with up to 17 decimals, without trailing zeros, and never with an exponent (`ld2string` with
    /// `LD_STR_HUMAN`).
    pub fn write(self, output: &mut Vec<u8>) {
        let (mantissa, exponent) = match self.magnitude {
            Magnitude::Infinite => {
                output.extend_from_slice(if self.negative { b"-inf" } else { b"inf" });
                return;
            }
            Magnitude::Zero => (0, 0),
            Magnitude::Normal { mantissa, exponent } => (mantissa, exponent),
        };
        if exponent >= 0 {
            if self.negative && mantissa != 0 {
                output.push(b'-');
            }
            write_shifted(mantissa, exponent as u32, output);
            return;
        }
        let scaled = shifted_down(u128::from(mantissa) * DECIMALS_SCALE, exponent.unsigned_abs());
        if self.negative && scaled != 0 {
            output.push(b'-');
        }
        let mut buffer = itoa::Buffer::new();
        output.extend_from_slice(buffer.format(scaled / DECIMALS_SCALE).as_bytes());
        let fraction = scaled % DECIMALS_SCALE;
        if fraction != 0 {
            let digits = buffer.format(fraction).as_bytes();
            output.push(b'.');
            output.resize(output.len() + DECIMALS - digits.len(), b'0');
            output.extend_from_slice(digits);
            while output.last() == Some(&b'0') {
                output.pop();
            }
        }
    }
}

impl From<f64> for LongDouble {
    /// Converts an `f64`, which is exact. The caller must not pass NaN, which this type lacks.
    fn from(value: f64) -> Self {
        assert!(!value.is_nan(), "not a number");
        let bits = value.to_bits();
        let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32);
        let magnitude = match exponent {
            0x7ff => Magnitude::Infinite,
            0 => Magnitude::rounded(u128::from(fraction), -1074),
            _ => Magnitude::rounded(u128::from(fraction | 1 << 52), exponent - 1075),
        };
        Self { negative: value.is_sign_negative(), magnitude }
    }
}

impl Magnitude {
    /// The number nearest to `value` × 2^`exponent`, ties to even.
    fn rounded(value: u128, exponent: i32) -> Self {
        if value == 0 {
            return Self::Zero;
        }
        let excess = 64 - value.leading_zeros() as i32;
        let (mantissa, exponent) = if excess <= 0 {
            ((value as u64) << -excess, exponent + excess)
        } else {
            match u64::try_from(shifted_down(value, excess as u32)) {
                Ok(mantissa) => (mantissa, exponent + excess),
                // Rounding carried into the 65th bit, so all other bits are zero.
                Err(_) => (1 << 63, exponent + excess + 1),
            }
        };
        if exponent + 64 > EXPONENT_MAX { Self::Infinite } else { Self::Normal { mantissa, exponent } }
    }

    /// The number nearest to `digits` × 10^`exponent`; `None` if it is infinite, or rounds to zero without being zero.
    fn of_quotient(digits: Natural, exponent: i32) -> Option<Self> {
        if digits.is_zero() {
            return Some(Self::Zero);
        }
        let (mut rest, mut divisor) = (digits, Natural(vec![1]));
        let scaled = if exponent >= 0 { &mut rest } else { &mut divisor };
        scaled.multiply_by_power_of_ten(exponent.unsigned_abs());
        // Shifted such that the quotient is at least 1 and less than 2.
        let mut shift = rest.bits() - divisor.bits();
        if shift >= 0 {
            divisor.shift_up(shift as u32);
        } else {
            rest.shift_up(shift.unsigned_abs());
        }
        if rest.compare(&divisor) == Ordering::Less {
            rest.shift_up(1);
            shift -= 1;
        }
        // 65 bits of the quotient, and whether a remainder is left.
        let mut quotient = 0u128;
        for _ in 0..65 {
            quotient <<= 1;
            if rest.compare(&divisor) != Ordering::Less {
                rest.subtract(&divisor);
                quotient |= 1;
            }
            rest.shift_up(1);
        }
        let quotient = quotient << 1 | u128::from(!rest.is_zero());
        if shift < EXPONENT_MIN || (shift == EXPONENT_MIN && quotient == 1 << 65) {
            return None;
        }
        match Self::rounded(quotient, shift - 65) {
            Self::Infinite => None,
            magnitude => Some(magnitude),
        }
    }
}

/// `value` / 2^`bits`, rounded to nearest, ties to even.
fn shifted_down(value: u128, bits: u32) -> u128 {
    if bits == 0 {
        return value;
    }
    // Any further down is less than half a unit: no value here has all 128 bits.
    let Some(whole) = value.checked_shr(bits) else { return 0 };
    let rest = value & ((1 << bits) - 1);
    let half = 1 << (bits - 1);
    whole + u128::from(rest > half || (rest == half && whole & 1 == 1))
}

/// Appends `value` × 2^`bits`.
fn write_shifted(value: u64, bits: u32, output: &mut Vec<u8>) {
    /// Nine decimal digits per limb.
    const BASE: u64 = 1_000_000_000;
    /// A larger step would overflow.
    const STEP_BITS: u32 = 32;

    let mut limbs = vec![value % BASE, value / BASE % BASE, value / BASE / BASE];
    let mut left = bits;
    while left > 0 {
        let step = left.min(STEP_BITS);
        left -= step;
        let mut carry = 0;
        for limb in &mut limbs {
            let shifted = (*limb << step) + carry;
            *limb = shifted % BASE;
            carry = shifted / BASE;
        }
        while carry > 0 {
            limbs.push(carry % BASE);
            carry /= BASE;
        }
    }
    let mut buffer = itoa::Buffer::new();
    let mut first = true;
    for &limb in limbs.iter().rev().skip_while(|&&limb| limb == 0) {
        let digits = buffer.format(limb).as_bytes();
        if !first {
            output.resize(output.len() + 9 - digits.len(), b'0');
        }
        output.extend_from_slice(digits);
        first = false;
    }
    if first {
        output.push(b'0');
    }
}

/// Parses the digits of a decimal text without its sign as one integer, and the power of ten to multiply it by.
///
/// `None` if the text is not a decimal, or so large or small that it would round to infinity or zero.
fn decimal(text: &[u8]) -> Option<(Natural, i32)> {
    let (mantissa, exponent) = match text.iter().position(|byte| byte.eq_ignore_ascii_case(&b'e')) {
        Some(mark) => (&text[..mark], decimal_exponent(&text[mark + 1..])?),
        None => (text, 0),
    };
    let mut digits = Natural(Vec::with_capacity(mantissa.len() / 16 + 2));
    let (mut count, mut decimals, mut point) = (0, 0, false);
    for &byte in mantissa {
        match byte {
            b'0'..=b'9' => {
                digits.multiply_add(10, u32::from(byte - b'0'));
                count += 1;
                decimals += i32::from(point);
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    if count == 0 {
        return None;
    }
    let exponent = exponent - decimals;
    // 2^EXPONENT_MAX has 4,933 digits, and 2^EXPONENT_MIN starts after 4,950 zeros; a digit is worth between three and
    // four bits.
    let (large, small) = (digits.bits() / 4 + exponent > 5_000, digits.bits() / 3 + exponent < -5_000);
    (digits.is_zero() || !(large || small)).then_some((digits, exponent))
}

/// Parses the exponent of a decimal text, clamped to a range beyond which nothing changes.
fn decimal_exponent(text: &[u8]) -> Option<i32> {
    const BOUND: i32 = 1_000_000;

    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |value, digit| BOUND.min(value * 10 + i32::from(digit - b'0')));
    Some(if negative { -value } else { value })
}

/// A large integer in limbs of 32 bits, lowest first, without leading zero limbs.
#[derive(Clone, Debug)]
struct Natural(Vec<u32>);

impl Natural {
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of bits.
    fn bits(&self) -> i32 {
        self.0.last().map_or(0, |top| (self.0.len() as u32 * 32 - top.leading_zeros()) as i32)
    }

    fn multiply_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_power_of_ten(&mut self, exponent: u32) {
        for _ in 0..exponent / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10u32.pow(exponent % 9), 0);
    }

    fn shift_up(&mut self, bits: u32) {
        self.multiply_add(1 << (bits % 32), 0);
        if !self.is_zero() {
            self.0.splice(0..0, std::iter::repeat_n(0, (bits / 32) as usize));
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Subtracts a number that is not larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (at, limb) in self.0.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = first || second;
        }
        debug_assert!(!borrow, "the other number was larger");
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> LongDouble {
        LongDouble::read(text.as_bytes()).expect("a number")
    }

    fn written(value: LongDouble) -> String {
        let mut output = Vec::new();
        value.write(&mut output);
        String::from_utf8(output).expect("ASCII")
    }

    fn sum(left: &str, right: &str) -> String {
        written(read(left).checked_add(read(right)).expect("a finite sum"))
    }

    /// Of `incr.tcl`, `hash.tcl`, and the documentation of INCRBYFLOAT.
    #[test]
    fn sums_of_redis_tests() {
        for (left, right, expected) in [
            ("0", "1", "1"),
            ("1", "0.25", "1.25"),
            ("1.5", "1.5", "3"),
            ("17179869184", "1.5", "17179869185.5"),
            ("17179869184", "17179869184", "34359738368"),
            ("1", "-1.1", "-0.1"),
            ("10.50", "0.1", "10.6"),
            ("10.6", "-5", "5.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3.0e3", "200", "3200"),
            ("0", "1.23", "1.23"),
            ("1.23", "0.77", "2"),
            ("2", "-0.1", "1.9"),
            ("1.23", "-1.1", "0.13"),
            ("0.1", "0.2", "0.3"),
            ("0.024390243902439025", "-0.024390243902439025", "0"),
            ("-0", "-0", "0"),
        ] {
            assert_eq!(sum(left, right), expected, "{left} + {right}");
        }
    }

    /// What glibc's `strtold` and `%.17Lf` say on x86-64: the type's own rounding shows.
    #[test]
    fn sums_with_the_rounding_of_the_type() {
        for (left, right, expected) in [
            ("5000.1", "0.1", "5000.20000000000000018"),
            ("10000.1", "0", "10000.09999999999999964"),
            ("1e30", "1e-3", "1000000000000000000024696061952"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551615", "0.5", "18446744073709551616"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("18446744073709551618", "1", "18446744073709551620"),
            ("9223372036854775807", "0.5", "9223372036854775807.5"),
            ("1e-17", "0", "0.00000000000000001"),
            ("4e-18", "0", "0"),
            ("-4e-18", "0", "0"),
            ("3e-4951", "0", "0"),
        ] {
            assert_eq!(sum(left, right), expected, "{left} + {right}");
            assert_eq!(sum(right, left), expected, "{right} + {left}");
        }
        assert_eq!(sum("1.1e4932", "0").len(), 4_933);
    }

    #[test]
    fn what_is_no_finite_number() {
        for refused in
            ["", "-", "+", ".", "e5", "1e", "1e+", "nan", " 1", "1 ", "1.2.3", "1e1.5", "0x1p3", "--1", "1\0"]
        {
            assert_eq!(LongDouble::read(refused.as_bytes()), None, "{refused:?}");
        }
        for refused in ["1.2e4932", "1e5000", "1e99999999999999999999", "1e-4960", "1e-99999999999999999999"] {
            assert_eq!(LongDouble::read(refused.as_bytes()), None, "{refused}");
        }
        assert_eq!(read("0e99999999999"), LongDouble::ZERO);
        assert_eq!(LongDouble::read(&[b'1'; TEXT_BYTES_MAX]), None);
        assert_eq!(LongDouble::read(&[b'9'; TEXT_BYTES_MAX - 1]), None);
        assert_eq!(read(&format!("0.{}", "0".repeat(5_000))), LongDouble::ZERO);
        assert_eq!(read("INF"), read("+Infinity"));
        assert_eq!(written(read("-inf")), "-inf");
        assert_eq!(read("1").checked_add(read("inf")), None);
        assert_eq!(read("-inf").checked_add(read("inf")), None);
        assert_eq!(read("1e4932").checked_add(read("1e4932")), None);
    }

    /// Ties are rounded to even; anything beyond a tie, however far down, is rounded up.
    #[test]
    fn texts_are_read_to_the_last_digit() {
        let tie = "18446744073709551617";
        assert_eq!(sum(tie, "0"), "18446744073709551616");
        assert_eq!(sum(&format!("{tie}.{}1", "0".repeat(3_000)), "0"), "18446744073709551618");
        assert_eq!(sum("18446744073709551619", "0"), "18446744073709551620");
    }
}
