//! Inline commands, which people type, or scripts that do not speak RESP: a line of arguments, which may be quoted as
//! in a shell.
//!
//! ```text
//! SET "two words\r\n\x00" 'it\'s'
//! ```

use super::{Parsed, ProtocolError};
use crate::command::args::push_arg;
use memchr::memchr;

/// The longest inline command, in bytes.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// Parses an inline command.
pub(super) fn inline<'a>(input: &[u8]) -> Parsed<'a> {
    let Some(end) = memchr(b'\n', &input[..input.len().min(INLINE_BYTES_MAX + 1)]) else {
        if input.len() > INLINE_BYTES_MAX {
            return Parsed::Broken(ProtocolError::TooBigInline);
        }
        return Parsed::Incomplete { needed: input.len() + 1 };
    };
    let length = end + 1;
    let line = &input[..end];
    let Some((args, count)) = split(line.strip_suffix(b"\r").unwrap_or(line)) else {
        return Parsed::Broken(ProtocolError::UnbalancedQuotes);
    };
    if is_http(line) {
        return Parsed::Broken(ProtocolError::Http);
    }
    if count == 0 { Parsed::Skip { length } } else { Parsed::Inline { args, count, length } }
}

/// True if the line is an HTTP request: its first argument is one that browsers send first.
fn is_http(line: &[u8]) -> bool {
    let arg = line.split(|b| is_space(*b)).next().unwrap_or_default();
    arg.eq_ignore_ascii_case(b"post") || arg.eq_ignore_ascii_case(b"host:")
}

/// Encodes the arguments of a line as bulk strings, and counts them. None if a quote is not closed, or its end is not
/// followed by a space.
fn split(line: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut args, mut count) = (Vec::with_capacity(line.len() + 32), 0);
    let (mut left, mut arg) = (line, Vec::new());
    loop {
        let spaces = left.iter().take_while(|b| is_space(**b)).count();
        left = &left[spaces..];
        if left.is_empty() {
            return Some((args, count));
        }
        arg.clear();
        left = take_word(left, &mut arg)?;
        push_arg(&arg, &mut args);
        count += 1;
    }
}

/// Appends the bytes of the first argument of `left` to `arg`, and returns the rest of the line.
fn take_word<'a>(mut left: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match *left {
            [] => return Some(left),
            [b, ..] if is_space(b) => return Some(left),
            [quote @ (b'"' | b'\''), ref quoted @ ..] => {
                left = if quote == b'"' { double_quoted(quoted, arg)? } else { single_quoted(quoted, arg)? };
                // A closing quote ends the argument.
                return left.first().is_none_or(|b| is_space(*b)).then_some(left);
            }
            [b, ref rest @ ..] => {
                arg.push(b);
                left = rest;
            }
        }
    }
}

/// Appends the bytes up to the closing double quote. Escapes such as `\n` and `\x0a` become one byte; before any other
/// byte, the backslash is dropped.
fn double_quoted<'a>(mut left: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match *left {
            [b'"', ref rest @ ..] => return Some(rest),
            [b'\\', b'x', high, low, ref rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                arg.push(hex(high) << 4 | hex(low));
                left = rest;
            }
            [b'\\', b, ref rest @ ..] => {
                arg.push(match b {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    b => b,
                });
                left = rest;
            }
            [b, ref rest @ ..] => {
                arg.push(b);
                left = rest;
            }
            [] => return None,
        }
    }
}

/// Appends the bytes up to the closing single quote, unchanged except that `\'` becomes a quote.
fn single_quoted<'a>(mut left: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match *left {
            [b'\'', ref rest @ ..] => return Some(rest),
            [b'\\', b'\'', ref rest @ ..] => {
                arg.push(b'\'');
                left = rest;
            }
            [b, ref rest @ ..] => {
                arg.push(b);
                left = rest;
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// C's `isspace`.
fn is_space(b: u8) -> bool {
    matches!(b, b' ' | 0x09..=0x0d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Args;

    /// The arguments of a line, or the other result of parsing it.
    fn args(line: &[u8]) -> Result<Vec<Vec<u8>>, Parsed<'static>> {
        match inline(&[line, b"\r\nnext"].concat()) {
            Parsed::Inline { args, count, length } => {
                assert_eq!(length, line.len() + 2);
                let args: Vec<_> = Args::new(&args, count).iter().map(<[u8]>::to_vec).collect();
                assert_eq!(args.len(), count);
                Ok(args)
            }
            other => Err(other),
        }
    }

    #[test]
    fn words_are_split_and_quoted_as_in_redis() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"PING", &[b"PING"]),
            (b"  set\tk\x0b v ", &[b"set", b"k", b"v"]),
            (b"\"a b\" 'c d' e", &[b"a b", b"c d", b"e"]),
            (b"\"\" ''", &[b"", b""]),
            (br#""\x41\x0A\xff\xzz\n\r\t\b\a\\\"\q""#, &[b"A\n\xffxzz\n\r\t\x08\x07\\\"q"]),
            (br"'\n \'x\''", &[br"\n 'x'"]),
            (b"ab\"cd\"", &[b"abcd"]),
            (b"a\\n", &[b"a\\n"]),
        ];
        for (line, expected) in cases {
            assert_eq!(args(line).expect("args"), *expected, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn quotes_that_do_not_end_break_the_connection() {
        for line in [&b"\"a"[..], b"'a", b"\"a\"b", b"'a'b", b"\"a\\", b"set k \"v\\\"", b"x \"\\x4"] {
            assert_eq!(args(line), Err(Parsed::Broken(ProtocolError::UnbalancedQuotes)), "{line:?}");
        }
    }

    #[test]
    fn lines_without_words_and_lines_of_browsers() {
        assert_eq!(args(b""), Err(Parsed::Skip { length: 2 }));
        assert_eq!(args(b" \t "), Err(Parsed::Skip { length: 5 }));
        assert_eq!(args(b"POST / HTTP/1.1"), Err(Parsed::Broken(ProtocolError::Http)));
        assert_eq!(args(b"Host: localhost:6379"), Err(Parsed::Broken(ProtocolError::Http)));
    }

    #[test]
    fn long_lines_break_the_connection() {
        let longest = [b"x".repeat(INLINE_BYTES_MAX), b"\n".to_vec()].concat();
        assert!(matches!(inline(&longest), Parsed::Inline { count: 1, .. }));
        assert_eq!(inline(&longest[..INLINE_BYTES_MAX]), Parsed::Incomplete { needed: INLINE_BYTES_MAX + 1 });
        let longer = [b"x".repeat(INLINE_BYTES_MAX + 1), b"\n".to_vec()].concat();
        assert_eq!(inline(&longer), Parsed::Broken(ProtocolError::TooBigInline));
    }
}
