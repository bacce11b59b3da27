//! Replies of both protocols, read from a client's bytes.

use crate::model::Model;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A line: of memcached's, all of it; of RESP, a simple string.
    Line(String),
    /// An error of RESP.
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nothing,
    Array(Vec<Reply>),
    /// The values of a get.
    Values(Vec<(String, Vec<u8>)>),
}

/// A line without its end, and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).unwrap_or("not text"), &bytes[end + 2..]))
}

fn string(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    (bytes.len() >= length + 2).then(|| (&bytes[..length], &bytes[length + 2..]))
}

impl Reply {
    /// The first reply of RESP, and what follows it. None while it is not complete.
    pub fn resp(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = line(bytes)?;
        let (kind, text) = head.split_at(head.len().min(1));
        let number = || text.parse::<i64>().unwrap_or(-1);
        Some(match kind {
            "+" => (Self::Line(text.into()), rest),
            "-" => (Self::Error(text.into()), rest),
            ":" => (Self::Integer(number()), rest),
            "_" => (Self::Nothing, rest),
            "$" | "=" if number() < 0 => (Self::Nothing, rest),
            "$" | "=" => {
                let (string, rest) = string(rest, number() as usize)?;
                (Self::Bulk(string.to_vec()), rest)
            }
            "*" | "%" | "~" => {
                let count = number().max(0) * if kind == "%" { 2 } else { 1 };
                let (mut items, mut rest) = (Vec::new(), rest);
                for _ in 0..count {
                    let (item, after) = Self::resp(rest)?;
                    items.push(item);
                    rest = after;
                }
                (Self::Array(items), rest)
            }
            _ => (Self::Error(format!("no reply of RESP: {head:?}")), rest),
        })
    }

    /// The first reply of memcached's protocol.
    pub fn memcached(bytes: &[u8], is_get: bool) -> Option<(Self, &[u8])> {
        let (head, mut rest) = line(bytes)?;
        if !is_get || (!head.starts_with("VALUE ") && head != "END") {
            let reply = match head.parse() {
                Ok(number) => Self::Integer(number),
                Err(_) => Self::Line(head.into()),
            };
            return Some((reply, rest));
        }
        let (mut values, mut head) = (Vec::new(), head.to_owned());
        while head != "END" {
            let mut words = head.split(' ').skip(1);
            let (key, length) = (words.next().unwrap_or_default(), words.nth(1).and_then(|n| n.parse().ok()));
            let Some(length) = length else { return Some((Self::Error(format!("no VALUE: {head:?}")), rest)) };
            let (value, after) = string(rest, length)?;
            values.push((key.to_owned(), value.to_vec()));
            let (next, after) = line(after)?;
            (head, rest) = (next.to_owned(), after);
        }
        Some((Self::Values(values), rest))
    }

    /// The values of a get, for each of its keys.
    pub fn values(&self, model: &Model, keys: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
        let one = |reply: &Self| match reply {
            Self::Bulk(value) => Some(Some(value.clone())),
            Self::Nothing => Some(None),
            _ => None,
        };
        match self {
            Self::Array(items) if items.len() == keys.len() => items.iter().map(one).collect(),
            Self::Values(values) => {
                // In the order of the keys; those that are not found are left out.
                let mut values = values.iter().peekable();
                let found = |key: &u8| values.next_if(|(name, _)| *name == model.key(*key)).map(|(_, v)| v.clone());
                let found = keys.iter().map(found).collect();
                values.peek().is_none().then_some(found)
            }
            single if keys.len() == 1 => Some(vec![one(single)?]),
            _ => None,
        }
    }

    pub fn is_error(&self) -> bool {
        match self {
            Self::Error(_) => true,
            Self::Line(line) => ["ERROR", "CLIENT_ERROR", "SERVER_ERROR"].iter().any(|e| line.starts_with(e)),
            _ => false,
        }
    }

    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Error(text) => text.starts_with("OOM"),
            Self::Line(line) => line == "SERVER_ERROR out of memory storing object",
            _ => false,
        }
    }

    /// Whether a conditional store happened.
    pub fn stored(&self) -> Option<bool> {
        match self {
            Self::Line(line) if line == "STORED" || line == "OK" => Some(true),
            Self::Line(line) if line == "NOT_STORED" => Some(false),
            Self::Nothing => Some(false),
            _ => None,
        }
    }

    /// How many keys a command concerned.
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Integer(count) => usize::try_from(*count).ok(),
            Self::Line(line) if line == "DELETED" => Some(1),
            Self::Line(line) if line == "NOT_FOUND" => Some(0),
            _ => None,
        }
    }

    pub fn integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    pub fn is_not_found(&self) -> bool {
        self.is_line("NOT_FOUND")
    }

    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }

    pub fn is_line(&self, text: &str) -> bool {
        matches!(self, Self::Line(line) if line == text)
    }

    pub fn string(&self) -> Option<&[u8]> {
        if let Self::Bulk(string) = self { Some(string) } else { None }
    }

    pub fn integers(&self) -> Option<Vec<i64>> {
        let Self::Array(items) = self else { return None };
        items.iter().map(Self::integer).collect()
    }

    pub fn strings(&self) -> Option<Vec<Vec<u8>>> {
        let Self::Array(items) = self else { return None };
        items.iter().map(|item| item.string().map(<[u8]>::to_vec)).collect()
    }
}
