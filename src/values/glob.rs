//! Glob patterns, as in KEYS, SCAN … MATCH, PSUBSCRIBE and CONFIG GET.
//!
//! `*` matches any run of bytes, `?` any byte, `[a-z]` and `[^a-z]` one byte in or not in a class; `\` makes the next
//! byte literal. Redis's matcher has corner cases that clients can observe, which this one reproduces:
//!
//! * no pattern but the empty one matches the empty text, not even `*`;
//! * a class without a closing bracket ends with the pattern; a `]` right after `x-` is the end of a range;
//! * ranges compare signed bytes, as on x86-64, and their ends may be in either order;
//! * when ignoring case, an escaped byte within a class still has to match exactly, and the ends of a range are ordered
//!   before they are converted to lower case, which in glibc makes them unsigned too.
//!
//! Every part of a pattern except `*` matches exactly one byte. So stars cut a pattern into pieces of fixed length: the
//! first has to match the start of the text and the last its end; each one between takes its leftmost match behind the
//! one before, since a later one would only leave less of the text.
//!
//! Matching takes time proportional to the length of the text, whatever both contain. A piece of plain bytes is found
//! by a substring search of linear time; one with classes or question marks by Shift-And (Baeza-Yates and Gonnet, "A
//! New Approach to Text Searching", 1992), which advances all prefixes of the piece by one byte at once, 64 per word.
//! Its tables are bounded by [`SEARCHED_BYTES_MAX`], pattern by pattern; a pattern over the limit is refused. (Redis 7
//! gives up beyond 1,000 stars, and then answers that nothing matches.)

use memchr::memmem::Finder;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 64 << 10;
/// Bytes that the pieces between stars may have together, those without `?` and `[` excepted.
const SEARCHED_BYTES_MAX: usize = 1024;
/// Words of a Shift-And state.
const WORDS_MAX: usize = SEARCHED_BYTES_MAX.div_ceil(u64::BITS as usize);

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooComplex;

impl TooComplex {
    /// What a client is told.
    pub const TEXT: &'static str =
        "ERR pattern is too complex: up to 65536 bytes, of which up to 1024 in parts with ? or [ between two *";
}

/// A pattern, prepared for matching many texts.
#[derive(Debug)]
pub struct Glob<'p> {
    /// The piece before the first star, or all of a pattern without one.
    head: Piece<'p>,
    /// The pieces between stars, except empty ones.
    middle: Vec<Search>,
    /// The piece after the last star. None without a star.
    tail: Option<Piece<'p>>,
    /// Bytes that a text has to have at least.
    bytes_min: usize,
    pattern_bytes: usize,
    ignore_case: bool,
}

/// A run of parts other than stars.
#[derive(Clone, Copy, Debug, Default)]
struct Piece<'p> {
    pattern: &'p [u8],
    /// The bytes that it matches.
    parts: usize,
    /// Only plain and escaped bytes.
    literal: bool,
}

/// Finds a piece in a text.
#[derive(Debug)]
enum Search {
    Literal(Box<Finder<'static>>),
    /// Per byte, a bit for each part that it matches; `words` words each.
    Parts {
        masks: Vec<u64>,
        words: usize,
        last: u64,
    },
}

impl<'p> Glob<'p> {
    /// Prepares a pattern.
    ///
    /// # Errors
    /// The pattern would take too long.
    pub fn new(pattern: &'p [u8], ignore_case: bool) -> Result<Self, TooComplex> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(TooComplex);
        }
        let head = piece(pattern);
        let mut glob =
            Self { head, middle: Vec::new(), tail: None, bytes_min: head.parts, pattern_bytes: 0, ignore_case };
        glob.pattern_bytes = pattern.len();
        let mut rest = &pattern[head.pattern.len()..];
        let mut searched = 0;
        while let [b'*', after @ ..] = rest {
            let next = piece(after);
            rest = &after[next.pattern.len()..];
            glob.bytes_min += next.parts;
            if rest.is_empty() {
                glob.tail = Some(next);
            } else if next.parts > 0 {
                let plain = next.literal && !ignore_case;
                searched += if plain { 0 } else { next.pattern.len() };
                if searched > SEARCHED_BYTES_MAX {
                    return Err(TooComplex);
                }
                glob.middle.push(if plain { Search::literal(next) } else { Search::parts(next, ignore_case) });
            }
        }
        Ok(glob)
    }

    /// Whether a text matches, as Redis's `stringmatchlen` decides.
    pub fn matches(&self, text: &[u8]) -> bool {
        if text.is_empty() {
            return self.pattern_bytes == 0;
        }
        if text.len() < self.bytes_min || (self.tail.is_none() && text.len() != self.bytes_min) {
            return false;
        }
        let (start, mut rest) = text.split_at(self.head.parts);
        if !self.head.matches(start, self.ignore_case) {
            return false;
        }
        let Some(tail) = &self.tail else { return true };
        let (between, end) = rest.split_at(rest.len() - tail.parts);
        rest = between;
        if !tail.matches(end, self.ignore_case) {
            return false;
        }
        for search in &self.middle {
            let Some(after) = search.end(rest) else { return false };
            rest = &rest[after..];
        }
        true
    }

    /// An upper bound of the work of matching a text, about a nanosecond per unit.
    pub fn work(&self, text: &[u8]) -> usize {
        let words = self.middle.iter().map(Search::words).max().unwrap_or(0).max(1);
        text.len() * words + self.pattern_bytes
    }
}

/// The piece at the start of a pattern: all before the first star.
fn piece(pattern: &[u8]) -> Piece<'_> {
    let (mut at, mut parts, mut literal) = (0, 0, true);
    while at < pattern.len() && pattern[at] != b'*' {
        let (length, plain) = part(&pattern[at..]);
        at += length;
        parts += 1;
        literal &= plain;
    }
    Piece { pattern: &pattern[..at], parts, literal }
}

/// The length of the first part of a pattern that is not empty, and whether it is a plain byte.
fn part(pattern: &[u8]) -> (usize, bool) {
    match pattern {
        [b'?', ..] => (1, false),
        [b'[', class @ ..] => (class_step(class, 0, false).0 + 1, false),
        [b'\\', _, ..] => (2, true),
        _ => (1, true),
    }
}

impl Piece<'_> {
    /// Whether the piece matches a text of as many bytes as it has parts.
    fn matches(&self, text: &[u8], ignore_case: bool) -> bool {
        let mut at = 0;
        text.iter().all(|&byte| {
            let (length, matches) = step(&self.pattern[at..], byte, ignore_case);
            at += length;
            matches
        })
    }
}

impl Search {
    fn literal(piece: Piece) -> Self {
        let mut plain = Vec::with_capacity(piece.parts);
        let mut at = 0;
        while at < piece.pattern.len() {
            at += part(&piece.pattern[at..]).0;
            plain.push(piece.pattern[at - 1]);
        }
        Self::Literal(Box::new(Finder::new(&plain).into_owned()))
    }

    fn parts(piece: Piece, ignore_case: bool) -> Self {
        let words = piece.parts.div_ceil(u64::BITS as usize);
        let mut masks = vec![0; (usize::from(u8::MAX) + 1) * words];
        for byte in 0..=u8::MAX {
            let mask = &mut masks[usize::from(byte) * words..][..words];
            let mut at = 0;
            for part in 0..piece.parts {
                let (length, matches) = step(&piece.pattern[at..], byte, ignore_case);
                at += length;
                mask[part / u64::BITS as usize] |= u64::from(matches) << (part % u64::BITS as usize);
            }
        }
        Self::Parts { masks, words, last: 1 << ((piece.parts - 1) % u64::BITS as usize) }
    }

    /// Where the leftmost match ends.
    fn end(&self, text: &[u8]) -> Option<usize> {
        let (masks, words, last) = match self {
            Self::Literal(finder) => return finder.find(text).map(|from| from + finder.needle().len()),
            Self::Parts { masks, words, last } => (masks, *words, *last),
        };
        // Bit n: the n + 1 bytes up to here match the first n + 1 parts.
        let mut state = [0_u64; WORDS_MAX];
        let state = &mut state[..words];
        text.iter()
            .position(|&byte| {
                let mut first = 1;
                for (word, mask) in state.iter_mut().zip(&masks[usize::from(byte) * words..]) {
                    let carried = *word >> (u64::BITS - 1);
                    *word = (*word << 1 | first) & mask;
                    first = carried;
                }
                state[words - 1] & last != 0
            })
            .map(|at| at + 1)
    }

    fn words(&self) -> usize {
        match self {
            Self::Literal(_) => 1,
            Self::Parts { words, .. } => *words,
        }
    }
}

/// The length of the first part of a pattern that is not empty and does not begin with a star, and whether it matches a
/// byte.
#[inline]
fn step(pattern: &[u8], byte: u8, ignore_case: bool) -> (usize, bool) {
    match pattern {
        [] => (0, false),
        [b'?', ..] => (1, true),
        [b'[', class @ ..] => {
            let (length, matches) = class_step(class, byte, ignore_case);
            (length + 1, matches)
        }
        [b'\\', escaped, ..] => (2, same(*escaped, byte, ignore_case)),
        [plain, ..] => (1, same(*plain, byte, ignore_case)),
    }
}

/// The length of a class including its closing bracket, and whether a byte is in it.
fn class_step(class: &[u8], byte: u8, ignore_case: bool) -> (usize, bool) {
    let inverted = class.first() == Some(&b'^');
    let mut at = usize::from(inverted);
    let mut found = false;
    loop {
        match &class[at..] {
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [] => break,
            [start, b'-', end, ..] => {
                found |= in_range(*start, *end, byte, ignore_case);
                at += 3;
            }
            [plain, ..] => {
                found |= same(*plain, byte, ignore_case);
                at += 1;
            }
        }
    }
    (at, found != inverted)
}

fn in_range(start: u8, end: u8, byte: u8, ignore_case: bool) -> bool {
    let (start, end) = if start.cast_signed() > end.cast_signed() { (end, start) } else { (start, end) };
    let order = |byte: u8| match (ignore_case, byte) {
        (false, _) => i16::from(byte.cast_signed()),
        // C cannot tell this from the end of the string.
        (true, 0xff) => -1,
        (true, _) => i16::from(byte.to_ascii_lowercase()),
    };
    (order(start)..=order(end)).contains(&order(byte))
}

#[inline]
fn same(left: u8, right: u8, ignore_case: bool) -> bool {
    left == right || (ignore_case && left.eq_ignore_ascii_case(&right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
        Glob::new(pattern, ignore_case).expect("a simple pattern").matches(text)
    }

    fn glob(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), false)
    }

    fn glob_any_case(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes(), true)
    }

    #[test]
    fn stars_and_question_marks() {
        assert!(glob("*", "foo"));
        assert!(glob("foo*", "foo"));
        assert!(glob("foo***", "foobar"));
        assert!(glob("*bar", "foobar"));
        assert!(glob("f*b*r", "foobar"));
        assert!(glob("h?llo", "hello"));
        assert!(!glob("h?llo", "hllo"));
        assert!(!glob("foo", "foobar"));
        assert!(!glob("foobar", "foo"));
        assert!(!glob("*foo?", "foo"));
        assert!(glob("*ab", "aab"));
        assert!(glob("*?", "x"));
    }

    #[test]
    fn nothing_but_the_empty_pattern_matches_the_empty_text() {
        assert!(glob("", ""));
        assert!(!glob("*", ""));
        assert!(!glob("[^a]", ""));
        assert!(!glob("", "a"));
    }

    #[test]
    fn classes() {
        assert!(glob("h[ae]llo", "hallo"));
        assert!(!glob("h[ae]llo", "hillo"));
        assert!(glob("h[^e]llo", "hallo"));
        assert!(!glob("h[^e]llo", "hello"));
        assert!(glob("h[a-b]llo", "hbllo"));
        assert!(glob("h[b-a]llo", "hallo"));
        assert!(glob("[\\]]", "]"));
        assert!(glob("[a\\-c]", "-"));
        assert!(!glob("[a\\-c]", "b"));
        assert!(!glob("[]a]", "a"));
        assert!(matches(b"[\x7f-\x80]", b"a", false), "signed: from -128 to 127");
    }

    #[test]
    fn classes_that_are_not_closed_end_with_the_pattern() {
        assert!(glob("[abc", "b"));
        assert!(!glob("[", "["));
        assert!(glob("[^", "x"));
        assert!(glob("[a\\", "\\"));
        assert!(glob("[a-]", "^"), "the bracket is the end of the range, which is turned around");
        assert!(glob("x[a-", "x-"));
    }

    #[test]
    fn escapes() {
        assert!(glob("\\*", "*"));
        assert!(!glob("\\*", "a"));
        assert!(glob("a\\", "a\\"));
        assert!(glob("\\\\", "\\"));
        assert!(glob("\\a", "a"));
    }

    #[test]
    fn any_case() {
        assert!(glob_any_case("MAX*", "maxmemory"));
        assert!(glob_any_case("\\Foo", "fOO"));
        assert!(glob_any_case("[a-c]", "B"));
        assert!(glob_any_case("[A-C]", "b"));
        assert!(!glob_any_case("[\\B]", "b"));
        assert!(!glob_any_case("[Z-a]", "z"));
        assert!(!matches(b"[b-\x80]", b"a", true), "from 128 to b");
        assert!(!matches(b"\xc4", b"\xe4", true));
    }

    /// Redis's own test of this: "a*a*a*…b" used to be exponential.
    #[test]
    fn many_stars_are_not_exponential() {
        let pattern = "a*".repeat(1_000) + "b";
        assert!(!glob(&pattern, &"a".repeat(5_000)));
        assert!(!glob(&"*?".repeat(500), &"a".repeat(499)));
    }

    #[test]
    fn patterns_that_would_take_long_are_refused() {
        let refused = |pattern: &str| Glob::new(pattern.as_bytes(), false).is_err();
        assert!(refused(&"a".repeat(PATTERN_BYTES_MAX + 1)) && !refused(&"a".repeat(PATTERN_BYTES_MAX)));
        let searched = |n: usize| format!("*{}*", "?".repeat(n));
        assert!(refused(&searched(SEARCHED_BYTES_MAX + 1)) && !refused(&searched(SEARCHED_BYTES_MAX)));
        assert!(refused(&"*[ab]".repeat(300)), "together");
        assert!(!refused(&"*ab".repeat(20_000)), "plain bytes");
        assert!(!refused(&"?".repeat(20_000)), "not searched for");
        assert!(TooComplex::TEXT.contains(&PATTERN_BYTES_MAX.to_string()));
        assert!(TooComplex::TEXT.contains(&SEARCHED_BYTES_MAX.to_string()));
    }

    /// The recursive definition, with a star that tries every length.
    fn naive(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
        match (pattern, text) {
            (_, []) => pattern.iter().all(|&b| b == b'*'),
            ([], _) => false,
            ([b'*', rest @ ..], _) => {
                rest.iter().all(|&b| b == b'*') || (0..text.len()).any(|n| naive(rest, &text[n..], ignore_case))
            }
            _ => {
                let (length, matches) = step(pattern, text[0], ignore_case);
                matches && naive(&pattern[length..], &text[1..], ignore_case)
            }
        }
    }

    proptest! {
        #[test]
        fn it_decides_as_the_recursive_definition(pattern in "[ab*?\\[\\]\\\\^-]{0,12}", text in "[abAB-]{1,10}", any_case: bool) {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text, any_case), naive(pattern, text, any_case));
        }

        #[test]
        fn long_pieces_are_found_too(
            parts in "(a|[?]|\\[ab\\]){30,100}b{0,1}(a|[?]|\\[ab\\]){30,100}", text in "a{0,200}b{0,1}a{0,200}", closed: bool,
        ) {
            let pattern = format!("*{parts}{}", if closed { "*" } else { "" });
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text, false), naive(pattern, text, false));
        }

        #[test]
        fn any_bytes_are_fine(pattern: Vec<u8>, text: Vec<u8>, any_case: bool) {
            if let Ok(glob) = Glob::new(&pattern, any_case) {
                glob.matches(&text);
            }
        }

        #[test]
        fn a_text_matches_itself_escaped(text: Vec<u8>) {
            let pattern: Vec<u8> = text.iter().flat_map(|&b| [b'\\', b]).collect();
            prop_assert!(matches(&pattern, &text, false));
        }
    }
}
