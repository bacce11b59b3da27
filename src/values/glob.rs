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
//! Every part of a pattern except `*` matches exactly one byte. So when a part does not match, it suffices to extend
//! the match of the last star by one byte; earlier stars can stay, since the last one can match whatever they could
//! match in addition. This bounds the work by the product of the lengths. (Redis gives up beyond 1,000 stars; no such
//! limit is needed here.)

/// Whether a text matches a pattern, as Redis's `stringmatchlen` decides.
pub fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    let (mut part, mut at) = (0, 0);
    // The rest of the pattern after the last star, and the first byte of the text not yet matched by that star.
    let mut star = None;
    if text.is_empty() {
        return pattern.is_empty();
    }
    while at < text.len() {
        if pattern.get(part) == Some(&b'*') {
            while pattern.get(part) == Some(&b'*') {
                part += 1;
            }
            if part == pattern.len() {
                return true;
            }
            star = Some((part, at));
            continue;
        }
        match step(&pattern[part..], text[at], ignore_case) {
            Some(length) => {
                part += length;
                at += 1;
            }
            None => {
                let Some((after, taken)) = &mut star else { return false };
                *taken += 1;
                (part, at) = (*after, *taken);
            }
        }
    }
    pattern[part..].iter().all(|&byte| byte == b'*')
}

/// The length of the first part of a pattern (not a star), if it matches the byte.
#[inline]
fn step(pattern: &[u8], byte: u8, ignore_case: bool) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => class_step(class, byte, ignore_case).map(|length| length + 1),
        [b'\\', escaped, ..] => same(*escaped, byte, ignore_case).then_some(2),
        [plain, ..] => same(*plain, byte, ignore_case).then_some(1),
    }
}

/// The length of a class including its closing bracket, if the byte is in the class.
fn class_step(class: &[u8], byte: u8, ignore_case: bool) -> Option<usize> {
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
    (found != inverted).then_some(at)
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

    /// The recursive definition, with a star that tries every length.
    fn naive(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
        match (pattern, text) {
            (_, []) => pattern.iter().all(|&b| b == b'*'),
            ([b'*', rest @ ..], _) => {
                rest.iter().all(|&b| b == b'*') || (0..text.len()).any(|n| naive(rest, &text[n..], ignore_case))
            }
            _ => step(pattern, text[0], ignore_case)
                .is_some_and(|length| naive(&pattern[length..], &text[1..], ignore_case)),
        }
    }

    proptest! {
        #[test]
        fn the_last_star_is_enough(pattern in "[ab*?\\[\\]\\\\^-]{0,12}", text in "[abAB-]{1,10}", any_case: bool) {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text, any_case), naive(pattern, text, any_case));
        }

        #[test]
        fn any_bytes_are_fine(pattern: Vec<u8>, text: Vec<u8>, any_case: bool) {
            matches(&pattern, &text, any_case);
        }

        #[test]
        fn a_text_matches_itself_escaped(text: Vec<u8>) {
            let pattern: Vec<u8> = text.iter().flat_map(|&b| [b'\\', b]).collect();
            prop_assert!(matches(&pattern, &text, false));
        }
    }
}
