//! The access log: one JSON object per request on stdout.
//!
//! Lines are written by a thread of their own through a bounded queue; when the reader of stdout
//! does not keep up, lines are dropped and never a request delayed.

use std::cell::Cell;
use std::io::{self, Write};

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::ser::{CharEscape, Formatter};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::outcome::Outcome;

/// Lines waiting to be written before further ones are dropped.
const QUEUE_LINES_MAX: usize = 16_384;
/// The only ASCII control character above the space.
const DEL: u8 = 0x7f;

/// Writes access log lines.
#[derive(Debug)]
pub struct AccessLog {
    writer: NonBlocking,
    _guard: WorkerGuard,
}

/// One line: a request and how it ended.
#[derive(Debug)]
pub struct AccessLine<'a> {
    /// When the request came, milliseconds since the Unix epoch.
    pub unix_millis: i64,
    /// The request method.
    pub method: &'a str,
    /// Host and port as the client sent them; empty if it sent none.
    pub host: &'a str,
    /// Path and query as the client sent them.
    pub target: &'a str,
    /// The status that the client got.
    pub status: u16,
    /// Name of the route in the policy.
    pub route: &'a str,
    /// How the request ended.
    pub outcome: Outcome,
    /// Milliseconds until the response head was ready.
    pub millis: u64,
    /// Trace id of a sampled request.
    pub trace_id: Option<&'a str>,
}

/// The fields and their order are an interface: operators parse these lines.
impl Serialize for AccessLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("AccessLine", 10)?;
        line.serialize_field("time_ms", &self.unix_millis)?;
        line.serialize_field("method", self.method)?;
        line.serialize_field("host", self.host)?;
        line.serialize_field("target", self.target)?;
        line.serialize_field("route", self.route)?;
        line.serialize_field("outcome", self.outcome.as_str())?;
        line.serialize_field("tier", self.outcome.answered_by().as_str())?;
        line.serialize_field("status", &self.status)?;
        line.serialize_field("millis", &self.millis)?;
        if let Some(trace_id) = self.trace_id {
            line.serialize_field("trace_id", trace_id)?;
        }
        line.end()
    }
}

thread_local! {
    /// The buffer of this thread's lines, kept so that a line allocates nothing to be formatted.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl AccessLog {
    /// An access log on stdout.
    pub fn stdout() -> Self {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE_LINES_MAX)
            .finish(io::stdout());
        AccessLog { writer, _guard: guard }
    }

    /// Queues a line, or drops it when the queue is full.
    pub fn write(&self, line: &AccessLine<'_>) {
        let mut buffer = BUFFER.take();
        buffer.clear();
        // Neither can fail: a buffer takes everything, and a full queue drops the line, which is
        // what it is bounded for.
        if format(line, &mut buffer).is_ok() {
            let _ = self.writer.clone().write_all(&buffer);
        }
        BUFFER.set(buffer);
    }
}

fn format(line: &AccessLine<'_>, out: &mut Vec<u8>) -> serde_json::Result<()> {
    line.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, OneForm))?;
    out.push(b'\n');
    Ok(())
}

/// Compact JSON with one escaped form for each control character, DEL included: `\u00` and two
/// digits. So no client can forge a line or reach the terminal of whoever reads the log.
struct OneForm;

impl Formatter for OneForm {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // serde_json does not take DEL for a control character. A fold looks at all bytes at once,
        // which is faster for these short texts than to stop at the first one.
        if fragment.bytes().fold(false, |found, byte| found | (byte == DEL)) {
            return write_with_del(out, fragment);
        }
        out.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let byte = match escape {
            CharEscape::Quote => return out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => return out.write_all(b"\\\\"),
            CharEscape::Solidus => b'/',
            CharEscape::Backspace => 0x08,
            CharEscape::FormFeed => 0x0c,
            CharEscape::LineFeed => b'\n',
            CharEscape::CarriageReturn => b'\r',
            CharEscape::Tab => b'\t',
            CharEscape::AsciiControl(byte) => byte,
        };
        write!(out, "\\u{byte:04x}")
    }
}

#[cold]
fn write_with_del<W: ?Sized + Write>(out: &mut W, fragment: &str) -> io::Result<()> {
    for part in fragment.split_inclusive(char::from(DEL)) {
        match part.strip_suffix(char::from(DEL)) {
            Some(before) => write!(out, "{before}\\u{DEL:04x}")?,
            None => out.write_all(part.as_bytes())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample<'a>(target: &'a str, trace_id: Option<&'a str>) -> AccessLine<'a> {
        AccessLine {
            unix_millis: 1_790_000_000_000,
            method: "GET",
            host: "shop.svc",
            target,
            status: 200,
            route: "catalog",
            outcome: Outcome::RedisHit,
            millis: 3,
            trace_id,
        }
    }

    fn formatted(line: &AccessLine<'_>) -> String {
        let mut out = Vec::new();
        format(line, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_have_a_fixed_order() {
        let start = "{\"time_ms\":1790000000000,\"method\":\"GET\",\"host\":\"shop.svc\",\
                     \"target\":\"/a?b=1\",\"route\":\"catalog\",\"outcome\":\"redis-hit\",\
                     \"tier\":\"redis\",\"status\":200,\"millis\":3";
        assert_eq!(formatted(&sample("/a?b=1", None)), format!("{start}}}\n"));
        let sampled = formatted(&sample("/a?b=1", Some("0af7")));
        assert_eq!(sampled, format!("{start},\"trace_id\":\"0af7\"}}\n"));
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let text = "a\"\n\u{1b}[31m\\\x7f\x7f/\t";
        let line = formatted(&sample(text, None));
        assert!(line.contains(r#""target":"a\"\u000a\u001b[31m\\\u007f\u007f/\u0009""#), "{line}");
        for byte in 0..=0x7f_u8 {
            let text = char::from(byte).to_string();
            let line = formatted(&sample(&text, None));
            assert!(!line.trim_end_matches('\n').contains(|c: char| c.is_ascii_control()));
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(read["target"], *text);
        }
    }
}
