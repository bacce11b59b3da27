//! LZF decompression, for the long strings that Redis compresses.
//!
//! ```text
//! 000lllll                      1–32 bytes follow as they are
//! llldddddd … dddddddd          3–8 bytes from 1–8,192 bytes back (l: length − 2, d: distance − 1)
//! 111ddddd llllllll dddddddd    9–264 bytes from 1–8,192 bytes back (l: length − 9)
//! ```

/// Highest expansion: three bytes become 264.
pub(super) const RATIO_MAX: usize = 88;

/// Decompresses a string to exactly `length` bytes; `None` if it is malformed or has another length.
pub(super) fn decompress(mut compressed: &[u8], bytes: usize) -> Option<Vec<u8>> {
    if bytes.div_ceil(RATIO_MAX) > compressed.len() {
        return None;
    }
    let mut output: Vec<u8> = Vec::with_capacity(bytes);
    while let Some((&first, rest)) = compressed.split_first() {
        compressed = rest;
        if first < 0x20 {
            let (literal, rest) = compressed.split_at_checked(usize::from(first) + 1)?;
            if literal.len() > bytes - output.len() {
                return None;
            }
            output.extend_from_slice(literal);
            compressed = rest;
            continue;
        }
        let (length, rest) = match first >> 5 {
            7 => compressed.split_first().map(|(&more, rest)| (usize::from(more) + 9, rest))?,
            short => (usize::from(short) + 2, compressed),
        };
        let (&low, rest) = rest.split_first()?;
        compressed = rest;
        let distance = usize::from(u16::from_be_bytes([first & 0x1f, low])) + 1;
        let from = output.len().checked_sub(distance)?;
        if length > bytes - output.len() {
            return None;
        }
        // The source of a copy may overlap its destination: the copied bytes then repeat.
        let mut left = length;
        while left > 0 {
            let step = left.min(output.len() - from);
            output.extend_from_within(from..from + step);
            left -= step;
        }
    }
    (output.len() == bytes).then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_and_repetitions() {
        assert_eq!(decompress(b"\x02abc", 3).as_deref(), Some(&b"abc"[..]));
        assert_eq!(decompress(b"\x02abc\x20\x02", 6).as_deref(), Some(&b"abcabc"[..]));
        assert_eq!(decompress(b"\x00a\xe0\xff\x00", 265).as_deref(), Some(&[b'a'; 265][..]));
        assert_eq!(decompress(b"\x01ab\xc0\x01", 10).as_deref(), Some(&b"ababababab"[..]));
        assert_eq!(decompress(b"", 0).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn damage() {
        for (compressed, bytes) in [
            (&b"\x02abc"[..], 2),
            (b"\x02abc", 4),
            (b"\x02ab", 3),
            (b"\x00a\x20", 4),
            (b"\x00a\x20\x01", 4),
            (b"\x00a\xe0", 20),
            (b"\x00a\xe0\x01", 11),
            (b"\x00a\x20\x00", 3),
            (b"", 1),
            (b"\x00a\xe0\xff\x00", usize::MAX),
        ] {
            assert_eq!(decompress(compressed, bytes), None, "{compressed:?} {bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_fine(compressed: Vec<u8>, bytes in 0..10_000usize) {
            decompress(&compressed, bytes);
        }
    }
}
