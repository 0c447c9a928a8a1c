//! Purges that could not be appended. Until they can, this pod holds what they concern: it serves
//! and stores nothing of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::RedisLog;
use crate::event::{Action, Content, Matcher, PurgeMode};
use crate::holds::Ends;
use crate::mirror::Mirror;

/// With more than this they become one purge of everything.
const QUEUED_MAX: usize = 8192;
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(100);

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
    fn queue(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn len(&self) -> usize {
        self.queue().len()
    }

    /// Keeps a purge; it is in effect here when this returns.
    pub(super) fn push(&self, mirror: &Mirror, content: Content) {
        // One that waits already says the same; the first may be on its way, and come too early.
        let said = self.queue().iter().skip(1).any(|waiting| {
            (&waiting.content.matcher, waiting.content.action) == (&content.matcher, content.action)
        });
        if said {
            return;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        mirror.hold(&content.matcher, Ends::Released(id));
        let mut queue = self.queue();
        queue.push_back(Waiting { id, content });
        if queue.len() > QUEUED_MAX {
            self.collapse(&mut queue, mirror);
        }
        drop(queue);
        self.pushed.notify_one();
    }

    /// Makes one purge of all. Those that end a hold stay: the hold is other pods' too.
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

/// Holds older than so many purges will have ended by themselves.
fn queue_room(id: u64, newest: u64) -> bool {
    newest - id < QUEUED_MAX as u64 / 2
}

/// Appends what waits, for ever.
pub(super) async fn run(log: Arc<RedisLog>) {
    loop {
        let first = log.outbox.queue().front().map(|waiting| (waiting.id, waiting.content.clone()));
        let Some((id, mut content)) = first else {
            log.outbox.pushed.notified().await;
            continue;
        };
        if content.pod.is_empty() {
            content.pod = log.settings.pod.clone().into();
        }
        match log.append(&content).await {
            Ok(seq) => {
                log.in_effect(seq, &content).await;
                log.outbox.queue().retain(|waiting| waiting.id != id);
                log.state.mirror.release(id);
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
