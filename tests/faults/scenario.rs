//! A row from warm-up to recovery, for one proxy or for several at the same
//! moments, each of them with an origin and a load of its own.

use std::any::Any;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::figures::{Figures, Windows, recovery};
use crate::load::Load;
use crate::origin::Origin;
use crate::rows::{EndpointState, FAULT, Row};

const WARM: Duration = Duration::from_secs(2);
const HEALTHY: Duration = Duration::from_secs(3);
/// Time to recover.
const AFTER: Duration = Duration::from_secs(8);
/// How much of it is spent even by those that have recovered at once.
const AFTER_MIN: Duration = Duration::from_millis(1500);

/// A proxy under test and what it stands before.
pub struct Subject {
    /// As in the table.
    pub name: &'static str,
    /// Its listener.
    pub addr: SocketAddr,
    /// Its upstream.
    pub origin: Origin,
    /// What a mode of the row is at this upstream.
    pub fault: fn(EndpointState) -> EndpointState,
    /// What keeps it running.
    pub _process: Box<dyn Any + Send + Sync>,
}

/// Runs a row with so many requests a second for each proxy.
pub async fn run(row: &Row, subjects: &[Subject], per_second: u32) -> Vec<Figures> {
    let healthy = WARM..WARM + HEALTHY;
    let windows = Windows {
        fault: healthy.end..healthy.end + FAULT,
        over: healthy.end + row.fault.over(),
        healthy,
    };
    let begin = Instant::now();
    let start = |subject: &Subject| Load::start(subject.addr, begin, per_second);
    let loads: Vec<Load> = subjects.iter().map(start).collect();
    for (at, modes) in row.fault.steps() {
        tokio::time::sleep_until((begin + windows.fault.start + at).into()).await;
        subjects.iter().for_each(|subject| subject.origin.switch(modes.map(subject.fault)));
    }
    tokio::time::sleep_until((begin + windows.fault.end + AFTER_MIN).into()).await;
    let recovered = |load: &Load| recovery(&load.asked(), windows.over).is_some();
    while begin.elapsed() < windows.fault.end + AFTER && !loads.iter().all(recovered) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut figures = Vec::new();
    for (load, subject) in loads.into_iter().zip(subjects) {
        let asked = load.stop().await;
        figures.push(Figures::of(&asked, &subject.origin.log, begin, &windows));
    }
    figures
}
