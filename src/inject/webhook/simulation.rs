//! Years of certificates in seconds: three replicas that run side by side, an API server that fails
//! now and then, replicas that start anew, and somebody who breaks things.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use serde_json::json;

use super::cluster::{Bundle, Bundles, Cluster, ClusterError, Stored};
use super::keeper::Keeper;
use super::material::CertificateLifetimes;
use super::tls::Resolver;

const STEP: Duration = Duration::from_secs(86_400);

#[derive(Default)]
struct State {
    version: u64,
    secret: Option<(u64, BTreeMap<String, String>)>,
    bundle: (u64, String),
    /// Writes of the Secret that had to be done again.
    conflicts: usize,
    secrets_written: usize,
}

/// A cluster in memory: it yields before each answer, and fails by chance.
#[derive(Clone)]
struct Memory {
    state: Arc<Mutex<State>>,
    rng: Arc<Mutex<Rng>>,
    failing: bool,
}

impl Memory {
    async fn arrive(&self) -> Result<(), ClusterError> {
        let (yields, fails) = {
            let mut rng = self.rng.lock().unwrap();
            (rng.u8(0..4), self.failing && rng.u8(0..100) < 8)
        };
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        if fails { Err(ClusterError::Unreachable("by chance".to_owned())) } else { Ok(()) }
    }
}

impl Cluster for Memory {
    async fn secret(&self) -> Result<Option<Stored>, ClusterError> {
        self.arrive().await?;
        let state = self.state.lock().unwrap();
        Ok(state
            .secret
            .as_ref()
            .map(|(version, data)| Stored { data: data.clone(), object: json!(version) }))
    }

    async fn write_secret(
        &self,
        old: Option<&Stored>,
        data: &BTreeMap<&'static str, String>,
    ) -> Result<(), ClusterError> {
        self.arrive().await?;
        let mut state = self.state.lock().unwrap();
        let there = state.secret.as_ref().map(|(version, _)| json!(version));
        if there.as_ref() != old.map(|stored| &stored.object) {
            state.conflicts += 1;
            return Err(ClusterError::Conflict);
        }
        state.version += 1;
        state.secrets_written += 1;
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        state.secret = Some((state.version, data));
        Ok(())
    }

    async fn bundles(&self) -> Result<Bundles, ClusterError> {
        self.arrive().await?;
        let state = self.state.lock().unwrap();
        let entries = vec![Bundle { index: 0, pem: state.bundle.1.clone() }];
        Ok(Bundles { version: json!(state.bundle.0), entries })
    }

    async fn write_bundle(&self, read: &Bundles, pem: &str) -> Result<(), ClusterError> {
        self.arrive().await?;
        let mut state = self.state.lock().unwrap();
        if json!(state.bundle.0) != read.version {
            return Err(ClusterError::Conflict);
        }
        state.version += 1;
        state.bundle = (state.version, pem.to_owned());
        Ok(())
    }
}

fn names() -> Vec<String> {
    vec!["inject.mesh.svc".to_owned(), "inject.mesh.svc.cluster.local".to_owned()]
}

fn replica(memory: &Memory) -> Keeper<Memory> {
    Keeper::new(
        memory.clone(),
        Arc::new(Resolver::default()),
        names(),
        CertificateLifetimes::default(),
    )
}

struct World {
    memory: Memory,
    replicas: Vec<Keeper<Memory>>,
    rng: Rng,
    now: SystemTime,
    /// The bundle a step ago: what an API server may still go by.
    before: String,
    /// Steps for which the bundle is not ours to answer for.
    broken: u32,
}

impl World {
    fn new(seed: u64, failing: bool) -> Self {
        let rng = Arc::new(Mutex::new(Rng::with_seed(seed)));
        let memory = Memory { state: Arc::default(), rng, failing };
        World {
            replicas: (0..3).map(|_| replica(&memory)).collect(),
            memory,
            rng: Rng::with_seed(seed ^ 0x5eed),
            now: UNIX_EPOCH + STEP * 20_000,
            before: String::new(),
            broken: 2,
        }
    }

    fn bundle(&self) -> String {
        self.memory.state.lock().unwrap().bundle.1.clone()
    }

    async fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        let [a, b, c] = &mut self.replicas[..] else { panic!("three replicas") };
        let _ = tokio::join!(a.pass(now), b.pass(now), c.pass(now));
        let after = self.bundle();
        if self.broken == 0 {
            for (i, replica) in self.replicas.iter().enumerate() {
                let Some(served) = replica.served() else { continue };
                for bundle in [&self.before, &after] {
                    let trusted = served.is_trusted(bundle, &names(), now);
                    assert!(trusted.is_ok(), "replica {i} at {now:?}: {trusted:?}");
                }
            }
        }
        self.broken = self.broken.saturating_sub(1);
        self.before = after;
    }

    /// Now and then somebody does something that nobody should.
    fn vandalise(&mut self) {
        let mut state = self.memory.state.lock().unwrap();
        match self.rng.u8(0..60) {
            0 => state.secret = None,
            1 => {
                state.version += 1;
                let data = BTreeMap::from([("tls.crt".to_owned(), "nonsense".to_owned())]);
                state.secret = Some((state.version, data));
            }
            2 | 3 => {
                state.version += 1;
                let text = if self.rng.bool() { "" } else { "nonsense" };
                state.bundle = (state.version, text.to_owned());
                // Healed by the next pass that gets through, and seen by all one later.
                self.broken = 4;
            }
            4 | 5 => {
                drop(state);
                let which = self.rng.usize(0..self.replicas.len());
                self.replicas[which] = replica(&self.memory);
            }
            _ => {}
        }
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

#[test]
fn replicas_that_start_together_agree() {
    block_on(async {
        let mut conflicts = 0;
        for seed in 0..20 {
            let mut world = World::new(seed, false);
            for _ in 0..3 {
                world.step().await;
            }
            let served: Vec<_> = world.replicas.iter().map(|r| r.served().unwrap()).collect();
            assert!(served.windows(2).all(|two| two[0].is_same_certificate(two[1])));
            let state = world.memory.state.lock().unwrap();
            assert_eq!(state.secrets_written, 1, "seed {seed}");
            conflicts += state.conflicts;
        }
        assert!(conflicts > 0, "no seed made them race");
    });
}

#[test]
fn three_years_pass_without_an_untrusted_moment() {
    block_on(async {
        let mut world = World::new(1, true);
        for _ in 0..3 * 365 {
            world.step().await;
        }
        let written = world.memory.state.lock().unwrap().secrets_written;
        // A certificate each 60 days, an authority each 243 of them.
        assert!((18..=24).contains(&written), "{written} renewals");
    });
}

#[test]
fn what_others_break_is_healed() {
    block_on(async {
        for seed in 0..4 {
            let mut world = World::new(seed, true);
            for _ in 0..500 {
                world.vandalise();
                world.step().await;
            }
            for _ in 0..6 {
                world.step().await;
            }
            assert!(world.replicas.iter().all(Keeper::is_serving), "seed {seed}");
        }
    });
}
