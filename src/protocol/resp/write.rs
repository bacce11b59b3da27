//! Encodes replies in either version of the protocol. Types that RESP2 lacks are written as Redis writes them in RESP2.

use crate::values::numbers::{write_float, write_human_float};

const LINE_END: &[u8; 2] = b"\r\n";

/// Appends replies to a connection's output.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    resp3: bool,
    /// The length of `out` from which on strings are left out.
    length_max: usize,
    /// A string was left out.
    is_cut: bool,
}

/// An aggregate whose length is written when it ends, by [`Writer::end`]. An aggregate begun inside it must end first.
#[derive(Debug)]
#[must_use]
pub struct Deferred {
    /// The offset at which its header is inserted.
    at: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Array,
    Map,
    Set,
    Push,
}

impl<'a> Writer<'a> {
    /// Creates a writer that appends to `out`, in RESP3 or RESP2.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, resp3: bool) -> Self {
        Self { out, resp3, length_max: usize::MAX, is_cut: false }
    }

    /// Leaves strings out once the reply has `bytes` bytes: the caller then replaces it by an error, see
    /// [`Writer::is_cut`].
    #[inline]
    pub fn limit(&mut self, bytes: usize) {
        self.length_max = self.out.len().saturating_add(bytes);
    }

    /// True if strings were left out.
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// True if the connection speaks RESP3.
    #[inline]
    pub fn resp3(&self) -> bool {
        self.resp3
    }

    /// The output, for appending replies that are already encoded.
    #[inline]
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Writes a simple string, which must be one line: `OK`.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "a simple string is one line");
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(LINE_END);
    }

    /// Writes an error; `text` includes its code: `ERR no such key`. Line ends in it become spaces.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        let one_line = |&b: &u8| if matches!(b, b'\r' | b'\n') { b' ' } else { b };
        self.out.push(b'-');
        self.out.extend(text.as_ref().iter().map(one_line));
        self.out.extend_from_slice(LINE_END);
    }

    /// Writes an integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// Writes a string of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if self.out.len() > self.length_max {
            self.is_cut = true;
            return;
        }
        self.out.reserve(bytes.len() + 16);
        self.bulk_head(bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(LINE_END);
    }

    /// Writes the header of a string of this length; the caller appends the string's bytes and a line end.
    #[inline]
    pub fn bulk_head(&mut self, length: usize) {
        self.header(b'$', length as i64);
    }

    /// Writes null in place of a string.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Writes null in place of an array.
    #[inline]
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// Writes the header of an array; the caller writes its elements next.
    #[inline]
    pub fn array(&mut self, count: usize) {
        self.aggregate(Kind::Array, count);
    }

    /// Writes the header of a map; the caller writes its pairs next.
    #[inline]
    pub fn map(&mut self, count: usize) {
        self.aggregate(Kind::Map, count);
    }

    /// Writes the header of a set; the caller writes its elements next.
    #[inline]
    pub fn set(&mut self, count: usize) {
        self.aggregate(Kind::Set, count);
    }

    /// Writes the header of a push message, which the client has not asked for; the caller writes its elements next.
    #[inline]
    pub fn push(&mut self, count: usize) {
        self.aggregate(Kind::Push, count);
    }

    /// Writes a floating-point number with the fewest digits that identify it.
    #[inline]
    pub fn double(&mut self, value: f64) {
        self.digits(|out| write_float(value, out));
    }

    /// Writes a floating-point number without an exponent, as coordinates are written.
    pub fn human_double(&mut self, value: f64) {
        self.digits(|out| write_human_float(value, out));
    }

    #[inline]
    fn digits(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.resp3 {
            self.out.push(b',');
            write(self.out);
        } else {
            // The number's length is known only after it is written; the header is then rotated in front of it.
            let at = self.out.len();
            write(self.out);
            let end = self.out.len();
            self.bulk_head(end - at);
            self.out[at..].rotate_left(end - at);
        }
        self.out.extend_from_slice(LINE_END);
    }

    /// Writes a boolean.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.resp3, value) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        });
    }

    /// Writes a verbatim string; `kind` is a format of three letters, such as `txt`.
    pub fn verbatim(&mut self, kind: &[u8; 3], bytes: &[u8]) {
        if !self.resp3 {
            return self.bulk(bytes);
        }
        self.header(b'=', bytes.len() as i64 + 4);
        self.out.extend_from_slice(kind);
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(LINE_END);
    }

    /// Writes an integer of any length, given in decimal digits.
    pub fn big_number(&mut self, digits: &str) {
        if !self.resp3 {
            return self.bulk(digits.as_bytes());
        }
        self.out.push(b'(');
        self.out.extend_from_slice(digits.as_bytes());
        self.out.extend_from_slice(LINE_END);
    }

    /// Begins an array whose length is not known yet.
    pub fn begin_array(&mut self) -> Deferred {
        self.begin(Kind::Array)
    }

    /// Begins a map whose length is not known yet.
    pub fn begin_map(&mut self) -> Deferred {
        self.begin(Kind::Map)
    }

    /// Begins a set whose length is not known yet.
    pub fn begin_set(&mut self) -> Deferred {
        self.begin(Kind::Set)
    }

    /// Ends an aggregate; `count` elements, or pairs of a map, were written since it began.
    pub fn end(&mut self, deferred: Deferred, count: usize) {
        // The header's length depends on the count, so the elements move behind it, once per level of nesting.
        let end = self.out.len();
        self.aggregate(deferred.kind, count);
        self.out[deferred.at..].rotate_left(end - deferred.at);
    }

    fn begin(&mut self, kind: Kind) -> Deferred {
        Deferred { at: self.out.len(), kind }
    }

    #[inline]
    fn aggregate(&mut self, kind: Kind, count: usize) {
        let (mark, count) = match (kind, self.resp3) {
            (Kind::Array, _) | (Kind::Set | Kind::Push, false) => (b'*', count),
            (Kind::Map, false) => (b'*', count * 2),
            (Kind::Map, true) => (b'%', count),
            (Kind::Set, true) => (b'~', count),
            (Kind::Push, true) => (b'>', count),
        };
        self.header(mark, count as i64);
    }

    #[inline]
    fn header(&mut self, mark: u8, number: i64) {
        self.out.push(mark);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.out.extend_from_slice(LINE_END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resp3: bool, write: impl Fn(&mut Writer)) -> String {
        let mut out = b"before ".to_vec();
        write(&mut Writer::new(&mut out, resp3));
        String::from_utf8(out).expect("text").strip_prefix("before ").expect("what was there").replace("\r\n", "|")
    }

    /// The output of both versions.
    fn both(write: impl Fn(&mut Writer)) -> (String, String) {
        (written(false, &write), written(true, &write))
    }

    fn pair(resp2: &str, resp3: &str) -> (String, String) {
        (resp2.to_owned(), resp3.to_owned())
    }

    #[test]
    fn every_type() {
        assert_eq!(both(|w| w.simple("OK")), pair("+OK|", "+OK|"));
        assert_eq!(both(|w| w.error("ERR a\r\nb\nc")), pair("-ERR a  b c|", "-ERR a  b c|"));
        assert_eq!(both(|w| w.integer(i64::MIN)), pair(":-9223372036854775808|", ":-9223372036854775808|"));
        assert_eq!(both(|w| w.bulk(b"")), pair("$0||", "$0||"));
        assert_eq!(both(|w| w.bulk(b"twelve bytes")), pair("$12|twelve bytes|", "$12|twelve bytes|"));
        assert_eq!(both(|w| w.null()), pair("$-1|", "_|"));
        assert_eq!(both(|w| w.null_array()), pair("*-1|", "_|"));
        assert_eq!(both(|w| w.array(0)), pair("*0|", "*0|"));
        assert_eq!(both(|w| w.map(12)), pair("*24|", "%12|"));
        assert_eq!(both(|w| w.set(3)), pair("*3|", "~3|"));
        assert_eq!(both(|w| w.push(3)), pair("*3|", ">3|"));
        assert_eq!(both(|w| w.double(1.5)), pair("$3|1.5|", ",1.5|"));
        assert_eq!(both(|w| w.double(f64::NEG_INFINITY)), pair("$4|-inf|", ",-inf|"));
        assert_eq!(both(|w| w.double(12345.6789012)), pair("$16|1.23456789012e+4|", ",1.23456789012e+4|"));
        assert_eq!(both(|w| w.human_double(0.1)), pair("$19|0.10000000000000001|", ",0.10000000000000001|"));
        assert_eq!(both(|w| w.double(f64::NAN)), pair("$3|nan|", ",nan|"));
        assert_eq!(both(|w| w.boolean(true)), pair(":1|", "#t|"));
        assert_eq!(both(|w| w.boolean(false)), pair(":0|", "#f|"));
        assert_eq!(both(|w| w.verbatim(b"txt", b"text")), pair("$4|text|", "=8|txt:text|"));
        assert_eq!(both(|w| w.big_number("123")), pair("$3|123|", "(123|"));
    }

    #[test]
    fn lengths_that_are_known_afterwards() {
        let nested = |w: &mut Writer| {
            let outer = w.begin_array();
            w.integer(1);
            let map = w.begin_map();
            w.bulk(b"k");
            let empty = w.begin_set();
            w.end(empty, 0);
            w.end(map, 1);
            w.end(outer, 2);
            w.simple("OK");
        };
        assert_eq!(both(nested), pair("*2|:1|*2|$1|k|*0|+OK|", "*2|:1|%1|$1|k|~0|+OK|"));
        let long = |w: &mut Writer| {
            let array = w.begin_array();
            (0..1000).for_each(|_| w.null());
            w.end(array, 1000);
        };
        assert_eq!(written(true, long), format!("*1000|{}", "_|".repeat(1000)));
    }
}
