//! What an origin answers: exact bytes with gates, pauses and ways to end.

use std::time::Duration;

use super::gate::Gate;

/// One thing an origin does while it answers.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends bytes as they are.
    Send(Vec<u8>),
    /// Sends an ordinary response, without its body when the request was HEAD.
    Reply(Reply),
    /// Waits until the test opens the gate (or the peer goes away).
    Gate(Gate),
    /// Waits for a time.
    Sleep(Duration),
    /// Reads the rest of the request body; for routes that answer early.
    ReadBody,
    /// Sends back every byte that comes, until the peer closes.
    Echo,
    /// Sends body bytes until the peer goes away.
    Flood,
    /// Never answers; ends when the peer goes away.
    Hang,
    /// Closes the connection in order.
    Close,
    /// Closes the connection with a reset.
    Reset,
}

/// The steps of one answer, built from left to right.
#[derive(Clone, Debug, Default)]
pub struct Script(pub Vec<Step>);

impl Script {
    /// An answer that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step after those that are there.
    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Sends bytes as they are.
    pub fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Step::Send(bytes.as_ref().to_vec()))
    }

    /// Sends an ordinary response.
    pub fn reply(self, reply: Reply) -> Self {
        self.then(Step::Reply(reply))
    }

    /// Waits at a gate.
    pub fn gate(self, gate: &Gate) -> Self {
        self.then(Step::Gate(gate.clone()))
    }

    /// Waits for a time.
    pub fn sleep(self, time: Duration) -> Self {
        self.then(Step::Sleep(time))
    }

    /// Reads the rest of the request body.
    pub fn read_body(self) -> Self {
        self.then(Step::ReadBody)
    }

    /// Becomes an echo for the rest of the connection.
    pub fn echo(self) -> Self {
        self.then(Step::Echo)
    }

    /// Sends body bytes for as long as the peer takes them.
    pub fn flood(self) -> Self {
        self.then(Step::Flood)
    }

    /// Stays silent until the peer goes away.
    pub fn hang(self) -> Self {
        self.then(Step::Hang)
    }

    /// Closes the connection in order.
    pub fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// Closes with a reset.
    pub fn reset(self) -> Self {
        self.then(Step::Reset)
    }
}

/// An ordinary response with a `Content-Length`.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// A response with this status and no body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// 200 with a body.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200).body(body)
    }

    /// 200 with a body and a `Cache-Control`.
    pub fn cached(control: &str, body: impl AsRef<[u8]>) -> Self {
        Self::ok(body).header("Cache-Control", control)
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the body, which `Content-Length` follows.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The bytes on the wire, for a request with this method.
    pub fn render(&self, method: &str) -> Vec<u8> {
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let length = self.body.len().to_string();
        if !matches!(self.status, 100..=199 | 204 | 304) {
            headers.push(("Content-Length", &length));
        }
        let mut bytes = head(self.status, &headers);
        if method != "HEAD" && !matches!(self.status, 204 | 304) {
            bytes.extend(&self.body);
        }
        bytes
    }
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Self {
        Self::new().reply(reply)
    }
}

/// A response head with these header lines and nothing else.
pub fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// One chunk of a chunked body.
pub fn chunk(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// The end of a chunked body, with trailer fields.
pub fn last_chunk(trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::from("0\r\n");
    for (name, value) in trailers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Odd")
}
