//! The access log: one JSON object per request on stdout.
//!
//! Lines are written by a thread of their own through a bounded queue; when the reader of stdout
//! does not keep up, lines are dropped and never a request delayed.

use std::io::Write;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::outcome::Outcome;

/// Lines waiting to be written before further ones are dropped.
const QUEUE_LINES_MAX: usize = 16_384;

/// Writes access log lines.
#[derive(Debug)]
pub struct AccessLog {
    writer: NonBlocking,
    _guard: WorkerGuard,
}

/// What a line tells.
#[derive(Debug)]
pub struct AccessLine<'a> {
    /// When the request came, milliseconds since the Unix epoch.
    pub unix_millis: i64,
    /// Method.
    pub method: &'a str,
    /// Host.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Status sent.
    pub status: u16,
    /// Route name.
    pub route: &'a str,
    /// Outcome.
    pub outcome: Outcome,
    /// Milliseconds until the response head was ready.
    pub millis: u64,
    /// Trace id of a sampled request.
    pub trace_id: Option<&'a str>,
}

impl AccessLog {
    /// An access log on stdout.
    pub fn stdout() -> Self {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE_LINES_MAX)
            .finish(std::io::stdout());
        AccessLog { writer, _guard: guard }
    }

    /// Queues one line.
    pub fn write(&self, line: &AccessLine<'_>) {
        let mut out = Vec::with_capacity(256);
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(b"{\"time_ms\":");
        out.extend_from_slice(digits.format(line.unix_millis).as_bytes());
        for (name, text) in [
            (&b",\"method\":"[..], line.method),
            (b",\"host\":", line.host),
            (b",\"target\":", line.target),
            (b",\"route\":", line.route),
            (b",\"outcome\":", line.outcome.as_str()),
            (b",\"tier\":", line.outcome.tier()),
        ] {
            out.extend_from_slice(name);
            push_json(&mut out, text);
        }
        out.extend_from_slice(b",\"status\":");
        out.extend_from_slice(digits.format(line.status).as_bytes());
        out.extend_from_slice(b",\"millis\":");
        out.extend_from_slice(digits.format(line.millis).as_bytes());
        if let Some(id) = line.trace_id {
            out.extend_from_slice(b",\"trace_id\":");
            push_json(&mut out, id);
        }
        out.extend_from_slice(b"}\n");
        // A full queue drops the line, which is what it is bounded for.
        let _ = self.writer.clone().write_all(&out);
    }
}

/// A JSON string; control characters are escaped, so that no client can forge a line.
fn push_json(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f | 0x7f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged() {
        let mut out = Vec::new();
        push_json(&mut out, "a\"\n\u{1b}[31m\\");
        assert_eq!(out, br#""a\"\u000a\u001b[31m\\""#);
    }
}
