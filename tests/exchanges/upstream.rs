//! The upstream of the cases: it answers each case by what its current step says.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_test_support::{Origin, Request, Script, chunk, head, last_chunk};

use crate::case::{Framing, Step, Value};

/// Ready-made answers by what the URLs of a case begin with, the next one first.
type Answers = Arc<Mutex<HashMap<String, VecDeque<Answer>>>>;

/// The bytes of an answer, and of the same to HEAD.
#[derive(Clone)]
pub struct Answer {
    whole: Script,
    head: Script,
}

/// The upstream.
pub struct Upstream {
    /// What listens, and keeps what it saw.
    pub origin: Origin,
    answers: Answers,
}

impl Upstream {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let origin = Origin::start().await;
        let answers = Answers::default();
        let ready = Arc::clone(&answers);
        origin.on("*", move |request| {
            let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
            let scripts = ready.iter_mut().find(|(base, _)| is_below(request.path(), base));
            // The last one stays, for a request that is sent once more.
            let next = scripts.and_then(|(_, left)| match left.len() {
                0 | 1 => left.front().cloned(),
                _ => left.pop_front(),
            });
            let Some(Answer { whole, head }) = next else { return unexpected() };
            if request.method() == "HEAD" { head } else { whole }
        });
        Self { origin, answers }
    }

    /// Answers the requests of a case so from now on; none of them must come where there are no
    /// scripts.
    pub fn answer(&self, base: &str, scripts: VecDeque<Answer>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(base.to_owned(), scripts);
    }

    /// What a case has asked so far.
    pub fn asked(&self, of: &str) -> Vec<Request> {
        let requests = self.origin.all_requests();
        requests.into_iter().filter(|request| is_below(request.path(), of)).collect()
    }
}

/// Whether a path is this one or below it.
fn is_below(path: &str, base: &str) -> bool {
    path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn unexpected() -> Script {
    Script::new().send(head(500, &[("Content-Length", "0"), ("Cache-Control", "no-store")]))
}

/// The bytes of a step's answer. `fill` replaces what stands in braces, `date` is the time now.
pub fn answer(step: &Step, body: &str, fill: &dyn Fn(&str) -> String, date: &str) -> Answer {
    if step.framing == Framing::Nothing {
        let nothing = Script::new().close();
        return Answer { whole: nothing.clone(), head: nothing };
    }
    let status = step.answers();
    let bodyless = matches!(status, 100..=199 | 204 | 304);
    let mut lines: Vec<(String, String)> = Vec::new();
    if !step.fields.names("Date") {
        lines.push(("Date".to_owned(), date.to_owned()));
    }
    for (name, value) in &step.fields.0 {
        if let Value::Lines(values) = value {
            lines.extend(values.iter().map(|value| (name.clone(), fill(value))));
        }
    }
    let chunked = matches!(step.framing, Framing::Chunked | Framing::Unended);
    if chunked {
        lines.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
    } else if step.framing != Framing::Close && !bodyless && !step.fields.names("Content-Length") {
        let more = usize::from(step.framing == Framing::Truncated);
        lines.push(("Content-Length".to_owned(), (body.len() + more).to_string()));
    }
    let lines: Vec<_> = lines.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let head = Script::new().send(head(status, &lines));
    let script = head.clone();
    let whole = match step.framing {
        _ if bodyless => script,
        Framing::Chunked => script.send(chunk(body)).send(last_chunk(&[])),
        Framing::Unended => script.send(chunk(body)).close(),
        Framing::Close | Framing::Truncated => script.send(body).close(),
        _ => script.send(body),
    };
    Answer { whole, head }
}
