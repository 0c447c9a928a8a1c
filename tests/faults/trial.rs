//! A row of the matrix as a test: Outrigger, and beside it a control.
//!
//! The control is a plain pass-through with the same load, the same time-outs and an upstream that
//! does not fail. A busy machine makes it lose requests, or answer late, in the same moments: so
//! many losses are not held against Outrigger, and no others are allowed.

use std::time::Duration;

use crate::figures::{Figures, Share};
use crate::outrigger::outrigger;
use crate::peers::pass_through;
use crate::rows::Row;
use crate::scenario;
use crate::table::Line;

/// Requests a second for each of the two, where several rows run at once in a debug build.
const PER_SECOND: u32 = 100;
/// An answer that the control gives later than this tells of a machine that stood still: the
/// shortest margin of a time-out, in the row with slow answers, is three times as long.
const STALL: Duration = Duration::from_millis(100);

/// What a row has shown.
pub struct Trial {
    /// The row.
    pub row: Row,
    names: [&'static str; 2],
    outrigger: Figures,
    control: Figures,
}

impl Trial {
    /// Runs a row with new processes.
    pub async fn run(row: Row) -> Self {
        let subjects = [outrigger().await, pass_through()];
        let figures = scenario::run(&row, &subjects, PER_SECOND).await;
        let [outrigger, control] = figures.try_into().expect("figures of both");
        Self { row, names: subjects.each_ref().map(|subject| subject.name), outrigger, control }
    }

    /// Both for the table.
    pub fn lines(&self) -> [Line; 2] {
        let line =
            |proxy, figures: &Figures| Line { row: self.row, proxy, figures: figures.clone() };
        let [ours, control] = self.names;
        [line(ours, &self.outrigger), line(control, &self.control)]
    }

    /// What the row has promised and Outrigger not kept, apart from what the control lost too.
    pub fn broken(&self) -> Vec<String> {
        let (promised, f, control) = (self.row.expect, &self.outrigger, &self.control);
        let mut broken = Vec::new();
        let mut check = |kept: bool, what: String| {
            if !kept {
                broken.push(format!("{}: {what}", self.row.name));
            }
        };
        for (what, min, ours, others) in [
            ("served in health", 1.0, f.healthy, control.healthy),
            ("hot served", promised.hot_min, f.hot, control.hot),
            ("uncacheable served", promised.uncacheable_min, f.uncacheable, control.uncacheable),
            ("new served", promised.new_min, f.new, control.new),
        ] {
            check(kept(ours, min, others), format!("{what}: {ours:?}, the control: {others:?}"));
        }
        check(
            f.upstream <= promised.upstream_max,
            format!("reached the upstream: {:.2} times what did in health", f.upstream),
        );
        check(f.wrong == 0, format!("wrong bodies: {}", f.wrong));
        check(f.recovery.is_some(), "no recovery".to_owned());
        broken
    }

    /// Whether the control was disturbed, so that a broken promise shows nothing of Outrigger. A
    /// wrong body is never the machine's doing, nor that Outrigger does not recover while the control
    /// does.
    pub fn is_void(&self) -> bool {
        let Figures { healthy, served, slowest: [in_health, in_fault], .. } = &self.control;
        let stalled = *in_health > STALL || *in_fault > STALL + self.row.fault.delay();
        let stuck = self.outrigger.recovery.is_none() && self.control.recovery.is_some();
        self.outrigger.wrong == 0 && !stuck && (stalled || healthy.lost() > 0 || served.lost() > 0)
    }
}

/// Whether a share is at least so large, once the control's losses are taken off both.
fn kept(ours: Share, min: f64, control: Share) -> bool {
    let promised = (1.0 - min) * ours.all as f64;
    let taken = (control.lost() * ours.all).div_ceil(control.all.max(1));
    ours.lost() as f64 <= promised + taken as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_control_loses_too_is_allowed_and_nothing_more() {
        let share = |lost: usize| Share { of: 200 - lost, all: 200 };
        for (ours, min, control, expected) in [
            (0, 1.0, 0, true),
            (1, 1.0, 0, false),
            (1, 1.0, 1, true),
            (2, 1.0, 1, false),
            (10, 0.95, 0, true),
            (11, 0.95, 0, false),
            (11, 0.95, 1, true),
            (200, 0.0, 0, true),
        ] {
            let kept = kept(share(ours), min, share(control));
            assert_eq!(kept, expected, "{ours} of 200 lost, {min} promised, control {control}");
        }
    }
}
