//! After a purge that all pods acknowledged, nothing older is served: by no pod, and not by a fetch
//! that was under way.
//!
//! A pod that was not live when the purge was acknowledged may be behind on eventual routes until
//! it has caught up. On strong routes it may not.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cluster::{Addresses, Shape};
use crate::load::{Caller, Run, Seen, assert_busy, finish};
use crate::register::Register;
use crate::rng::{Rng, again};
use crate::storm::{Absence, calm, redis_storm, storm};
use crate::support::Client;

const LEASE: Duration = Duration::from_millis(800);
const GROUPS: usize = 3;
const KEYS: usize = 4;

fn path(root: &str, group: usize, key: usize) -> String {
    format!("/{root}/g{group}/k{key}")
}

fn any_path(rng: &mut Rng) -> String {
    path(any_root(rng), rng.below(GROUPS), rng.below(KEYS))
}

fn any_root(rng: &mut Rng) -> &'static str {
    if rng.percent(50) { "e" } else { "s" }
}

/// An acknowledged purge: since then, this path is at least that new everywhere.
#[derive(Clone, Debug)]
struct Floor {
    acknowledged: u64,
    version: u64,
    answer: Arc<String>,
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.acknowledged as f64 / 1e6;
        write!(f, "version {} or newer since {ms:.3} ms: {}", self.version, self.answer)
    }
}

#[derive(Default)]
struct Floors(Mutex<HashMap<String, Vec<Floor>>>);

impl Floors {
    fn add(&self, path: String, floor: Floor) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(path).or_default().push(floor);
    }

    /// The newest promise about a path that had been made by then.
    fn at(&self, path: &str, time: u64) -> Option<Floor> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = all.get(path)?.iter().filter(|floor| floor.acknowledged < time);
        made.max_by_key(|floor| floor.version).cloned()
    }

    fn purges(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers: Vec<_> = all.values().flatten().map(|f| Arc::as_ptr(&f.answer)).collect();
        answers.sort_unstable();
        answers.dedup();
        answers.len()
    }
}

/// A purge of several paths, and what it concerns.
fn any_purge(rng: &mut Rng) -> (Value, Vec<String>) {
    let (root, group, key) = (any_root(rng), rng.below(GROUPS), rng.below(KEYS));
    let keys = |root: &'static str| (0..KEYS).map(move |key| path(root, group, key));
    match rng.below(4) {
        0 => {
            let one = path(root, group, key);
            (json!({"url": format!("http://shop.test{one}")}), vec![one])
        }
        1 => (json!({"tag": format!("g{group}")}), keys("e").chain(keys("s")).collect()),
        2 => {
            let both = |root| (0..GROUPS).map(move |group| path(root, group, key));
            (json!({"tag": format!("k{key}")}), both("e").chain(both("s")).collect())
        }
        _ => {
            (json!({"prefix": format!("http://shop.test/{root}/g{group}/")}), keys(root).collect())
        }
    }
}

/// Asks a pod, which may not answer at all.
async fn purge(addresses: &Addresses, pod: usize, what: &Value) -> Option<(u16, Value)> {
    let asking = async {
        let mut client = Client::try_connect(addresses.admin(pod)).await.ok()?;
        let body = what.to_string();
        let length = body.len();
        let head = "POST /purge HTTP/1.1\r\nHost: admin\r\nContent-Type: application/json\r\n";
        client.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await;
        let response = client.try_response("POST").await.ok()?;
        Some((response.status, serde_json::from_slice(&response.body).ok()?))
    };
    tokio::time::timeout(Duration::from_secs(4), asking).await.ok()?
}

/// Changes paths behind the back of the pods, and purges them.
fn purgers(
    run: &Arc<Run>,
    register: &Arc<Register>,
    floors: &Arc<Floors>,
    addresses: &Addresses,
    all: &mut JoinSet<()>,
) {
    for id in 0..3 {
        let (run, register, floors) = (Arc::clone(run), Arc::clone(register), Arc::clone(floors));
        let (addresses, mut rng) = (addresses.clone(), Rng::of(id + 500));
        all.spawn(async move {
            while !run.is_over() {
                let (mut what, paths) = any_purge(&mut rng);
                what["wait"] = json!("all");
                what["timeout"] = json!("3s");
                let newest: Vec<_> = paths.iter().map(|path| register.change(path)).collect();
                let Some((200, answer)) = purge(&addresses, rng.below(3), &what).await else {
                    calm(Duration::from_millis(50)).await;
                    continue;
                };
                let acknowledged = run.now();
                if answer["missing"] == json!([]) {
                    let answer = Arc::new(format!("{what} -> {answer}"));
                    for (path, version) in paths.into_iter().zip(newest) {
                        let answer = Arc::clone(&answer);
                        floors.add(path, Floor { acknowledged, version, answer });
                    }
                }
                calm(Duration::from_millis(rng.below(40) as u64)).await;
            }
        });
    }
}

fn readers(run: &Arc<Run>, addresses: &Addresses, all: &mut JoinSet<()>) {
    for id in 0..6 {
        let run = Arc::clone(run);
        let mut caller = Caller::new(id, addresses);
        all.spawn(async move {
            while !run.is_over() {
                let (path, pod) = (any_path(&mut caller.rng), caller.rng.below(3));
                caller.call(&run, pod, &path, None).await;
                caller.rest().await;
            }
        });
    }
}

fn assert_nothing_older(seen: &[Seen], floors: &Floors, absences: &[Absence]) {
    let mut wrong = Vec::new();
    let mut judged = 0;
    for seen in seen {
        let (Some(held), Some(floor)) = (seen.held, floors.at(&seen.path, seen.call)) else {
            continue;
        };
        let away = absences.iter().any(|absence| absence.covers(seen.pod, seen.call));
        if away && seen.path.starts_with("/e/") {
            continue;
        }
        judged += 1;
        if held.version < floor.version {
            wrong.push(format!("{seen}\n    though {floor}"));
        }
    }
    println!("{judged} answers judged after {} acknowledged purges", floors.purges());
    let few = wrong[..wrong.len().min(8)].join("\n");
    let count = wrong.len();
    assert!(
        count == 0,
        "{count} of {judged} answers are from before a purge ({}):\n{few}",
        again()
    );
    assert!(judged > 100 && floors.purges() > 10, "too few: the test proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_acknowledged_purge_nothing_older_is_served() {
    let register = Arc::new(Register::start().await);
    let cluster = Shape::of(register.url(), 3).lease(LEASE).start().await;
    let (run, floors, mut all) = (Run::new(), Arc::default(), JoinSet::new());
    purgers(&run, &register, &floors, &cluster.addresses, &mut all);
    readers(&run, &cluster.addresses, &mut all);
    calm(Duration::from_secs(4)).await;
    run.enough().await;
    finish(&run, all).await;
    let seen = run.seen();
    assert_busy("purges", &seen, 10);
    assert_nothing_older(&seen, &floors, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_acknowledged_purge_nothing_older_is_served_while_pods_come_and_go() {
    let register = Arc::new(Register::start().await);
    let mut cluster = Shape::of(register.url(), 3).lease(LEASE).link(1).start().await;
    let (run, floors, mut all) = (Run::new(), Arc::default(), JoinSet::new());
    purgers(&run, &register, &floors, &cluster.addresses, &mut all);
    readers(&run, &cluster.addresses, &mut all);
    let absences = storm(&mut cluster, &run).await;
    finish(&run, all).await;
    let seen = run.seen();
    assert_busy("purges in a storm", &seen, 5);
    assert_nothing_older(&seen, &floors, &absences);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_acknowledged_purge_nothing_older_is_served_while_redis_comes_and_goes() {
    let register = Arc::new(Register::start().await);
    let mut cluster = Shape::of(register.url(), 3).lease(LEASE).start().await;
    let (run, floors, mut all) = (Run::new(), Arc::default(), JoinSet::new());
    purgers(&run, &register, &floors, &cluster.addresses, &mut all);
    readers(&run, &cluster.addresses, &mut all);
    let absences = redis_storm(&mut cluster, &run).await;
    finish(&run, all).await;
    let seen = run.seen();
    assert_busy("purges without Redis", &seen, 2);
    assert_nothing_older(&seen, &floors, &absences);
}
