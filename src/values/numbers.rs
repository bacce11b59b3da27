//! Numbers as Redis parses them from arguments and values, and formats them in replies and values.
//!
//! | text | read by | written by |
//! |---|---|---|
//! | integers | [`integer`] | `itoa` |
//! | scores | [`float`] | [`write_float`] |
//! | coordinates | [`float`] | [`write_human_float`] |
//! | values of INCRBYFLOAT and HINCRBYFLOAT | [`LongDouble::read`] | [`LongDouble::write`] |
//!
//! Hexadecimal floats, which C's `strtod` accepts, are rejected.

mod long_double;

pub use long_double::LongDouble;

use std::io::Write;

/// The longest text of an `i64`.
const INTEGER_BYTES_MAX: usize = 20;

/// The longest text of an `f64` as `{:e}` writes it: sign, 17 digits, point, `e-308`.
const EXPONENTIAL_BYTES_MAX: usize = 24;

/// Parses an integer in canonical form only: no space, `+`, leading zero or `-0`, and nothing out of range
/// (`string2ll`).
#[inline]
pub fn integer(text: &[u8]) -> Option<i64> {
    if text.len() > INTEGER_BYTES_MAX {
        return None;
    }
    let (negative, digits) = match text {
        b"0" => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let mut magnitude = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// Parses a float: decimal with or without an exponent, or infinity (`inf`, `+inf`, `-Infinity`, in any case).
///
/// `None` for NaN, for spaces, and for numbers so large or small that they round to infinity or zero (`string2d`).
pub fn float(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let sound = if value.is_infinite() {
        !text.iter().any(u8::is_ascii_digit)
    } else if value == 0.0 {
        is_zero(text)
    } else {
        !value.is_nan()
    };
    sound.then_some(value)
}

/// Whether all digits before the exponent are zero.
fn is_zero(text: &[u8]) -> bool {
    !text.iter().take_while(|byte| !byte.eq_ignore_ascii_case(&b'e')).any(|byte| matches!(byte, b'1'..=b'9'))
}

/// Appends a float in the format of replies since Redis 7.2: the shortest text that parses to this float (`d2string`).
///
/// Integers up to 2⁶² have neither point nor exponent; for other numbers the exponent is placed as `fpconv` does. Zero
/// keeps its sign; further texts are `inf`, `-inf`, `nan`. The digits are always the shortest, and of these the
/// nearest. For a few floats in a thousand those of `fpconv` are not: it writes 5001.9755854 as `5001.9755854000005`.
pub fn write_float(value: f64, output: &mut Vec<u8>) {
    /// Half the range of an `i64`: beyond it, Redis does not check for integers.
    const INTEGER_MAX: f64 = (i64::MAX / 2) as f64;

    if value.is_nan() {
        output.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        output.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        output.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.abs() <= INTEGER_MAX && value.trunc() == value {
        output.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        write_shortest(value, output);
    }
}

/// Formats the shortest digits of a finite, non-zero float like `fpconv_dtoa`.
fn write_shortest(value: f64, output: &mut Vec<u8>) {
    let mut buffer = [0; EXPONENTIAL_BYTES_MAX];
    let (digits, count, exponent) = shortest_digits(value.abs(), &mut buffer);
    let digits = &digits[..count];
    // The exponent of the last digit; `exponent` is that of the first.
    let last = exponent - (count as i32 - 1);
    if value < 0.0 {
        output.push(b'-');
    }
    if last >= 0 && exponent < count as i32 + 7 {
        output.extend_from_slice(digits);
        output.resize(output.len() + last as usize, b'0');
    } else if last < 0 && (last > -7 || exponent.abs() < 4) {
        if exponent < 0 {
            output.extend_from_slice(b"0.");
            output.resize(output.len() + exponent.unsigned_abs() as usize - 1, b'0');
            output.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(exponent as usize + 1);
            output.extend_from_slice(whole);
            output.push(b'.');
            output.extend_from_slice(fraction);
        }
    } else {
        output.push(digits[0]);
        if count > 1 {
            output.push(b'.');
            output.extend_from_slice(&digits[1..]);
        }
        output.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        output.extend_from_slice(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
    }
}

/// The fewest digits that parse to this positive float, their number, and the exponent of the first.
fn shortest_digits(value: f64, buffer: &mut [u8; EXPONENTIAL_BYTES_MAX]) -> (&[u8], usize, i32) {
    let mut rest = &mut buffer[..];
    write!(rest, "{value:e}").expect("room for the longest float");
    let length = EXPONENTIAL_BYTES_MAX - rest.len();
    let mark = buffer[..length].iter().position(|&byte| byte == b'e').expect("an exponent");
    let exponent = integer(&buffer[mark + 1..length]).expect("an integer") as i32;
    // Moves the first digit to where the point was.
    if mark == 1 {
        return (&buffer[..1], 1, exponent);
    }
    buffer[1] = buffer[0];
    (&buffer[1..mark], mark - 1, exponent)
}

/// Appends a float with up to 17 decimals, without trailing zeros, and never with an exponent, as in replies of GEOPOS
/// (`ld2string` with `LD_STR_HUMAN`).
///
/// The decimals are those of the exact binary value: 0.1 is written as `0.10000000000000001`.
pub fn write_human_float(value: f64, output: &mut Vec<u8>) {
    if value.is_nan() {
        output.extend_from_slice(b"nan");
    } else {
        LongDouble::from(value).write(output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: f64) -> String {
        let mut output = Vec::new();
        write_float(value, &mut output);
        String::from_utf8(output).expect("ASCII")
    }

    fn human(value: f64) -> String {
        let mut output = Vec::new();
        write_human_float(value, &mut output);
        String::from_utf8(output).expect("ASCII")
    }

    /// The vectors of Redis's `test_string2ll`.
    #[test]
    fn integers() {
        for refused in ["+1", " 1", "1 ", "01", "-0", "", "-", "00", "a", "1a", "1\0", "-01", "--1"] {
            assert_eq!(integer(refused.as_bytes()), None, "{refused:?}");
        }
        for value in [0, 1, -1, 99, -99, 4_294_967_296, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            assert_eq!(integer(value.to_string().as_bytes()), Some(value));
        }
        for refused in ["-9223372036854775809", "9223372036854775808", "18446744073709551615", "99999999999999999999"] {
            assert_eq!(integer(refused.as_bytes()), None, "{refused}");
        }
        assert_eq!(integer(&[b'1'; 100]), None);
    }

    #[test]
    fn floats() {
        for (text, value) in [
            ("1", 1.0),
            ("+1", 1.0),
            ("-1.5", -1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("007", 7.0),
            ("1e5", 1e5),
            ("1E+5", 1e5),
            ("1e-5", 1e-5),
            ("0e999", 0.0),
            ("0.000", 0.0),
            ("5e-324", 5e-324),
            ("inf", f64::INFINITY),
            ("+inf", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("-infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(float(text.as_bytes()), Some(value), "{text}");
        }
        for refused in [
            "", " 1", "1 ", "nan", "-nan", "NaN", "1e", "e1", ".", "-", "+", "1e400", "-1e400", "1e-400", "1x", "1\0",
            "in", "infi", "1,5", "--1", "0x10", "\u{661}",
        ] {
            assert_eq!(float(refused.as_bytes()), None, "{refused:?}");
        }
        assert_eq!(float(b"\xff"), None);
        assert!(float(b"-0").is_some_and(|zero| zero.is_sign_negative()));
    }

    /// The layouts of `emit_digits` in `fpconv_dtoa.c`, each on both sides of its limits.
    #[test]
    fn floats_in_replies() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (3.1, "3.1"),
            (1.0 / 3.0, "0.3333333333333333"),
            (-1.1, "-1.1"),
            (3.25159, "3.25159"),
            (1234.5678901234, "1234.5678901234"),
            (12345.678901, "12345.678901"),
            (12345.6789012, "1.23456789012e+4"),
            (0.0001234567891, "1.234567891e-4"),
            (0.001234567891, "0.001234567891"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (1e18, "1000000000000000000"),
            (1e19, "1e+19"),
            (1.2345678901234567e19, "12345678901234567000"),
            (4.611686018427388e18, "4611686018427387904"),
            (4.611686018427389e18, "4611686018427389000"),
            (1e20, "1e+20"),
            (1e100, "1e+100"),
            (-1.5e-100, "-1.5e-100"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (9007199254740993.0, "9007199254740992"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(written(value), text);
        }
    }

    /// The first two are of the documentation of GEOPOS.
    #[test]
    fn floats_for_people() {
        for (value, text) in [
            (13.361_389_338_970_184, "13.36138933897018433"),
            (38.115_556_395_496_3, "38.11555639549629859"),
            (0.1, "0.10000000000000001"),
            (2.0, "2"),
            (-2.5, "-2.5"),
            (0.0, "0"),
            (-0.0, "0"),
            (-1e-20, "0"),
            (1e22, "10000000000000000000000"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(human(value), text);
        }
        assert_eq!(human(1e300).len(), 301);
        assert_eq!(human(5e-324), "0");
    }

    proptest! {
        #[test]
        fn integers_are_how_they_would_be_written(text in "-?[0-9]{1,20}") {
            let expected = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(integer(text.as_bytes()), expected);
        }

        #[test]
        fn any_text_is_fine(text: Vec<u8>) {
            integer(&text);
            float(&text);
            LongDouble::read(&text);
        }

        #[test]
        fn written_floats_read_as_the_same(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(float(written(value).as_bytes()), Some(value));
        }

        /// `format!` is exact too, and rounds ties to even.
        #[test]
        fn human_floats_are_those_of_the_standard_library(bits: u64, small in -1e9..1e9) {
            for value in [f64::from_bits(bits), small] {
                prop_assume!(value.is_finite());
                let text = format!("{value:.17}");
                let text = text.trim_end_matches('0').trim_end_matches('.');
                prop_assert_eq!(human(value), if text == "-0" { "0" } else { text });
            }
        }
    }
}
