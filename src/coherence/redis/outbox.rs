//! Purges that could not be appended. Until they can be, this pod neither serves nor stores what
//! they concern.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::event::{Action, Content, Matcher, PurgeMode};
use crate::holds::Ends;
use crate::mirror::Mirror;

/// With more purges than this they become one purge of everything.
const QUEUED_MAX: usize = 8192;

struct Waiting {
    id: u64,
    content: Content,
}

/// The purges of this pod that wait for the log.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<VecDeque<Waiting>>,
    next_id: AtomicU64,
    pushed: Notify,
}

impl Outbox {
    /// Number of purges that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.lock().len()
    }

    /// The purge that has waited longest, with its number.
    pub(super) fn first(&self) -> Option<(u64, Content)> {
        self.queue.lock().front().map(|waiting| (waiting.id, waiting.content.clone()))
    }

    /// Forgets a purge that was appended.
    pub(super) fn remove(&self, id: u64) {
        self.queue.lock().retain(|waiting| waiting.id != id);
    }

    /// Waits for the next purge to be kept.
    pub(super) async fn until_pushed(&self) {
        self.pushed.notified().await;
    }

    /// Keeps a purge. It is in effect in this pod when this returns.
    pub(super) fn push(&self, mirror: &Mirror, content: Content) {
        // A purge that waits already may say the same. The first one does not count: it may be on
        // its way, and so come before what this one is about.
        let said = self.queue.lock().iter().skip(1).any(|waiting| {
            (&waiting.content.matcher, waiting.content.action) == (&content.matcher, content.action)
        });
        if said {
            return;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        mirror.hold(&content.matcher, Ends::Released(id));
        let mut queue = self.queue.lock();
        queue.push_back(Waiting { id, content });
        if queue.len() > QUEUED_MAX {
            self.collapse(&mut queue, mirror);
        }
        drop(queue);
        self.pushed.notify_one();
    }

    /// Makes one purge of all. Those that end a hold stay, since other pods have that hold too.
    fn collapse(&self, queue: &mut VecDeque<Waiting>, mirror: &Mirror) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        mirror.hold(&Matcher::All, Ends::Released(id));
        let ends_hold = |waiting: &Waiting| {
            matches!(waiting.content.action, Action::Purge { ends: Some(_), .. })
        };
        queue.retain(|waiting| {
            let keep = ends_hold(waiting) && queue_room(waiting.id, id);
            if !keep {
                mirror.release(waiting.id);
            }
            keep
        });
        let mut content = Content::reset("");
        content.action = Action::Purge { mode: PurgeMode::Hard, ends: None };
        content.reason = Some("more purges than could be kept while the log was away".to_owned());
        queue.push_back(Waiting { id, content });
    }
}

/// Whether a purge is recent enough to be kept: older holds will have ended by themselves.
fn queue_room(id: u64, newest: u64) -> bool {
    newest - id < QUEUED_MAX as u64 / 2
}
