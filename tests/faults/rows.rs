//! The rows of the matrix: what the origin does wrong, and what of the service
//! has to be left while it does.

use std::time::Duration;

use crate::answer::SLOW;

/// What an endpoint does with connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Answers at once and right.
    Healthy,
    /// Does not listen, and has closed what was open.
    Refuse,
    /// Listens with a full backlog: a connect gets no answer at all.
    Jam,
    /// Resets when it has read the request.
    ResetBeforeHead,
    /// Resets within the response head.
    ResetInHead,
    /// Resets in the middle of the body.
    ResetInBody,
    /// Reads the request and says nothing.
    HangBeforeHead,
    /// Says nothing more within the response head.
    HangInHead,
    /// Says nothing more in the middle of the body.
    HangInBody,
    /// Answers right, 700 ms late.
    Slow,
    /// Answers 503.
    Unavailable,
    /// Answers with bytes that are no HTTP.
    Garbage,
}

/// Where a mode is in force, and when.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// At both endpoints, for the whole window.
    Steady(EndpointState),
    /// At one of the two, for the whole window.
    OneOfTwo(EndpointState),
    /// At both, in turns with health, for so many milliseconds each; it comes first.
    Turns(EndpointState, u64),
    /// At both, for so many milliseconds at the beginning of the window.
    Brief(EndpointState, u64),
}

/// How long the fault window is, for every row.
pub const FAULT: Duration = Duration::from_secs(4);

const WELL: [EndpointState; 2] = [EndpointState::Healthy; 2];

impl Fault {
    /// When the fault is over for good, from the beginning of the window.
    pub fn over(self) -> Duration {
        match self {
            Self::Brief(_, ms) => Duration::from_millis(ms),
            _ => FAULT,
        }
    }

    /// How long answers take in it although nothing else delays them.
    pub fn delay(self) -> Duration {
        if matches!(self, Self::Steady(EndpointState::Slow)) { SLOW } else { Duration::ZERO }
    }

    /// The modes of the two endpoints from each moment on; the last of them is health.
    pub fn steps(self) -> Vec<(Duration, [EndpointState; 2])> {
        let over = self.over();
        let mut steps = match self {
            Self::Steady(mode) | Self::Brief(mode, _) => vec![(Duration::ZERO, [mode; 2])],
            Self::OneOfTwo(mode) => vec![(Duration::ZERO, [mode, EndpointState::Healthy])],
            Self::Turns(mode, ms) => {
                let moments = (0..).map(|n: u32| Duration::from_millis(ms) * n);
                let modes = [[mode; 2], WELL].into_iter().cycle();
                moments.take_while(|at| *at < over).zip(modes).collect()
            }
        };
        steps.push((over, WELL));
        steps
    }
}

/// What a row promises. Nothing here is a time: those are in the table.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// At most so many times the requests of the healthy window reach the upstream.
    pub upstream_max: f64,
    /// The least share of hot requests that are served.
    pub hot_min: f64,
    /// The least share of uncacheable requests that are served.
    pub uncacheable_min: f64,
    /// The least share of requests for new URLs that are served.
    pub new_min: f64,
}

/// The upstream gets no more than in health, by the counting of two windows of some hundred
/// requests; whoever has a copy is served; for the others there is no promise.
const COPIES: Expect =
    Expect { upstream_max: 1.1, hot_min: 1.0, uncacheable_min: 0.0, new_min: 0.0 };
/// The fault is none for the client.
const ALL: Expect = Expect { uncacheable_min: 1.0, new_min: 1.0, ..COPIES };
/// A second endpoint takes the place of the first one.
const NEARLY_ALL: Expect = Expect { uncacheable_min: 0.95, new_min: 0.95, ..COPIES };

/// A row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As in the table.
    pub name: &'static str,
    /// What happens.
    pub fault: Fault,
    /// What is promised.
    pub expect: Expect,
}

const fn row(name: &'static str, fault: Fault, expect: Expect) -> Row {
    Row { name, fault, expect }
}

/// All rows, in groups that the ordinary tests run at once.
pub const ROWS: [&[Row]; 4] = [
    &[
        row("refuses connections", Fault::Steady(EndpointState::Refuse), COPIES),
        row("hangs at connect", Fault::Steady(EndpointState::Jam), COPIES),
        row("flapping, 500 ms", Fault::Turns(EndpointState::Refuse, 500), COPIES),
        row("restart, 700 ms", Fault::Brief(EndpointState::Refuse, 700), COPIES),
    ],
    &[
        row("resets before the head", Fault::Steady(EndpointState::ResetBeforeHead), COPIES),
        row("resets in the head", Fault::Steady(EndpointState::ResetInHead), COPIES),
        row("resets in the body", Fault::Steady(EndpointState::ResetInBody), COPIES),
        row("garbage", Fault::Steady(EndpointState::Garbage), COPIES),
    ],
    &[
        row("hangs before the head", Fault::Steady(EndpointState::HangBeforeHead), COPIES),
        row("hangs in the head", Fault::Steady(EndpointState::HangInHead), COPIES),
        row("hangs in the body", Fault::Steady(EndpointState::HangInBody), COPIES),
        row("slow, 700 ms", Fault::Steady(EndpointState::Slow), ALL),
    ],
    &[
        row("bursts of 503, 400 ms", Fault::Turns(EndpointState::Unavailable, 400), COPIES),
        row("one of two endpoints lost", Fault::OneOfTwo(EndpointState::Refuse), NEARLY_ALL),
    ],
];
