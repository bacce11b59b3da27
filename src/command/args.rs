//! The arguments of a command, encoded as they lie in the input: consecutive bulk strings.
//!
//! ```text
//! $3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n
//! ```
//!
//! They stay encoded on their way to the shard that executes the command, so that any number of arguments travels as
//! one run of bytes without an allocation. Parsing a length again costs no more than storing it elsewhere.

/// Bytes of the line end after a length and after an argument.
const LINE_END_BYTES: usize = 2;

/// Consecutive bulk strings. The constructor's caller has validated them: from invalid bytes, the iterator returns
/// wrong or too few arguments, and nothing worse happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Args<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Args<'a> {
    /// `count` arguments, encoded in `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8], count: usize) -> Self {
        Self { bytes, count }
    }

    /// The number of arguments.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there are no arguments.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded arguments.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Iterates over the arguments in their order.
    #[inline]
    pub fn iter(&self) -> Iter<'a> {
        Iter { left: *self }
    }

    /// Splits off the first argument: returns it and the remaining arguments.
    #[inline]
    pub fn split_first(&self) -> Option<(&'a [u8], Self)> {
        let mut iter = self.iter();
        let first = iter.next()?;
        Some((first, iter.left))
    }

    /// The arguments without the first `n`.
    #[inline]
    pub fn skip(&self, n: usize) -> Self {
        let mut iter = self.iter();
        for _ in 0..n {
            if iter.next().is_none() {
                break;
            }
        }
        iter.left
    }
}

impl<'a> IntoIterator for Args<'a> {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;

    #[inline]
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over [`Args`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    left: Args<'a>,
}

impl<'a> Iter<'a> {
    /// The arguments that the iterator has not returned yet.
    #[inline]
    pub fn rest(&self) -> Args<'a> {
        self.left
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left.count == 0 {
            return None;
        }
        let digit = |b: u8| usize::from(b & 0x0f);
        // Nearly all arguments have lengths of one or two digits.
        let (length, rest) = match self.left.bytes {
            [_, ones, b'\r', _, rest @ ..] => (digit(*ones), rest),
            [_, tens, ones, b'\r', _, rest @ ..] => (digit(*tens) * 10 + digit(*ones), rest),
            bytes => long_length(bytes)?,
        };
        let (arg, rest) = rest.split_at_checked(length)?;
        self.left = Args { bytes: rest.get(LINE_END_BYTES..)?, count: self.left.count - 1 };
        Some(arg)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.count, Some(self.left.count))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// Parses a length of any number of digits; returns it and the bytes after its line.
fn long_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let digits = bytes.get(1..)?;
    let end = digits.iter().position(|&b| b == b'\r')?;
    let length = digits[..end].iter().fold(0_usize, |n, &b| n.wrapping_mul(10).wrapping_add(usize::from(b & 0x0f)));
    Some((length, digits.get(end + LINE_END_BYTES..)?))
}

/// Appends an argument as a bulk string.
#[inline]
pub fn push_arg(arg: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    out.extend_from_slice(itoa::Buffer::new().format(arg.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

/// Encodes arguments as the bytes of [`Args`].
pub fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(args.iter().map(|w| w.len() + 16).sum());
    for arg in args {
        push_arg(arg, &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_as_they_were_put_in() {
        let long = vec![b'v'; 70_000];
        let given: Vec<&[u8]> = vec![b"SET", b"", b"0123456789", b"\r\n$1\r\n", &long[..100], &long[..1234], &long];
        let bytes = encode(&given);
        let args = Args::new(&bytes, given.len());
        assert_eq!(args.iter().collect::<Vec<_>>(), given);
        assert_eq!(args.into_iter().len(), given.len());
        for n in 0..=given.len() + 1 {
            let rest = args.skip(n);
            assert_eq!(rest.into_iter().collect::<Vec<_>>(), given[n.min(given.len())..]);
            assert_eq!(rest.len(), given.len().saturating_sub(n));
        }
        let (first, rest) = args.split_first().expect("there are args");
        assert_eq!((first, rest.len(), rest.bytes()), (&b"SET"[..], 6, &bytes[9..]));
        assert!(Args::default().split_first().is_none() && Args::default().is_empty());
    }

    #[test]
    fn bytes_that_are_no_words_do_no_harm() {
        for bytes in [
            &b""[..],
            b"$",
            b"$1",
            b"$1\r",
            b"$1\r\n",
            b"$9\r\nx\r\n",
            b"$12345678901234567890\r\nx\r\n",
            b"$5\r\nabcde\r",
        ] {
            assert_eq!(Args::new(bytes, 1).iter().next(), None, "{bytes:?}");
        }
    }
}
