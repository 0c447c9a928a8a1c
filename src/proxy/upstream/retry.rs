//! Whether a request that failed is sent again: only what may be sent twice, only before the client
//! has seen anything, within the budget, while the breaker lets requests pass, and if it can still
//! be in time.

use std::time::Duration;

use http::header::RETRY_AFTER;
use outrigger_guard::NoRetry;
use outrigger_policy::guard::{FailureKind, RetryPolicy};
use outrigger_semantics::UnixMillis;
use outrigger_semantics::time::parse_http_date;
use tokio::time::Instant;

use crate::error::UpstreamError;
use crate::upstream::deadlines::Deadlines;
use crate::upstream::request::UpstreamRequest;
use crate::upstream::response::UpstreamResponse;

/// Without a deadline, a client is not kept waiting for an upstream that asks for more time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3);

type Attempted = Result<UpstreamResponse, UpstreamError>;

/// The attempts at one request.
pub(crate) struct Retries {
    /// `None` if it may not be sent again.
    policy: Option<RetryPolicy>,
    made: u32,
    /// How the attempt before turned out. It is the answer if the next one is not let through, or
    /// never reaches an upstream that may have acted on this one.
    before: Option<Attempted>,
}

impl Retries {
    /// Before the first attempt.
    pub(crate) fn of(call: &UpstreamRequest) -> Self {
        let guard = &call.guard;
        if let Some(budget) = &guard.budget {
            budget.machine.deposit(guard.now());
        }
        let policy = guard.rules.retries.filter(|_| call.is_repeatable());
        Retries { policy, made: 0, before: None }
    }

    /// After an attempt: the result to be used, or how long to wait before the next one.
    pub(crate) fn next(
        &mut self,
        call: &UpstreamRequest,
        result: Attempted,
        deadlines: &Deadlines,
    ) -> Result<Attempted, Duration> {
        let Some(policy) = self.policy else { return Ok(result) };
        let wish = wish(&policy, &result, self.made);
        if let Some(budget) = call.guard.budget.as_ref().filter(|_| !is_refused(&result)) {
            budget.machine.note(wish.is_some());
        }
        let Some(wanted) = wish else { return Ok(self.choose(result)) };
        let verdict = self.check(call, &policy, wanted, deadlines);
        call.guard.count_retry(verdict.err().unwrap_or("made"));
        match verdict {
            Err(_) => Ok(self.choose(result)),
            Ok(wait) => {
                self.made += 1;
                self.before = Some(self.choose(result));
                Err(wait)
            }
        }
    }

    /// Whether a retry that is wished for is made; the reason if not.
    fn check(
        &self,
        call: &UpstreamRequest,
        policy: &RetryPolicy,
        wanted: Duration,
        deadlines: &Deadlines,
    ) -> Result<Duration, &'static str> {
        if self.made >= policy.max {
            return Err("attempts-used-up");
        }
        if call.guard.refusal().is_some() {
            return Err("breaker-open");
        }
        match deadlines.deadline() {
            Some(deadline) if Instant::now() + wanted >= deadline => return Err("deadline"),
            None if wanted > RETRY_AFTER_MAX => return Err("retry-after"),
            _ => {}
        }
        let Some(budget) = &call.guard.budget else { return Ok(wanted) };
        match budget.machine.withdraw(call.guard.now()) {
            Ok(()) => Ok(wanted),
            Err(NoRetry::UsedUp) => Err("budget-used-up"),
            Err(NoRetry::AllFail) => Err("all-fail"),
        }
    }

    /// The result to be used after an attempt, given the one before.
    fn choose(&mut self, result: Attempted) -> Attempted {
        let Some(before) = self.before.take() else { return result };
        match (&result, &before) {
            _ if is_refused(&result) => before,
            // The upstream may have acted on the first attempt, whatever became of this one.
            (Err(unsent), Err(sent)) if !unsent.may_take_effect() && sent.may_take_effect() => {
                before
            }
            _ => result,
        }
    }
}

fn is_refused(result: &Attempted) -> bool {
    result.as_ref().is_err_and(UpstreamError::is_refusal)
}

/// How long to wait before the next attempt, if the policy wants one after this result.
fn wish(policy: &RetryPolicy, result: &Attempted, made: u32) -> Option<Duration> {
    let kind = match result {
        Ok(response) => FailureKind::Status(response.head.status.as_u16()),
        Err(error) => error.kind()?,
    };
    if !policy.on.contains(kind) {
        return None;
    }
    let doubled = policy.backoff.saturating_mul(1 << made.min(16));
    let pause = doubled.mul_f64(0.5 + fastrand::f64() / 2.0);
    let asked = result.as_ref().ok().and_then(retry_after);
    Some(asked.map_or(pause, |asked| asked.max(pause)))
}

/// `Retry-After`: seconds or a date (RFC 9110 §10.2.3).
fn retry_after(response: &UpstreamResponse) -> Option<Duration> {
    let text = response.head.headers.get(RETRY_AFTER)?.as_bytes().trim_ascii();
    let now: UnixMillis = response.exchange.responded_at;
    if let Some(secs) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok()) {
        return Some(Duration::from_secs(secs.min(86_400)));
    }
    let date = parse_http_date(text, now)?;
    Some(Duration::from_millis(date.millis_since(now).max(0).unsigned_abs()))
}
