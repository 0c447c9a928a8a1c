//! What a pod does for its clients: reads, fills, writes and purges, by the level of the route.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use outrigger_coherence::{Action, Content, Matcher, PurgeMode, PurgeRequest, Seq};
use outrigger_semantics::{FreshnessSource, Lifetimes, Recency, UnixMillis, Variant};
use outrigger_store::Entry;
use outrigger_store::entry::{Draft, LogSpan};

use crate::exec::{Bell, MS, Micros};
use crate::pod::{Pod, Stored};
use crate::rules::Rule;
use crate::world::{LEVELS, Level, Sim};

/// How long a causal read waits for the log.
const CATCH_UP_MAX: Micros = 30 * MS;

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    Read { key: usize, token: Seq },
    Write { key: usize, value: u64, token: Seq },
    Purge { matcher: Matcher, wait_all: bool },
}

/// What it is told.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Found { value: u64, token: Seq, from: &'static str },
    Written { token: Seq },
    Refused,
    Purged,
}

pub fn uri(key: usize) -> String {
    format!("http://h/{key}")
}

/// The URL of a key.
pub fn url(key: usize) -> Matcher {
    Matcher::Url { uri: uri(key), digests: vec![key as u128 + 1], rules: None }
}

fn request(matcher: Matcher) -> PurgeRequest {
    PurgeRequest { matcher, mode: PurgeMode::Hard, by: "test", reason: None }
}

/// The purge that ends a hold.
pub fn ending(hold: &Content, seq: Seq) -> Content {
    let action = Action::Purge { mode: PurgeMode::Hard, ends: Some(seq) };
    Content { action, ..hold.clone() }
}

fn entry_of(key: usize, born: Seq, seen: Seq) -> Entry {
    let (uri, mut headers) = (uri(key), http::HeaderMap::new());
    let tag = http::HeaderValue::from_str(&format!("t{key}")).unwrap();
    headers.insert("cache-tag", tag);
    Entry::new(Draft {
        key: uri.as_bytes(),
        digest: key as u128 + 1,
        uri_len: uri.len(),
        uri_digest: key as u128 + 1,
        status: http::StatusCode::OK,
        headers: &headers,
        omit: &[],
        body: bytes::Bytes::new(),
        part: None,
        variant: Variant::default(),
        lifetimes: Lifetimes {
            born: UnixMillis(0),
            fresh_until: UnixMillis(1),
            stale_while_revalidate_until: UnixMillis(1),
            stale_if_error_until: UnixMillis(1),
            no_cache: false,
            invalid: false,
            forbids_stale: false,
            immutable: false,
            policy_alone: false,
            source: FreshnessSource::MaxAge,
        },
        log: LogSpan { born, seen },
        rules_fingerprint: 0,
        recency: Recency::default(),
        now: UnixMillis(0),
        fetch_millis: 0,
    })
}

/// Asks the origin, where a read takes an eighth of the time. It does what it was asked also when
/// the pod dies meanwhile.
async fn at_origin<T: 'static>(sim: &Sim, hurry: u64, run: impl FnOnce(&Sim) -> T + 'static) -> T {
    let answer: Rc<RefCell<Option<T>>> = Rc::default();
    let bell = Bell::default();
    let (there, rings, net) = (Rc::clone(&answer), bell.clone(), Rc::clone(sim));
    sim.exec.spawn(None, async move {
        net.exec.sleep(net.origin_latency() / hurry).await;
        let value = run(&net);
        net.exec.sleep(net.origin_latency() / hurry).await;
        *there.borrow_mut() = Some(value);
        net.exec.ring(&rings);
    });
    sim.exec.wait(&bell, Micros::MAX, || answer.borrow_mut().take()).await.unwrap()
}

async fn forward(sim: &Sim, key: usize, value: u64) {
    at_origin(sim, 1, move |sim| {
        sim.note(|| format!("origin   k{key} = {value}"));
        sim.checks.took_effect(key, value);
        sim.origin.borrow_mut()[key] = value;
    })
    .await;
}

impl Pod {
    /// Serves a client.
    pub async fn serve(self: Rc<Self>, ask: Ask) -> Answer {
        match ask {
            Ask::Read { key, token } => self.get(key, token).await,
            Ask::Write { key, value, token } => match LEVELS[key] {
                Level::Eventual => self.write_eventually(key, value).await,
                Level::Causal => self.write_causally(key, value, token).await,
                Level::Strong => self.write_strongly(key, value).await,
            },
            Ask::Purge { matcher, wait_all } => self.purge_as_asked(matcher, wait_all).await,
        }
    }

    /// Whether a stored response may be served.
    fn may_serve(&self, entry: &Entry, level: Level, token: Seq) -> bool {
        let rules = &self.sim.rules;
        let by_level = match level {
            Level::Eventual => true,
            _ if self.may_miss_holds() => false,
            Level::Causal => self.covers(token) || !rules.has(Rule::TokenChecked),
            Level::Strong => self.has_lease() || !rules.has(Rule::LeaseChecked),
        };
        by_level && !self.is_purged(entry)
    }

    fn found(&self, key: usize, stored: &Stored, token: Seq, from: &'static str) -> Answer {
        self.relies_on_writers(key);
        self.sim.checks.served(self, key, stored);
        Answer::Found { value: stored.value, token: token.max(stored.entry.seen_seq), from }
    }

    async fn get(&self, key: usize, token: Seq) -> Answer {
        let level = LEVELS[key];
        if level == Level::Causal {
            self.until_covers(token, CATCH_UP_MAX).await;
        }
        let have = self.memory.borrow().get(&key).cloned();
        if let Some(stored) = have.filter(|stored| self.may_serve(&stored.entry, level, token)) {
            return self.found(key, &stored, token, "memory");
        }
        if self.sim.config.has_tier {
            self.sim.exec.sleep(self.sim.latency()).await;
            let have = self.sim.tier.borrow().get(&key).cloned();
            if let Some(stored) = have.filter(|_| self.knows_others()) {
                let (born, seen) = (stored.entry.born_seq, stored.entry.seen_seq);
                let stored = Stored { entry: Arc::new(entry_of(key, born, seen)), ..stored };
                if self.may_serve(&stored.entry, level, token) {
                    self.keep(key, &stored);
                    return self.found(key, &stored, token, "tier");
                }
            }
        }
        self.fetch(key, level, token).await
    }

    fn keep(&self, key: usize, stored: &Stored) {
        let mut memory = self.memory.borrow_mut();
        if memory.get(&key).is_none_or(|have| have.entry.born_seq <= stored.entry.born_seq) {
            memory.insert(key, stored.clone());
        }
    }

    async fn fetch(&self, key: usize, level: Level, token: Seq) -> Answer {
        let (sim, rules) = (&self.sim, &self.sim.rules);
        let (mut born, began) = (self.mirror.applied(), sim.exec.stamp());
        let is_storable = level == Level::Eventual || !self.may_miss_holds();
        if is_storable {
            self.relies_on_writers(key);
        }
        let value = at_origin(sim, 8, move |sim| sim.origin.borrow()[key]).await;
        let seen = match level {
            Level::Causal if rules.has(Rule::TokenFromSeen) => self.seen().await,
            _ => born,
        };
        if !rules.has(Rule::BornBeforeFetch) {
            born = self.mirror.applied();
        }
        let stored = Stored { entry: Arc::new(entry_of(key, born, seen)), value, began };
        if is_storable && !self.is_purged(&stored.entry) {
            self.keep(key, &stored);
            self.offer(key, stored.clone());
        }
        Answer::Found { value, token: token.max(stored.entry.seen_seq), from: "origin" }
    }

    /// Writes to the shared tier behind the answer, sooner or much later.
    fn offer(&self, key: usize, stored: Stored) {
        if !self.sim.config.has_tier {
            return;
        }
        let sim = Rc::clone(&self.sim);
        self.sim.exec.spawn(None, async move {
            let time = if sim.percent(15) { sim.below(1500 * MS) } else { sim.latency() };
            sim.exec.sleep(time).await;
            sim.tier.borrow_mut().insert(key, stored);
        });
    }

    async fn write_eventually(&self, key: usize, value: u64) -> Answer {
        let content = Content::purge(request(url(key)), None, &self.name);
        self.in_flight.borrow_mut().push(key);
        forward(&self.sim, key, value).await;
        let seq = self.purge(&content).await;
        self.landed(key);
        self.sim.checks.in_effect(self.life, seq);
        Answer::Written { token: 0 }
    }

    fn landed(&self, key: usize) {
        let mut in_flight = self.in_flight.borrow_mut();
        if let Some(at) = in_flight.iter().position(|have| *have == key) {
            in_flight.swap_remove(at);
        }
    }

    async fn write_causally(&self, key: usize, value: u64, token: Seq) -> Answer {
        let (sim, request) = (&self.sim, request(url(key)));
        let hold = match sim.rules.has(Rule::HoldBeforeCausal) {
            true => self.hold(&Content::hold(request.clone(), &self.name), false).await,
            false => None,
        };
        if hold.is_none() && sim.rules.has(Rule::HoldBeforeCausal) {
            return Answer::Refused;
        }
        if hold.is_none() {
            self.in_flight.borrow_mut().push(key);
        }
        forward(sim, key, value).await;
        let own = match self.invalidate(request, hold).await {
            Some(seq) => seq,
            None => self.seen().await,
        };
        self.landed(key);
        Answer::Written { token: token.max(own) }
    }

    async fn write_strongly(&self, key: usize, value: u64) -> Answer {
        let (sim, request) = (&self.sim, request(url(key)));
        let mut hold = None;
        if sim.rules.has(Rule::HoldBeforeStrong) {
            hold = self.hold(&Content::hold(request.clone(), &self.name), true).await;
            if hold.is_none() && sim.rules.has(Rule::RefuseUnreachable) {
                return Answer::Refused;
            }
        }
        forward(sim, key, value).await;
        self.invalidate(request, hold).await;
        Answer::Written { token: 0 }
    }

    /// Ends the hold of a write, or purges if there was none; the position, unless it is queued.
    async fn invalidate(&self, request: PurgeRequest, hold: Option<u64>) -> Option<Seq> {
        if let Some(id) = hold {
            return self.complete(id).await;
        }
        let seq = self.purge(&Content::purge(request, None, &self.name)).await;
        self.sim.checks.in_effect(self.life, seq);
        seq
    }

    async fn purge_as_asked(&self, matcher: Matcher, wait_all: bool) -> Answer {
        let seq = self.purge(&Content::purge(request(matcher), None, &self.name)).await;
        self.sim.checks.in_effect(self.life, seq);
        if let Some(seq) = seq.filter(|_| wait_all)
            && self.acknowledged(seq, 2000 * MS).await
        {
            self.sim.note(|| format!("{}     nothing missing", self.name));
            self.sim.checks.acknowledged(seq);
        }
        Answer::Purged
    }
}
