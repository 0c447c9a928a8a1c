//! The rules that pods keep. Each can be broken, to see that the simulation notices and that the
//! rule is needed.

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A strong write is announced by a hold.
    HoldBeforeStrong,
    /// A causal write is announced by a hold.
    HoldBeforeCausal,
    /// A strong write waits until every live pod has applied its hold.
    WaitForAcks,
    /// It waits out all leases when the list of pods may not be complete.
    WaitOutLeases,
    /// The age of that list counts from the answer that told it, not from the beginning of the wait.
    ListAgeAtAnswer,
    /// A strong write that cannot be announced is refused.
    RefuseUnreachable,
    /// What a missing event may have concerned counts as purged.
    GapDetection,
    /// The first heartbeat that another server gets has the log begin anew: its end may be lost, and
    /// nobody left who had applied it.
    ResetOnNewServer,
    /// Who has placed a hold repeats it while it lasts.
    RepeatHolds,
    /// A pod that may have missed a hold serves and stores nothing for causal and strong routes until
    /// all that last have been repeated.
    UnheardWait,
    /// Responses of other pods are judged by a pod that follows the log.
    TierNeedsCatchUp,
    /// And that has applied something: an empty log says nothing, and begins with a reset.
    EmptyLogSaysNothing,
    /// A lease is of use only when what was appended without it has been applied.
    LeaseNeed,
    /// A lease is without a break only if it was renewed before it ended; when the renewal was asked
    /// for does not matter.
    LeaseByAnswer,
    /// A strong route is served from the store under a lease.
    LeaseChecked,
    /// A fill is born before its fetch begins.
    BornBeforeFetch,
    /// What waits in the outbox is held.
    OutboxHolds,
    /// A session is served by pods that know what it knows.
    TokenChecked,
    /// A response that was fetched is as new as the log's end afterwards.
    TokenFromSeen,
    /// Who waits for all pods, and has seen that the log lost something, waits out all leases when the
    /// list of pods may not be complete.
    GapsAreLosses,
}

/// All of them, each with the first seed and the distance to the next where a breach shows soonest.
pub const ALL: [(Rule, u64, usize); 20] = [
    (Rule::HoldBeforeStrong, 0, 1),
    (Rule::HoldBeforeCausal, 0, 1),
    (Rule::WaitForAcks, 0, 1),
    (Rule::WaitOutLeases, 9, 21),
    (Rule::ListAgeAtAnswer, 9, 21),
    (Rule::RefuseUnreachable, 12, 21),
    (Rule::GapDetection, 0, 1),
    (Rule::ResetOnNewServer, 6, 21),
    (Rule::RepeatHolds, 3, 21),
    (Rule::UnheardWait, 3, 21),
    (Rule::TierNeedsCatchUp, 15, 21),
    (Rule::EmptyLogSaysNothing, 15, 21),
    (Rule::LeaseNeed, 0, 21),
    (Rule::LeaseByAnswer, 0, 21),
    (Rule::LeaseChecked, 0, 21),
    (Rule::BornBeforeFetch, 0, 1),
    (Rule::OutboxHolds, 12, 21),
    (Rule::TokenChecked, 6, 21),
    (Rule::TokenFromSeen, 18, 21),
    (Rule::GapsAreLosses, 9, 21),
];

/// Which rules are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    broken: u32,
}

impl Rules {
    /// All but one.
    pub fn without(self, rule: Rule) -> Self {
        Rules { broken: self.broken | 1 << rule as u32 }
    }

    /// Whether a rule is kept.
    pub fn has(&self, rule: Rule) -> bool {
        self.broken & (1 << rule as u32) == 0
    }
}
