//! What happens to pods while they work.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::load::Run;

/// A pod was away from the log: from when to when, in the clock of the run.
#[derive(Clone, Copy, Debug)]
pub struct Absence {
    /// Which pod.
    pub pod: usize,
    /// Just before it began.
    pub from: u64,
    /// When the pod had caught up.
    pub to: u64,
}

impl Absence {
    /// Whether a request that began at this time met the pod while it was away.
    pub fn covers(&self, pod: usize, call: u64) -> bool {
        self.pod == pod && (self.from..=self.to).contains(&call)
    }
}

/// Nothing happens for a while.
pub async fn calm(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Storms that a run may take until enough has happened in them: on a busy machine one is little load.
const STORMS_MAX: usize = 3;

/// Storms until enough operations have had a good answer in them.
pub async fn storm(cluster: &mut Cluster, run: &Run) -> Vec<Absence> {
    let mut absences = Vec::new();
    for _ in 0..STORMS_MAX {
        absences.extend(one_storm(cluster, run).await);
        if run.has_enough() {
            break;
        }
    }
    absences
}

/// The same with storms of Redis.
pub async fn redis_storm(cluster: &mut Cluster, run: &Run) -> Vec<Absence> {
    let mut absences = Vec::new();
    for _ in 0..STORMS_MAX {
        absences.extend(one_redis_storm(cluster, run).await);
        if run.has_enough() {
            break;
        }
    }
    absences
}

/// Pod 0 stands still for longer than its lease, pod 1 loses Redis twice, once with its connections
/// and once without being told, and pod 2 is killed and comes back.
async fn one_storm(cluster: &mut Cluster, run: &Run) -> Vec<Absence> {
    let between = Duration::from_millis(300);
    let mut absences = Vec::new();
    calm(between).await;
    absences.push(pause(cluster, run, 0).await);
    calm(between).await;
    absences.push(partition(cluster, run, 1, true).await);
    calm(between).await;
    cluster.replace(2).await;
    calm(between).await;
    absences.push(partition(cluster, run, 1, false).await);
    calm(between).await;
    absences
}

/// Redis stands still for longer than a lease, is restarted at once, and is down for a while before
/// it is restarted; it comes back empty. No pod counts as live before all of them hear the log.
async fn one_redis_storm(cluster: &mut Cluster, run: &Run) -> Vec<Absence> {
    let between = Duration::from_millis(500);
    let mut absences = Vec::new();
    calm(between).await;
    for how in 0..3 {
        let from = run.now();
        match how {
            0 => {
                cluster.redis.stop_process();
                calm(away(cluster)).await;
                cluster.redis.continue_process();
            }
            1 => cluster.redis.restart().await,
            _ => {
                cluster.redis.kill();
                calm(away(cluster)).await;
                cluster.redis.restart().await;
            }
        }
        cluster.all_live().await;
        let to = run.now();
        absences.extend((0..cluster.pods.len()).map(|pod| Absence { pod, from, to }));
        calm(between).await;
    }
    absences
}

/// Longer than a lease.
fn away(cluster: &Cluster) -> Duration {
    cluster.lease() + Duration::from_millis(300)
}

async fn pause(cluster: &Cluster, run: &Run, pod: usize) -> Absence {
    let from = run.now();
    cluster.pods[pod].pause().await;
    calm(away(cluster)).await;
    let other = (pod + 1) % cluster.pods.len();
    let seq = cluster.pods[other].applied().await;
    cluster.pods[pod].go_on();
    cluster.pods[pod].caught_up(seq).await;
    Absence { pod, from, to: run.now() }
}

async fn partition(cluster: &Cluster, run: &Run, pod: usize, told: bool) -> Absence {
    let link = cluster.pods[pod].link.as_ref().expect("a pod with a link");
    let from = run.now();
    if told {
        link.refuse();
    } else {
        link.blackhole();
    }
    calm(away(cluster)).await;
    let other = (pod + 1) % cluster.pods.len();
    let seq = cluster.pods[other].applied().await;
    link.heal();
    cluster.pods[pod].caught_up(seq).await;
    Absence { pod, from, to: run.now() }
}
