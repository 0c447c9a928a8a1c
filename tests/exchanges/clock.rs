//! Time that passes when a case says so: the process under test reads its time of day through
//! libfaketime, which adds what stands in a file.
//!
//! The monotonic clock is left alone, so that timeouts and pauses are what they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// The time of day of a process under test.
pub struct Clock {
    folder: TempDir,
    ahead: Duration,
}

impl Clock {
    /// A clock that goes as the system's.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let clock = Self { folder, ahead: Duration::ZERO };
        clock.write();
        clock
    }

    /// What a process must have in its environment to read this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let file = self.file().display().to_string();
        [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Removes what libfaketime has left in shared memory for a process that runs. It does so itself
    /// in processes that come to an orderly end, which those of tests do not.
    pub fn tidy(&self, pid: u32) {
        for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
            // Its process has it open already, so that only the name goes.
            let _ = fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        if !by.is_zero() {
            self.ahead += by;
            self.write();
        }
    }

    /// The time of day now.
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ahead")
    }

    fn write(&self) {
        let next = self.folder.path().join("next");
        fs::write(&next, format!("+{}\n", self.ahead.as_secs())).expect("the clock is written");
        fs::rename(next, self.file()).expect("the clock is moved");
    }
}

/// Where Debian's package puts it.
fn library() -> PathBuf {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let files = folders.map(|folder| Path::new(folder).join("faketime/libfaketime.so.1"));
    let found = files.into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("libfaketime is not installed: run `tests/setup test`"))
}
