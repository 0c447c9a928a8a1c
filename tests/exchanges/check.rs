//! What a step expects, and how an exchange differs from it.

use outrigger_test_support::{CacheStatus, Request};

use crate::case::{Fields, Framing, Step, Value};
use crate::client::Got;

/// The response that a client should get.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its status.
    pub status: u16,
    /// Its content; `None` where the step does not say and no response of the upstream tells.
    pub content: Option<String>,
    truncated: bool,
}

impl Expected {
    /// What the step at this place of the case expects.
    pub fn of(steps: &[Step], at: usize) -> Self {
        let step = &steps[at];
        let served = served(steps, at);
        let status = step.status.unwrap_or_else(|| match served {
            Some((_, from)) => from.answers(),
            None => 502,
        });
        let bodyless = step.method() == "HEAD" || matches!(status, 204 | 304);
        let content = match (&step.serves, served) {
            (Some(text), _) => Some(text.clone()),
            (None, _) if bodyless => Some(String::new()),
            (None, Some((nth, from))) if from.answers() == status => {
                Some(from.content_of_answer(nth))
            }
            (None, _) => None,
        };
        Self { status, content, truncated: step.truncated }
    }

    /// How status and content differ.
    pub fn status_and_content(&self, got: &Got) -> Option<String> {
        if got.status != self.status {
            return Some(format!("status {} where {} should be", got.status, self.status));
        }
        if got.truncated != self.truncated {
            let how = if got.truncated { "broke off" } else { "did not break off" };
            return Some(format!("the content {how}"));
        }
        match &self.content {
            Some(content) if *content != got.body => {
                Some(format!("content {:?} where {content:?} should be", got.body))
            }
            _ => None,
        }
    }

    /// How fields and `Cache-Status` differ.
    pub fn fields(&self, step: &Step, got: &Got, fill: &dyn Fn(&str) -> String) -> Option<String> {
        let found = |name: &str| got.head.all(name).iter().map(|line| (*line).to_owned()).collect();
        let wrong = differs(&step.gets, found, fill);
        wrong.or_else(|| said(step.cache.as_deref().unwrap_or_default(), &got.cache()))
    }
}

/// The step whose response is served to the step at this place.
fn served(steps: &[Step], at: usize) -> Option<(usize, &Step)> {
    let step = &steps[at];
    if let Some(nth) = step.from {
        let from = steps.get(nth.checked_sub(1)?)?;
        return Some((nth - 1, from));
    }
    let last = step.answers_in_order().last();
    if let Some(last) = last.filter(|last| !step.background && last.answers() != 304) {
        return (last.framing != Framing::Nothing).then_some((at, last));
    }
    let full = |(_, step): &(usize, &Step)| {
        step.asks() && step.answers() != 304 && step.framing != Framing::Nothing
    };
    steps[..at].iter().enumerate().rev().find(full)
}

/// How what the upstream saw differs from what the step says.
pub fn upstream_saw(step: &Step, saw: &[Request], fill: &dyn Fn(&str) -> String) -> Option<String> {
    let wanted: Vec<_> = step.answers_in_order().collect();
    match (wanted.len(), saw.len()) {
        (0, 1..) => return Some("the upstream was asked".to_owned()),
        (1.., 0) => return Some("the upstream was not asked".to_owned()),
        (wanted, saw) if saw > wanted && !may_be_sent_again(step) || saw < wanted => {
            return Some(format!("the upstream was asked {saw} times"));
        }
        _ => {}
    }
    wanted.iter().zip(saw).find_map(|(wanted, request)| {
        let found = |name: &str| match name {
            ":method" => vec![request.method().to_owned()],
            ":target" => vec![request.target().to_owned()],
            ":content" => vec![String::from_utf8_lossy(&request.body).into_owned()],
            name => request.head.all(name).iter().map(|line| (*line).to_owned()).collect(),
        };
        differs(&wanted.sees, found, fill).map(|wrong| format!("upstream: {wrong}"))
    })
}

/// Whether a request may come once more than the step says: a connection that has been used before
/// may have been closed for that alone, and an idempotent request is then sent on a new one (RFC 9110
/// §9.2.2).
fn may_be_sent_again(step: &Step) -> bool {
    step.framing == Framing::Nothing && matches!(step.method(), "GET" | "HEAD" | "OPTIONS")
}

fn differs(
    fields: &Fields,
    found: impl Fn(&str) -> Vec<String>,
    fill: &dyn Fn(&str) -> String,
) -> Option<String> {
    for (name, value) in &fields.0 {
        let found = found(name);
        match value {
            Value::Absent if found.is_empty() => {}
            Value::Absent => return Some(format!("{name} should be absent, and is {found:?}")),
            Value::Lines(lines) => {
                let lines: Vec<_> = lines.iter().map(|line| fill(line)).collect();
                let same = lines.len() == found.len()
                    && lines.iter().zip(&found).all(|(line, found)| matches(line, found));
                if !same {
                    return Some(format!("{name} should be {lines:?}, and is {found:?}"));
                }
            }
        }
    }
    None
}

/// Whether a value is the one that is asked for: `{any}` stands for whatever is there, and `60..63` for
/// any number from 60 to 63.
fn matches(wanted: &str, found: &str) -> bool {
    if wanted == "{any}" {
        return true;
    }
    let bounds = wanted
        .split_once("..")
        .and_then(|(low, high)| Some((low.parse::<u64>().ok()?, high.parse::<u64>().ok()?)));
    match bounds {
        Some((low, high)) => found.parse().is_ok_and(|n: u64| (low..=high).contains(&n)),
        None => wanted == found,
    }
}

/// How `Cache-Status` differs from the parameters that a step names.
fn said(wanted: &str, status: &CacheStatus) -> Option<String> {
    let holds = |word: &&str| match (word.strip_prefix('!'), word.split_once('=')) {
        (Some(absent), _) => !status.has(absent),
        (None, Some((name, value))) => status.get(name) == Some(value),
        (None, None) => status.has(word),
    };
    let missed = wanted.split_whitespace().find(|word| !holds(word))?;
    Some(format!("Cache-Status should have {missed}, and is {status:?}"))
}
