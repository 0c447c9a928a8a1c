//! How long a fetch goes on when its clients have left: for the next ones, who would otherwise begin
//! it anew, and within bounds, since nobody waits for it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use tokio::time::Sleep;

use crate::coalesce::flight::Flight;
use crate::coalesce::table::RegisteredFlight;
use crate::coalesce::unread::UnreadPlace;
use crate::pipeline::request::RequestContext;

/// What ends a fetch that nobody waits for, before it has ended by itself. The words are labels of a
/// metric.
type Bound = &'static str;

/// Whether a fetch goes on without clients, and since when it does.
pub(super) struct Outlive {
    request: Arc<RequestContext>,
    /// Whether what it brings may be of use to the next client.
    useful: bool,
    /// Its key, if no request can join it.
    unlisted: Option<u128>,
    place: Option<UnreadPlace>,
    until: Option<Pin<Box<Sleep>>>,
}

impl Outlive {
    /// For a fetch that begins now. One that others can join is worth going on. So is one that only
    /// carries cookies; but not one for a range, and not one with credentials that the key does not
    /// hold, whose response may hardly ever be stored (RFC 9111 §3.5).
    pub(super) fn of(
        request: &Arc<RequestContext>,
        flight: &RegisteredFlight,
        ranged: bool,
    ) -> Self {
        let listed = flight.is_listed();
        let credentials =
            request.parts.headers.contains_key(AUTHORIZATION) && !request.key.holds_identity();
        Outlive {
            request: Arc::clone(request),
            useful: listed || !(ranged || credentials),
            unlisted: (!listed).then(|| request.key.digest()),
            place: None,
            until: None,
        }
    }

    /// Ends when the fetch is to be given up: nobody reads, and it may not go on, or has done so for
    /// as long as it may. A client that joins begins this anew.
    pub(super) async fn over(&mut self, flight: &Flight) {
        poll_fn(|cx| match flight.poll_unread(cx) {
            None => {
                (self.place, self.until) = (None, None);
                Poll::Pending
            }
            Some(_) if !self.useful => Poll::Ready(()),
            Some(bytes) => match self.go_on(bytes, cx) {
                Ok(()) => Poll::Pending,
                Err(bound) => {
                    self.place = None;
                    self.request.shared().metrics.count_unread(bound);
                    Poll::Ready(())
                }
            },
        })
        .await;
    }

    fn go_on(&mut self, bytes: usize, cx: &mut Context<'_>) -> Result<(), Bound> {
        let shared = self.request.shared();
        let place = match &mut self.place {
            Some(place) => place,
            None => self.place.insert(shared.unread.place(self.unlisted).ok_or("too-many")?),
        };
        if !place.hold(bytes as u64) {
            return Err("too-large");
        }
        let time = Duration::from_millis(shared.settings.coalesce.unread_ms_max);
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        match until.as_mut().poll(cx) {
            Poll::Ready(()) => Err("too-long"),
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for Outlive {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.request.shared().metrics.count_unread("done");
        }
    }
}
