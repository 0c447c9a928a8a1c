//! A purge that answers `complete` is never followed by what it meant: whatever the response was
//! stored with, whichever way it is named, through whichever pod, from memory, from Redis or by a
//! fetch that was under way. Chance chooses what happens; the seed is fixed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Shape};
use crate::rng::{Rng, again};
use crate::support::{Gate, Origin, Reply, Script, chunk, fetch, head, last_chunk};

const ROUNDS: usize = 40;
const STEPS: usize = 25;

/// What is under `/q` has its query sorted, and `/h` with a tenant is a route of its own.
const POLICY: &str = "
routes:
  - {name: eventual, match: {path: {prefix: /e}}, cache: {consistency: eventual}}
  - {name: causal, match: {path: {prefix: /c}}, cache: {consistency: causal}}
  - {name: strong, match: {path: {prefix: /s}}, cache: {consistency: strong}}
  - {name: query, match: {path: {prefix: /q}}, cache: {key: {query: {ignore: [utm_*], sort: true}}}}
  - {name: tenant, match: {path: {prefix: /h}, headers: {x-tenant: '*'}}, cache: {key: {query: {sort: true}}}}
";

const ROOTS: [&str; 5] = ["/e", "/c", "/s", "/q", "/h"];
const ITEMS: usize = 3;

/// One resource of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Resource {
    root: usize,
    item: usize,
}

impl Resource {
    fn any(rng: &mut Rng) -> Self {
        Resource { root: rng.below(ROOTS.len()), item: rng.below(ITEMS) }
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..ROOTS.len()).flat_map(|root| (0..ITEMS).map(move |item| Resource { root, item }))
    }

    fn path(self) -> String {
        format!("{}/{}", ROOTS[self.root], self.item)
    }

    /// A target that names it, as the key of its route has it.
    fn target(self, rng: &mut Rng) -> String {
        let path = self.path();
        match ROOTS[self.root] {
            "/q" if rng.percent(50) => format!("{path}?b=2&a=1&utm_x={}", rng.below(3)),
            "/q" => format!("{path}?a=1&b=2"),
            _ => path,
        }
    }

    /// The tags that the origin gives it: two that tests purge by, and many more.
    fn tags(self) -> Vec<String> {
        let mut tags: Vec<String> = (0..self.item * 150).map(|n| format!("t{n}")).collect();
        tags.push(format!("item-{}", self.item));
        tags.push(format!("root{}-{}", self.root, "x".repeat(self.item * 200)));
        tags
    }
}

/// What the origin and the test know.
#[derive(Default)]
struct World {
    /// Rises with each purge; a response carries what it was when its request came.
    epoch: AtomicU64,
}

async fn origin(world: &Arc<World>, gates: &[Gate]) -> Origin {
    let origin = Origin::start().await;
    let (world, gates) = (Arc::clone(world), gates.to_vec());
    origin.on("*", move |r| {
        let body = format!("{} {}", world.epoch.load(Ordering::SeqCst), r.path());
        let (root, item) = r.path().rsplit_once('/').unwrap_or(("/e", "0"));
        let root = ROOTS.iter().position(|known| *known == root).unwrap_or(0);
        let tags = Resource { root, item: item.parse().unwrap_or(0) }.tags();
        let (name, tags) = match r.nth % 3 {
            0 => ("Surrogate-Key", tags.join(" ")),
            1 => ("Cache-Tag", tags.join(", ")),
            _ => ("Cache-Groups", format!("\"{}\"", tags.join("\", \""))),
        };
        let fields = [("Cache-Control", "max-age=600"), (name, tags.as_str()), ("Vary", "X-V")];
        match r.header("x-held").and_then(|held| held.split_once(' ')) {
            None => {
                let reply = Reply::ok(body);
                fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value)).into()
            }
            Some((place, gate)) => {
                let gate = &gates[gate.parse::<usize>().unwrap_or(0) % gates.len()];
                let chunked = fields.iter().copied().chain([("Transfer-Encoding", "chunked")]);
                let head = head(200, &chunked.collect::<Vec<_>>());
                let (first, rest) = body.split_at(1);
                let script = Script::new();
                let script = if place == "head" { script.gate(gate) } else { script };
                let script = script.send(head).send(chunk(first));
                let script = if place == "body" { script.gate(gate) } else { script };
                script.send(chunk(rest)).send(last_chunk(&[]))
            }
        }
    });
    origin
}

/// Who asks for what through which pod, and the epoch that the answer must have at least.
struct Asked {
    resource: Resource,
    pod: usize,
    floor: u64,
}

fn host(rng: &mut Rng) -> &'static str {
    ["shop.test", "Shop.test", "shop.test.", "shop.test:80", "SHOP.TEST:"][rng.below(5)]
}

/// A purge that means some resources, and these.
fn purge(rng: &mut Rng) -> (Value, Vec<Resource>) {
    let resource = Resource::any(rng);
    let mode = if rng.percent(20) { "soft" } else { "hard" };
    let (mut what, meant) = match rng.below(5) {
        0 => (json!({"all": true}), Resource::all().collect::<Vec<_>>()),
        1 => {
            let meant = Resource::all().filter(|other| other.root == resource.root);
            let prefix = format!("http://{}{}/", host(rng), ROOTS[resource.root]);
            (json!({"prefix": prefix}), meant.collect())
        }
        2 => {
            let tags = resource.tags();
            let tag = &tags[rng.below(tags.len())];
            let meant = Resource::all().filter(|other| other.tags().contains(tag));
            (json!({"tag": tag}), meant.collect())
        }
        _ => {
            let scheme = ["http", "https", "HTTP"][rng.below(3)];
            let host = if scheme == "https" { "shop.test:443" } else { host(rng) };
            let fragment = if rng.percent(20) { "#part" } else { "" };
            let url = format!("{scheme}://{host}{}{fragment}", resource.target(rng));
            (json!({"url": url}), vec![resource])
        }
    };
    what["mode"] = mode.into();
    (what, meant)
}

async fn round(rng: &mut Rng, cluster: &Cluster, world: &World, gates: &[Gate], nth: usize) {
    let first_gate = nth * gates.len();
    let mut floors: BTreeMap<Resource, u64> = BTreeMap::new();
    let mut under_way = JoinSet::new();
    for _ in 0..STEPS {
        if rng.percent(25) {
            let (what, meant) = purge(rng);
            let epoch = 1 + world.epoch.fetch_add(1, Ordering::SeqCst);
            let pod = &cluster.pods[rng.below(cluster.pods.len())];
            let answer = pod.purge_all(what.clone(), "10s").await;
            assert_eq!(answer["complete"], true, "{what}: {answer} ({})", again());
            for resource in meant {
                floors.insert(resource, epoch);
            }
            continue;
        }
        let resource = Resource::any(rng);
        let pod = rng.below(cluster.pods.len());
        let asked =
            Asked { resource, pod, floor: floors.get(&resource).copied().unwrap_or_default() };
        let (target, host) = (resource.target(rng), host(rng));
        let mut fields = vec![("Host", host.to_owned())];
        if rng.percent(50) {
            fields.push(("X-V", rng.below(2).to_string()));
        }
        if rng.percent(30) {
            fields.push(("X-Tenant", "t".to_owned()));
        }
        if rng.percent(10) {
            fields.push(("Cookie", "a=1".to_owned()));
        }
        if rng.percent(25) {
            let place = if rng.percent(50) { "head" } else { "body" };
            fields.push(("X-Held", format!("{place} {}", first_gate + rng.below(gates.len()))));
        }
        let addr = cluster.pods[pod].proxy.addr;
        under_way.spawn(async move {
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            (asked, fetch(addr, "GET", &target, &fields).await)
        });
    }
    gates.iter().for_each(Gate::open);
    while let Some(joined) = under_way.join_next().await {
        let (asked, response) = joined.expect("a response");
        let text = response.text();
        let epoch = text.split(' ').next().and_then(|epoch| epoch.parse::<u64>().ok());
        let epoch = epoch.unwrap_or_else(|| panic!("{response:#?}"));
        assert!(
            epoch >= asked.floor,
            "{:?} through pod {}: from epoch {epoch}, and purged in {} ({}): {response:#?}",
            asked.resource,
            asked.pod,
            asked.floor,
            again(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_response_is_served_after_a_complete_purge_of_it() {
    let world = Arc::new(World::default());
    for shape in 0..2 {
        let mut rng = Rng::of(shape as u64);
        // The gates of each round; a gate that is open stays open.
        let gates: Vec<Vec<Gate>> =
            (0..ROUNDS).map(|_| (0..3).map(|_| Gate::new()).collect()).collect();
        let all: Vec<Gate> = gates.iter().flatten().cloned().collect();
        let origin = origin(&world, &all).await;
        let pods = 1 + shape;
        let mut cluster = Shape::of(origin.url(), pods);
        for pod in 0..pods {
            cluster = cluster.policy(pod, POLICY);
        }
        let cluster = cluster.start().await;
        for (nth, gates) in gates.iter().enumerate() {
            round(&mut rng, &cluster, &world, gates, nth).await;
        }
        let reused = origin.all_requests().len();
        assert!(reused < ROUNDS * STEPS * 3 / 4, "{reused} requests: hardly anything was stored");
    }
}
