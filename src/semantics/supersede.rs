//! Which of two responses under one key stays, and what an answer of the upstream does to the stored
//! response: one table for all who store (RFC 9111 §4, §4.3.3, §4.3.4, §4.3.5; RFC 5861 §4).
//!
//! A row is what is held, what came, and for whom it was asked: [`cell`] decides each of them. The
//! module does not store or remove anything, and does not judge whether a response may be stored
//! (that is [`storable`](crate::storable)).

use http::header::DATE;
use http::{HeaderMap, StatusCode};

use crate::fields;
use crate::freshness::{Exchange, Lifetimes};
use crate::storable::NotStored;
use crate::time::{UnixMillis, parse_http_date};

/// How recent a response is (RFC 9111 §4): by its `Date`, then by the time of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recency {
    /// `Date` in whole seconds, but not later than the arrival of the response: a clock that runs
    /// ahead makes no response more recent. Without a readable `Date` it is the arrival.
    pub date: UnixMillis,
    /// When the request was sent that the response answers.
    pub requested_at: UnixMillis,
}

impl Recency {
    /// The recency of a response with these fields.
    pub fn of(headers: &HeaderMap, exchange: Exchange) -> Self {
        let arrival = UnixMillis::from_secs(exchange.responded_at.as_secs());
        let stated = fields::single(headers, &DATE)
            .and_then(|value| parse_http_date(value.as_bytes(), exchange.responded_at));
        Recency {
            date: stated.map_or(arrival, |date| date.min(arrival)),
            requested_at: exchange.requested_at,
        }
    }

    /// Whether a response of this recency is older than the one that is stored, and so does not
    /// replace it. A stored response that is `usable` (fresh, and met by no purge) is compared by
    /// `Date` first. One that is not gives way to what was asked for later, whatever the clocks of
    /// two servers say.
    pub fn is_older_than(self, stored: Recency, usable: bool) -> bool {
        if usable {
            self < stored
        } else {
            self < stored && self.requested_at < stored.requested_at
        }
    }
}

/// What the store holds for the key, compared with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Held {
    /// Nothing that the answer could change: no response, one that a purge has met, or a stored
    /// server error.
    Nothing,
    /// A response that is less recent than the answer.
    Older,
    /// A response that is more recent than the answer: the answer was slow.
    Newer,
}

/// What came from the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Answer {
    /// A 304 that selects the stored response, or a response to HEAD that agrees with it.
    Confirms,
    /// A complete response that may be stored, with a status below 500.
    Storable,
    /// A complete response with a status below 500 that may not be stored, whoever asks; a response
    /// to HEAD that disagrees.
    Unstorable,
    /// A server error (5xx).
    ServerError,
    /// A response that broke off before its end.
    Incomplete,
    /// No response.
    Failed,
}

/// For whom the upstream was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Asker {
    /// A GET that says nothing about who asks.
    Anyone,
    /// A GET with credentials of its own, or one whose answer is for it alone.
    Client,
    /// A HEAD.
    Head,
}

/// What becomes of the stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Effect {
    /// The answer is stored.
    Store,
    /// The answer is stored in its place.
    Replace,
    /// It lives on under the fields of the answer.
    Freshen,
    /// It may only be used after a validation.
    Invalidate,
    /// It stays fresh for its lifetime; then it may only be used after a validation.
    EndStale,
    /// It stays. Where its stale-if-error window is open, it is served in place of the answer.
    StandIn,
    /// It stays, and the answer goes to those who asked for it.
    Keep,
    /// Nothing is stored.
    Pass,
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What becomes of the stored response.
    pub effect: Effect,
    /// The section that says so.
    pub rfc: &'static str,
    /// Why, for an operator.
    pub why: &'static str,
}

impl Answer {
    /// What a response to GET is, given whether it may be stored.
    pub fn of(status: StatusCode, judged: Result<(), NotStored>) -> Self {
        match judged {
            _ if status.is_server_error() => Self::ServerError,
            Ok(()) => Self::Storable,
            Err(_) => Self::Unstorable,
        }
    }

    /// The stable name used in `explain`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Effect {
    /// The stable name used in `explain`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Asker {
    /// The stable name used in `explain`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// For whom a GET was asked: `personal` says that it carried credentials, or that its answer is
    /// for it alone. Most client errors speak of the request or of who sent it, and so do not show
    /// others what became of the resource.
    pub fn of_get(status: StatusCode, personal: bool) -> Self {
        let of_the_request = status.is_client_error() && !matches!(status.as_u16(), 404 | 410);
        if personal || of_the_request { Self::Client } else { Self::Anyone }
    }
}

/// Whether a stored response may be served in place of this status (RFC 5861 §4).
pub fn is_error_for_stale(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// What becomes of the stored response.
pub fn cell(held: Held, answer: Answer, asker: Asker) -> &'static Cell {
    match (held, answer, asker) {
        (_, Answer::Incomplete, _) => &INCOMPLETE,
        (Held::Nothing, Answer::Failed, _) => &NO_ANSWER,
        (Held::Nothing, _, Asker::Head) => &HEAD_ALONE,
        (Held::Nothing, Answer::Storable | Answer::ServerError, _) => &FIRST,
        (Held::Nothing, Answer::Confirms | Answer::Unstorable, _) => &NOTHING_TO_KEEP,
        (Held::Newer, Answer::Failed | Answer::ServerError, _)
        | (Held::Older, Answer::Failed | Answer::ServerError, _) => &STANDS_IN,
        (Held::Newer, ..) => &OVERTAKEN,
        (Held::Older, Answer::Confirms, Asker::Head) => &HEAD_AGREES,
        (Held::Older, Answer::Confirms, _) => &CONFIRMED,
        (Held::Older, Answer::Unstorable, Asker::Head) => &HEAD_DISAGREES,
        (Held::Older, Answer::Storable, Asker::Head) => &HEAD_DISAGREES,
        (Held::Older, Answer::Storable, _) => &REPLACED,
        (Held::Older, Answer::Unstorable, Asker::Anyone) => &OUTDATED,
        (Held::Older, Answer::Unstorable, Asker::Client) => &OUTDATED_FOR_ONE,
    }
}

const FIRST: Cell = Cell {
    effect: Effect::Store,
    rfc: "RFC 9111 §3",
    why: "nothing is stored yet: a response that may be stored is, also an error with a lifetime",
};
const NOTHING_TO_KEEP: Cell = Cell {
    effect: Effect::Pass,
    rfc: "RFC 9111 §3",
    why: "nothing is stored, and this may not be",
};
const NO_ANSWER: Cell = Cell {
    effect: Effect::Pass,
    rfc: "RFC 9110 §15.6.3",
    why: "nothing is stored that could be served in place of an upstream without an answer",
};
const HEAD_ALONE: Cell = Cell {
    effect: Effect::Pass,
    rfc: "RFC 9111 §4.3.5",
    why: "a response to HEAD updates a stored response and never becomes one",
};
const INCOMPLETE: Cell = Cell {
    effect: Effect::Keep,
    rfc: "RFC 9111 §3.3",
    why: "a response that broke off says nothing about what is stored",
};
const STANDS_IN: Cell = Cell {
    effect: Effect::StandIn,
    rfc: "RFC 5861 §4, RFC 9111 §4.2.4, §4.3.3",
    why: "an upstream in trouble says nothing about what is stored, which is served in its place \
          where stale-if-error allows that",
};
const OVERTAKEN: Cell = Cell {
    effect: Effect::Keep,
    rfc: "RFC 9111 §4",
    why: "what is stored is more recent, by Date and then by the time of the request",
};
const CONFIRMED: Cell = Cell {
    effect: Effect::Freshen,
    rfc: "RFC 9111 §4.3.4",
    why: "the stored response is good, under the fields of the 304",
};
const HEAD_AGREES: Cell = Cell {
    effect: Effect::Freshen,
    rfc: "RFC 9111 §4.3.5",
    why: "the validators and the length of the response to HEAD are those of what is stored",
};
const HEAD_DISAGREES: Cell = Cell {
    effect: Effect::Invalidate,
    rfc: "RFC 9111 §4.3.5",
    why: "the response to HEAD shows that what is stored is out of date",
};
const REPLACED: Cell = Cell {
    effect: Effect::Replace,
    rfc: "RFC 9111 §4.3.3",
    why: "a complete and more recent response takes the place of the stored one, also an empty one",
};
const OUTDATED: Cell = Cell {
    effect: Effect::Invalidate,
    rfc: "RFC 9111 §4.3.3",
    why: "the upstream has another answer now; what is stored is not served for it again unless a \
          validation confirms it",
};
const OUTDATED_FOR_ONE: Cell = Cell {
    effect: Effect::EndStale,
    rfc: "RFC 9111 §4.3.3",
    why: "the upstream has another answer for this client; what is stored stays fresh for others, \
          and is not served stale",
};

impl Lifetimes {
    /// The same response in need of a validation before every use, as if by invalidation
    /// (RFC 9111 §4.4). Its points in time stay, so that tiers keep it as long as the copies whose
    /// use it ends.
    pub fn invalidated(self) -> Self {
        Lifetimes { no_cache: true, invalid: true, forbids_stale: true, ..self }
    }

    /// The same response without its stale windows: invalidated, if its freshness is over.
    pub fn without_stale(self, now: UnixMillis) -> Self {
        if !self.is_fresh(now) {
            return self.invalidated();
        }
        Lifetimes {
            stale_while_revalidate_until: self.fresh_until,
            stale_if_error_until: self.fresh_until,
            forbids_stale: true,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use strum::VariantArray;

    const T0: UnixMillis = UnixMillis(1_790_000_000_000);

    fn recency(date: Option<UnixMillis>, requested: i64, responded: i64) -> Recency {
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert(DATE, date.to_http_date());
        }
        let exchange = Exchange { requested_at: T0 + requested, responded_at: T0 + responded };
        Recency::of(&headers, exchange)
    }

    #[test]
    fn the_more_recent_date_wins_then_the_later_request() {
        let stored = recency(Some(T0 + 5_000), 5_000, 5_100);
        let slow = recency(Some(T0), 0, 9_000);
        assert!(slow.is_older_than(stored, true) && slow.is_older_than(stored, false));
        let same_second = recency(Some(T0 + 5_000), 4_900, 9_000);
        assert!(same_second.is_older_than(stored, true));
        let later = recency(Some(T0 + 5_000), 5_001, 5_050);
        assert!(!later.is_older_than(stored, true));
        assert!(!stored.is_older_than(stored, true));
    }

    #[test]
    fn a_slow_response_that_was_made_later_is_the_more_recent_one() {
        let stored = recency(Some(T0 + 2_000), 2_000, 2_100);
        let slow = recency(Some(T0 + 7_000), 0, 8_000);
        assert!(!slow.is_older_than(stored, true));
    }

    #[test]
    fn a_clock_that_runs_ahead_makes_nothing_more_recent() {
        let ahead = recency(Some(T0 + 3_600_000), 0, 100);
        assert_eq!(ahead.date, T0);
        assert!(!recency(Some(T0 + 1_000), 1_000, 1_100).is_older_than(ahead, true));
    }

    #[test]
    fn a_response_without_a_readable_date_is_as_recent_as_its_arrival() {
        assert_eq!(recency(None, 0, 2_500).date, T0 + 2_000);
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("yesterday"));
        let exchange = Exchange { requested_at: T0, responded_at: T0 + 2_500 };
        assert_eq!(Recency::of(&headers, exchange).date, T0 + 2_000);
    }

    #[test]
    fn what_cannot_be_used_gives_way_to_what_was_asked_for_later() {
        let stored = recency(Some(T0 + 60_000), 0, 60_100);
        let from_a_slow_clock = recency(Some(T0), 61_000, 61_100);
        assert!(from_a_slow_clock.is_older_than(stored, true));
        assert!(!from_a_slow_clock.is_older_than(stored, false));
    }

    #[test]
    fn every_cell_cites_its_section_and_keeps_the_promises_of_the_table() {
        for held in Held::VARIANTS {
            for answer in Answer::VARIANTS {
                for asker in Asker::VARIANTS {
                    let cell = cell(*held, *answer, *asker);
                    let row = format!("{held:?} {answer:?} {asker:?}: {cell:?}");
                    assert!(cell.rfc.starts_with("RFC ") && cell.rfc.contains('§'), "{row}");
                    let stores = matches!(cell.effect, Effect::Store | Effect::Replace);
                    if stores {
                        assert!(*asker != Asker::Head && *held != Held::Newer, "{row}");
                        assert!(matches!(answer, Answer::Storable | Answer::ServerError), "{row}");
                    }
                    if *held == Held::Newer {
                        assert!(matches!(cell.effect, Effect::Keep | Effect::StandIn), "{row}");
                    }
                    if *held == Held::Nothing {
                        let changes = matches!(
                            cell.effect,
                            Effect::Freshen
                                | Effect::Invalidate
                                | Effect::EndStale
                                | Effect::StandIn
                        );
                        assert!(!changes, "{row}");
                    }
                    if *held == Held::Older && *answer == Answer::Unstorable {
                        // No complete answer below 500 leaves a stale window open.
                        let ends = matches!(cell.effect, Effect::Invalidate | Effect::EndStale);
                        assert!(ends, "{row}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_invalidated_response_answers_nothing_by_itself() {
        use crate::{FreshnessSource, RequestDirectives, Reuse};
        let times = Lifetimes {
            born: T0,
            fresh_until: T0 + 10_000,
            stale_while_revalidate_until: T0 + 20_000,
            stale_if_error_until: T0 + 20_000,
            no_cache: false,
            invalid: false,
            forbids_stale: false,
            immutable: true,
            policy_alone: false,
            source: FreshnessSource::MaxAge,
        };
        let lenient = RequestDirectives {
            max_stale: Some(u32::MAX),
            stale_if_error: Some(u32::MAX),
            ..Default::default()
        };
        for now in [T0 + 1, T0 + 15_000, T0 + 25_000] {
            let over = times.invalidated();
            assert!(matches!(over.reuse(&lenient, now, false), Reuse::Validate(_)));
            assert!(!over.may_serve_on_error(&lenient, now));
        }
        let fresh_only = times.without_stale(T0 + 1);
        assert_eq!(fresh_only.reuse(&lenient, T0 + 9_999, false), Reuse::Fresh);
        assert!(matches!(fresh_only.reuse(&lenient, T0 + 10_000, false), Reuse::Validate(_)));
        assert!(!fresh_only.may_serve_on_error(&lenient, T0 + 10_000));
        assert!(times.without_stale(T0 + 15_000).invalid);
    }
}
