//! Virtual time: tasks that run one at a time, in an order that depends on the seed alone.
//!
//! A task may belong to a process. While that is stopped (`SIGSTOP`) its tasks do not run, and what
//! became due meanwhile runs when it continues; when it dies they never run again.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

type TaskId = usize;

/// Microseconds of virtual time.
pub type Micros = u64;

/// One millisecond.
pub const MS: Micros = 1000;

/// The life of a process: its number, and how often it has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    pub process: usize,
    pub start: u32,
}

struct Task {
    owner: Option<Life>,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

#[derive(Clone, Copy, Default)]
struct Process {
    start: u32,
    stopped_until: Micros,
}

/// Runs tasks in virtual time.
pub struct Exec {
    now: Cell<Micros>,
    order: Cell<u64>,
    current: Cell<TaskId>,
    queue: RefCell<BinaryHeap<Reverse<(Micros, u64, TaskId)>>>,
    tasks: RefCell<Vec<Option<Task>>>,
    processes: RefCell<Vec<Process>>,
}

impl Exec {
    pub fn new(processes: usize) -> Self {
        Exec {
            now: Cell::new(0),
            order: Cell::new(0),
            current: Cell::new(0),
            queue: RefCell::default(),
            tasks: RefCell::default(),
            processes: RefCell::new(vec![Process::default(); processes]),
        }
    }

    pub fn now(&self) -> Micros {
        self.now.get()
    }

    /// A number greater than all before: the order of what happens at the same time.
    pub fn stamp(&self) -> u64 {
        self.order.set(self.order.get() + 1);
        self.order.get()
    }

    pub fn spawn(&self, owner: Option<Life>, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.push(Some(Task { owner, future: Box::pin(future) }));
        let id = tasks.len() - 1;
        drop(tasks);
        self.wake_at(self.now(), id);
    }

    fn wake_at(&self, at: Micros, id: TaskId) {
        let order = self.stamp();
        self.queue.borrow_mut().push(Reverse((at, order, id)));
    }

    /// Ends a process, and says which life comes next.
    pub fn kill(&self, process: usize) -> Life {
        let mut processes = self.processes.borrow_mut();
        processes[process] = Process { start: processes[process].start + 1, stopped_until: 0 };
        Life { process, start: processes[process].start }
    }

    pub fn life(&self, process: usize) -> Life {
        Life { process, start: self.processes.borrow()[process].start }
    }

    pub fn stop(&self, process: usize, until: Micros) {
        self.processes.borrow_mut()[process].stopped_until = until;
    }

    pub fn is_stopped(&self, process: usize) -> bool {
        self.stopped_until(process) > self.now()
    }

    /// Until when a process is, or was last, stopped.
    pub fn stopped_until(&self, process: usize) -> Micros {
        self.processes.borrow()[process].stopped_until
    }

    /// Runs until a time, or until `is_over`.
    pub fn run_until(&self, end: Micros, is_over: impl Fn() -> bool) {
        while !is_over() {
            let next = self.queue.borrow().peek().map(|Reverse((at, _, id))| (*at, *id));
            let Some((at, id)) = next.filter(|(at, _)| *at <= end) else {
                return self.now.set(end.max(self.now()));
            };
            self.queue.borrow_mut().pop();
            self.now.set(at.max(self.now()));
            self.poll(id);
        }
    }

    fn poll(&self, id: TaskId) {
        let Some(mut task) = self.tasks.borrow_mut()[id].take() else { return };
        if let Some(life) = task.owner {
            let process = self.processes.borrow()[life.process];
            if process.start != life.start {
                return;
            }
            if process.stopped_until > self.now() {
                self.tasks.borrow_mut()[id] = Some(task);
                return self.wake_at(process.stopped_until, id);
            }
        }
        self.current.set(id);
        let mut context = Context::from_waker(Waker::noop());
        if task.future.as_mut().poll(&mut context).is_pending() {
            self.tasks.borrow_mut()[id] = Some(task);
        }
    }

    /// Sleeps, and gives `None` when the time has come; or gives what `found` finds before, which
    /// is asked whenever the bell rings.
    pub async fn wait<T>(
        &self,
        bell: &Bell,
        until: Micros,
        mut found: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let mut timed = false;
        poll_fn(|_| {
            if let Some(value) = found() {
                return Poll::Ready(Some(value));
            }
            if self.now() >= until {
                return Poll::Ready(None);
            }
            bell.waiting.borrow_mut().push(self.current.get());
            if !timed && until < Micros::MAX {
                timed = true;
                self.wake_at(until, self.current.get());
            }
            Poll::Pending
        })
        .await
    }

    pub async fn sleep(&self, time: Micros) {
        let until = self.now() + time;
        let mut timed = false;
        poll_fn(|_| {
            if self.now() >= until {
                return Poll::Ready(());
            }
            if !timed {
                timed = true;
                self.wake_at(until, self.current.get());
            }
            Poll::Pending
        })
        .await;
    }

    pub fn ring(&self, bell: &Bell) {
        let waiting = std::mem::take(&mut *bell.waiting.borrow_mut());
        for id in waiting {
            self.wake_at(self.now(), id);
        }
    }

    /// Forgets everything, so that what tasks hold is freed.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
    }
}

/// What tasks wait for.
#[derive(Clone, Default)]
pub struct Bell {
    waiting: Rc<RefCell<Vec<TaskId>>>,
}
