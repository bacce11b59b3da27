//! The arguments of a command as they lie in the input: bulk strings one after the other.
//!
//! ```text
//! $3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n
//! ```
//!
//! They stay encoded on their way to the shard that executes them, so that a command of any number of arguments travels
//! as one run of bytes and nothing is allocated for it. Reading a length again is as cheap as keeping it elsewhere.

/// What lies between two arguments, and after the last.
const LINE_END_BYTES: usize = 2;

/// Bulk strings that lie one after the other. Whoever makes one has validated them: from bytes that are no bulk
/// strings, the arguments come out wrong or too few, and nothing worse happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Args<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Args<'a> {
    /// So many arguments, in these bytes.
    #[inline]
    pub fn new(bytes: &'a [u8], count: usize) -> Self {
        Self { bytes, count }
    }

    /// How many arguments there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The arguments as they are encoded.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The arguments in their order.
    #[inline]
    pub fn iter(&self) -> Iter<'a> {
        Iter { left: *self }
    }

    /// The first argument, and those after it.
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

/// Arguments one by one.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    left: Args<'a>,
}

impl<'a> Iter<'a> {
    /// The arguments that have not been handed out yet.
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

/// A length of any number of digits, and what follows its line.
fn long_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let digits = bytes.get(1..)?;
    let end = digits.iter().position(|&b| b == b'\r')?;
    let length = digits[..end].iter().fold(0_usize, |n, &b| n.wrapping_mul(10).wrapping_add(usize::from(b & 0x0f)));
    Some((length, digits.get(end + LINE_END_BYTES..)?))
}

/// Appends a argument as a bulk string.
#[inline]
pub fn push_arg(arg: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    out.extend_from_slice(itoa::Buffer::new().format(arg.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}

/// The bytes of [`Args`].
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
