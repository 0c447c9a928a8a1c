//! Runs the cases of a file against a server, and says what was not as they say.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use outrigger_test_support::{Proxy, Request, Setup, eventually, metric};

use crate::case::{self, Case, File, Step, Value, Version};
use crate::check::{Expected, upstream_saw};
use crate::client::{Asked, Got, send};
use crate::clock::Clock;
use crate::upstream::{Upstream, answer};

/// What a file's cases run against, with its upstream and its clock.
pub struct Ground {
    /// What answers each case.
    pub upstream: Upstream,
    /// The time of day of the server.
    pub clock: Clock,
}

/// One exchange as it happened.
pub struct Exchange<'a> {
    /// Its number in the case, from 1.
    pub number: usize,
    /// What the case says.
    pub step: &'a Step,
    /// What should come.
    pub expected: Expected,
    /// What came.
    pub got: Got,
    /// The requests that the upstream saw of it.
    pub saw: Vec<Request>,
    /// Replaces what stands in braces.
    fill: Fill,
}

impl Exchange<'_> {
    /// Replaces what stands in braces, as for the step.
    pub fn fill(&self, text: &str) -> String {
        self.fill.fill(text)
    }
}

/// What stands in braces: the time now, the time at which the case began, the URL of the case.
#[derive(Clone)]
struct Fill {
    now: SystemTime,
    start: SystemTime,
    base: String,
}

impl Fill {
    fn fill(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, (word, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            filled.push_str(before);
            match self.word(word) {
                Some(value) => filled.push_str(&value),
                None => filled.push_str(&format!("{{{word}}}")),
            }
            rest = after;
        }
        filled + rest
    }

    fn word(&self, word: &str) -> Option<String> {
        if word == "url" {
            return Some(self.base.clone());
        }
        let at = word.find(['+', '-']).unwrap_or(word.len());
        let (name, offset) = word.split_at(at);
        let base = match name {
            "now" => self.now,
            "start" => self.start,
            _ => return None,
        };
        let seconds: i64 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
        let by = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { base - by } else { base + by };
        Some(httpdate::fmt_http_date(time))
    }
}

impl Ground {
    /// An upstream and a clock, with nothing before them.
    pub async fn prepare() -> Self {
        Self { upstream: Upstream::start().await, clock: Clock::new() }
    }

    /// Runs the steps of a case, and shows each exchange to `judge` until it finds something.
    pub async fn run(
        &mut self,
        server: Server<'_>,
        file: &str,
        case: &Case,
        mut judge: impl FnMut(&Exchange<'_>) -> Option<String>,
    ) -> Option<String> {
        // Shown only when the test fails: the last one is where it hung.
        println!("{file}.yaml: {}", case.name);
        let base = case.base(file);
        let start = self.clock.now();
        let mut asked = 0;
        for (at, step) in case.steps.iter().enumerate() {
            self.clock.advance(step.after);
            let now = self.clock.now();
            let fill = Fill { now, start, base: base.clone() };
            let date = httpdate::fmt_http_date(now);
            let script = |step: &Step| {
                answer(step, &step.content_of_answer(at), &|text| fill.fill(text), &date)
            };
            self.upstream.answer(&base, step.answers_in_order().map(script).collect());
            let got = send(server.addr, server.version, &request(step, &fill)).await;
            if step.background {
                server
                    .settles(&self.upstream, &base, asked + step.answers_in_order().count())
                    .await;
            }
            let seen = self.upstream.asked(&base);
            let saw = seen[asked..].to_vec();
            asked = seen.len();
            let expected = Expected::of(&case.steps, at);
            let exchange = Exchange { number: at + 1, step, expected, got, saw, fill };
            if let Some(found) = judge(&exchange) {
                return Some(found);
            }
        }
        None
    }
}

fn request(step: &Step, fill: &Fill) -> Asked {
    let mut fields = Vec::new();
    if !step.with.names("Host") {
        fields.push(("Host".to_owned(), "shop.test".to_owned()));
    }
    for (name, value) in &step.with.0 {
        if let Value::Lines(lines) = value {
            fields.extend(lines.iter().map(|line| (name.clone(), fill.fill(line))));
        }
    }
    let target = match step.suffix() {
        whole if whole.starts_with("http:") || whole == "*" => whole.to_owned(),
        suffix => format!("{}{suffix}", fill.base),
    };
    let content = step.content.clone();
    Asked { method: step.method().to_owned(), target: fill.fill(&target), fields, content }
}

/// Where a server listens, and how it is spoken to.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Its address.
    pub addr: SocketAddr,
    /// The version of HTTP.
    pub version: Version,
    /// The process, where it is Outrigger.
    pub proxy: Option<&'a Proxy>,
}

impl Server<'_> {
    /// Waits until the upstream has been asked that often, and nothing is under way any more.
    async fn settles(&self, upstream: &Upstream, base: &str, n: usize) {
        let what = format!("{n} request(s) of {base} at the upstream");
        upstream.origin.until(&what, || upstream.asked(base).len() >= n).await;
        let Some(proxy) = self.proxy else { return };
        eventually("no fetch is under way", || async {
            (metric(proxy, "outrigger_fetches", &[]).await == 0.0).then_some(())
        })
        .await;
    }
}

/// Runs a file against Outrigger over one version of HTTP. Panics with all that differs.
pub async fn outrigger(name: &str, version: Version) {
    let file: File = case::read(name);
    let mut ground = Ground::prepare().await;
    let mut setup = Setup::of(&ground.upstream.origin);
    for (name, value) in ground.clock.environment() {
        setup = setup.env(&name, &value);
    }
    if let Some(policy) = &file.policy {
        setup = setup.policy(policy);
    }
    let proxy = setup.start().await;
    ground.clock.tidy(proxy.pid());
    let server = Server { addr: proxy.addr, version, proxy: Some(&proxy) };
    let mut failed = Vec::new();
    let other = |case: &&Case| case.only.is_none_or(|only| only == version);
    for case in file.cases.iter().filter(other) {
        if let Some(found) = ground.run(server, name, case, judge).await {
            failed.push(format!("{name}.yaml: {}{}\n    {found}", case.name, cites(case)));
        }
    }
    assert!(failed.is_empty(), "{} case(s) differ:\n{}", failed.len(), failed.join("\n"));
}

fn cites(case: &Case) -> String {
    case.rfc.as_ref().map(|rfc| format!(" [RFC {rfc}]")).unwrap_or_default()
}

fn judge(exchange: &Exchange<'_>) -> Option<String> {
    let Exchange { number, step, expected, got, saw, .. } = exchange;
    let fill = |text: &str| exchange.fill(text);
    let wrong = upstream_saw(step, saw, &fill)
        .or_else(|| expected.status_and_content(got))
        .or_else(|| expected.fields(step, got, &fill))?;
    let asked: Vec<_> = saw.iter().map(|request| &request.head).collect();
    Some(format!("step {number}: {wrong}\n    got {got:?}\n    upstream saw {asked:?}"))
}
