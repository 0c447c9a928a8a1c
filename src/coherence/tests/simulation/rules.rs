//! The rules of the protocol that the simulation models, each of which can be switched off to see
//! that it is needed.

use outrigger_coherence::lease::Lease;

/// Which rules are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub hold_before_strong: bool,
    pub hold_before_causal: bool,
    pub wait_for_acks: bool,
    pub wait_out_leases: bool,
    pub gap_detection: bool,
    pub tier_needs_catch_up: bool,
    pub lease_need: bool,
    pub lease_checked: bool,
    pub verdict_at_store: bool,
    pub born_before_fetch: bool,
    pub outbox_holds: bool,
    pub token_checked: bool,
    pub token_from_seen: bool,
    pub refuse_unreachable: bool,
    /// proposals
    pub list_age_at_answer: bool,
    pub contact_by_link: bool,
    pub hold_still_in_log: bool,
    pub blind_wait: bool,
    pub reset_on_new_server: bool,
    pub queued_token_waits: bool,
    pub drift_margin: bool,
    pub wait_all_settles: bool,
    pub caught_up_applied: bool,
    pub lease_by_answer: bool,
}

impl Rules {
    /// As the code is.
    pub fn code() -> Self {
        Rules {
            list_age_at_answer: false,
            contact_by_link: false,
            hold_still_in_log: false,
            blind_wait: false,
            reset_on_new_server: false,
            queued_token_waits: false,
            drift_margin: false,
            wait_all_settles: false,
            caught_up_applied: false,
            lease_by_answer: false,
            ..Self::all()
        }
    }

    pub fn all() -> Self {
        Rules {
            hold_before_strong: true,
            hold_before_causal: true,
            wait_for_acks: true,
            wait_out_leases: true,
            gap_detection: true,
            tier_needs_catch_up: true,
            lease_need: true,
            lease_checked: true,
            verdict_at_store: true,
            born_before_fetch: true,
            outbox_holds: true,
            token_checked: true,
            token_from_seen: true,
            refuse_unreachable: true,
            list_age_at_answer: true,
            contact_by_link: true,
            hold_still_in_log: true,
            blind_wait: true,
            reset_on_new_server: true,
            queued_token_waits: true,
            drift_margin: true,
            wait_all_settles: true,
            caught_up_applied: true,
            lease_by_answer: true,
        }
    }
}

/// Grants a lease.
pub fn grant(rules: &Rules, lease: &mut Lease, asked: u64, answered: u64, length: u64, last: u64) {
    if rules.lease_by_answer && answered >= lease.until() {
        lease.dropped();
    }
    lease.granted(asked, length, last);
}
