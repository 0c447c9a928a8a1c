//! What waits to be written to one server: a bounded queue that drops rather than waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::entry::Entry;
use crate::lookup::ShareScope;
use crate::tier::{ClaimTicket, Settled};

/// Commands that may wait, whatever their size.
const COMMANDS_MAX: usize = 16_384;
/// Bytes that a waiting command is counted with, besides its body.
const COMMAND_BYTES: usize = 1024;
/// Something to be written to Redis.
pub(super) enum WriteCommand {
    /// Store an entry under a name.
    Put { name: Vec<u8>, entry: Arc<Entry>, scope: ShareScope },
    /// End the claim to fetch a key.
    Settle { ticket: ClaimTicket, how: Settled },
}

impl WriteCommand {
    /// Bytes that the command is counted with while it waits.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put { entry, .. } => COMMAND_BYTES + entry.body.len(),
            Self::Settle { .. } => COMMAND_BYTES,
        }
    }
}

/// The commands that wait to be written to one server.
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<WriteCommand>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<WriteCommand>>>,
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
}

impl Default for Queue {
    fn default() -> Self {
        // The bytes that are counted bound it; a channel could only bound the number.
        let (sender, receiver) = mpsc::unbounded_channel();
        Queue {
            sender,
            receiver: Mutex::new(Some(receiver)),
            bytes: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(0),
        }
    }
}

impl Queue {
    /// Bytes of the commands that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Queues an entry; `false` if there is no room for it.
    pub(super) fn put(&self, name: Vec<u8>, entry: Arc<Entry>, scope: ShareScope) -> bool {
        self.push(WriteCommand::Put { name, entry, scope })
    }

    /// Queues the end of a claim. If there is no room, the claim ends when its time has passed.
    pub(super) fn settle(&self, ticket: ClaimTicket, how: Settled) {
        self.push(WriteCommand::Settle { ticket, how });
    }

    /// Takes the receiving end and sets the bound; `None` the second time.
    pub(super) fn open(&self, bytes_max: usize) -> Option<mpsc::UnboundedReceiver<WriteCommand>> {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.receiver.lock().take()
    }

    /// Notes that commands of so many bytes no longer wait.
    pub(super) fn written(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn push(&self, command: WriteCommand) -> bool {
        let bytes = command.bytes();
        let limit = self.bytes_max.load(Ordering::Relaxed).min(COMMANDS_MAX * COMMAND_BYTES * 8);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= limit;
        if !fits || self.sender.send(command).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }
}
