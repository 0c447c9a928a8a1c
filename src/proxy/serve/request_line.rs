//! Request lines (RFC 9112 §3) on their way to hyper, which refuses some targets that other proxies
//! pass on, and drops fragments without a word.
//!
//! `"`, `<`, `>`, the backtick and bytes that are not UTF-8 have no place in a URI, but clients write
//! them, PromQL queries for one. They are escaped here (RFC 3986 §2.1), so that the target has the
//! one spelling that everybody may send on, in the key, upstream and in purges. A fragment never
//! belongs to a target, and makes the line one that hyper refuses.
//!
//! Only bytes of heads may come here: in a body, an escape would shift the end of the message.

use std::fmt::Write;

/// A byte that hyper refuses in a target.
const REFUSED: char = '\u{7f}';

/// How much of a request line has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Method,
    /// The space has passed that the target follows.
    Space,
    Path,
    Query,
    /// The rest of the head.
    Rest,
}

/// The request line of the head that is being read.
#[derive(Debug)]
pub(super) struct RequestLine {
    part: Part,
}

impl RequestLine {
    pub(super) fn new() -> Self {
        RequestLine { part: Part::Method }
    }

    /// Looks at the next bytes of a head; `begins` if no byte of it has come before. Yields what
    /// hyper gets instead of them, if that is not the same.
    pub(super) fn read(&mut self, bytes: &[u8], begins: bool) -> Option<Vec<u8>> {
        if begins {
            self.part = Part::Method;
        }
        if self.part == Part::Method && is_plain(bytes) {
            self.part = Part::Rest;
        }
        if self.part == Part::Rest { None } else { self.rewrite(bytes) }
    }

    /// The way of lines that are odd, or come in pieces.
    #[cold]
    fn rewrite(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        // Empty lines may precede a request (RFC 9112 §2.2).
        let is_start = self.part == Part::Method;
        let empty = bytes.iter().take_while(|b| is_start && matches!(b, b'\r' | b'\n')).count();
        let end = bytes.iter().skip(empty).position(|b| *b == b'\n');
        let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |at| empty + at + 1));
        let is_text = std::str::from_utf8(line).is_ok();
        let mut out = String::new();
        let mut changed = false;
        let mut written = Vec::with_capacity(bytes.len() + 16);
        for byte in line {
            self.part = self.part.after(*byte);
            out.clear();
            let bad = match (self.part, *byte) {
                (Part::Path, b'<' | b'>' | b'`') | (Part::Query, b'"' | b'<' | b'>') => true,
                (Part::Path | Part::Query, 0x80..) => !is_text,
                _ => false,
            };
            if bad {
                // Writing to a string does not fail.
                let _ = write!(out, "%{byte:02X}");
            } else if matches!((self.part, *byte), (Part::Path | Part::Query, b'#')) {
                out.push(REFUSED);
            } else {
                written.push(*byte);
                continue;
            }
            changed = true;
            written.extend_from_slice(out.as_bytes());
        }
        if end.is_some() {
            self.part = Part::Rest;
        }
        written.extend_from_slice(rest);
        changed.then_some(written)
    }
}

impl Part {
    /// The part that a byte of the line belongs to, after a byte of this one.
    fn after(self, byte: u8) -> Part {
        match (self, byte) {
            (Part::Method, b'\r' | b'\n') => Part::Method,
            (Part::Method, b' ') => Part::Space,
            (Part::Method, _) if is_token_byte(byte) => Part::Method,
            // Other forms of the target begin so: `/`, `*`, or a scheme.
            (Part::Space, _) if byte == b'/' || byte.is_ascii_alphabetic() => Part::Path,
            (Part::Path, b'?') => Part::Query,
            (Part::Path | Part::Query, _) if byte > b' ' => self,
            _ => Part::Rest,
        }
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the first line is there and has nothing in it that would be changed. Looks at a block of
/// bytes at a time, without a branch for each. What it finds too short is looked at byte by byte.
fn is_plain(bytes: &[u8]) -> bool {
    let (blocks, _) = bytes.as_chunks::<16>();
    for block in blocks {
        // As one number, which is zero if none of its bytes is odd.
        let odd = block.map(|b| {
            u8::from((b == b'"') | (b == b'#') | (b == b'<') | (b == b'>') | (b == b'`')) | b & 0x80
        });
        if u128::from_ne_bytes(odd) != 0 {
            return false;
        }
        let ends = block.map(|b| u8::from(b == b'\n'));
        if u128::from_ne_bytes(ends) != 0 {
            // A line that is empty is none yet.
            return !matches!(bytes.first(), Some(b'\r' | b'\n'));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper gets of a head that comes in these pieces.
    fn passed(pieces: &[&[u8]]) -> String {
        let mut line = RequestLine::new();
        let mut got = Vec::new();
        for (n, piece) in pieces.iter().enumerate() {
            match line.read(piece, n == 0) {
                Some(changed) => got.extend(changed),
                None => got.extend_from_slice(piece),
            }
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    #[test]
    fn odd_bytes_of_a_target_are_escaped() {
        for (sent, got) in [
            (&b"/a?q=\"<>`\"&r=1"[..], "/a?q=%22%3C%3E`%22&r=1"),
            (b"/\"<>`{}?", "/\"%3C%3E%60{}?"),
            (b"/caf\xc3\xa9?\xc3\xa9", "/caf\u{e9}?\u{e9}"),
            (b"/caf\xe9?\xff", "/caf%E9?%FF"),
            (b"http://a.test/<?>", "http://a.test/%3C?%3E"),
            (b"/a#b", "/a\u{7f}b"),
            (b"http://a.test#b", "http://a.test\u{7f}b"),
            (b"/a?b#\"c", "/a?b\u{7f}%22c"),
            (b"*", "*"),
        ] {
            let head = [b"GET ", sent, b" HTTP/1.1\r\nX-A: \"<#>\"\r\n\r\n"].concat();
            let want = format!("GET {got} HTTP/1.1\r\nX-A: \"<#>\"\r\n\r\n");
            assert_eq!(passed(&[&head]), want);
            // In whatever pieces it comes, unless that leaves no text to be seen.
            if sent.is_ascii() {
                for at in 1..head.len() {
                    let (left, right) = head.split_at(at);
                    assert_eq!(passed(&[left, right]), want, "at {at}");
                }
            }
            assert_eq!(passed(&[&[b"\r\n", &head[..]].concat()]), format!("\r\n{want}"));
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        for head in [
            "GET / HTTP/1.1\r\nX-A: \"<#>\"\r\n\r\nGET /\"?\" HTTP/1.1\r\n\r\n",
            "G\"T /# HTTP/1.1\r\n\r\n",
            "X-A: /#<> HTTP/1.1\r\n\r\n",
            "#",
            "",
            "\r\n\r\n",
        ] {
            assert_eq!(passed(&[head.as_bytes()]), head);
        }
    }
}
