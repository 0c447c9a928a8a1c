//! The rules of the protocol that the simulation models, each of which can be switched off to see
//! that it is needed.

use outrigger_coherence::lease::Lease;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    HoldBeforeStrong,
    HoldBeforeCausal,
    WaitForAcks,
    WaitOutLeases,
    GapDetection,
    TierNeedsCatchUp,
    LeaseNeed,
    LeaseChecked,
    BornBeforeFetch,
    OutboxHolds,
    TokenChecked,
    TokenFromSeen,
    RefuseUnreachable,
    ListAgeAtAnswer,
    ContactByLink,
    BlindWait,
    ResetOnNewServer,
    DriftMargin,
    WaitAllSettles,
    CaughtUpApplied,
    LeaseByAnswer,
}

/// All of them.
pub const ALL: [Rule; 21] = [
    Rule::HoldBeforeStrong,
    Rule::HoldBeforeCausal,
    Rule::WaitForAcks,
    Rule::WaitOutLeases,
    Rule::GapDetection,
    Rule::TierNeedsCatchUp,
    Rule::LeaseNeed,
    Rule::LeaseChecked,
    Rule::BornBeforeFetch,
    Rule::OutboxHolds,
    Rule::TokenChecked,
    Rule::TokenFromSeen,
    Rule::RefuseUnreachable,
    Rule::ListAgeAtAnswer,
    Rule::ContactByLink,
    Rule::BlindWait,
    Rule::ResetOnNewServer,
    Rule::DriftMargin,
    Rule::WaitAllSettles,
    Rule::CaughtUpApplied,
    Rule::LeaseByAnswer,
];

/// What the code does not have.
pub const PROPOSED: [Rule; 8] = [
    Rule::ListAgeAtAnswer,
    Rule::ContactByLink,
    Rule::BlindWait,
    Rule::ResetOnNewServer,
    Rule::DriftMargin,
    Rule::WaitAllSettles,
    Rule::CaughtUpApplied,
    Rule::LeaseByAnswer,
];

/// Which rules are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    broken: u32,
}

impl Rules {
    /// As the code is.
    pub fn code() -> Self {
        PROPOSED.iter().fold(Self::default(), |rules, rule| rules.without(*rule))
    }

    /// All but one.
    pub fn without(self, rule: Rule) -> Self {
        Rules { broken: self.broken | 1 << rule as u32 }
    }

    /// Whether a rule is kept.
    pub fn has(&self, rule: Rule) -> bool {
        self.broken & (1 << rule as u32) == 0
    }
}

/// Grants a lease.
pub fn grant(rules: &Rules, lease: &mut Lease, asked: u64, answered: u64, length: u64, last: u64) {
    if rules.has(Rule::LeaseByAnswer) && answered >= lease.until() {
        lease.dropped();
    }
    lease.granted(asked, length, last);
}
