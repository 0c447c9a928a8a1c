//! Is a history of reads and writes of one register linearizable? Every value is written once,
//! which makes the question easy to decide.

/// An operation on a register.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub key: usize,
    pub value: u64,
    pub is_write: bool,
    pub from: u64,
    /// `u64::MAX` if no answer came: it may take effect at any time.
    pub until: u64,
}

/// The time that the operations on one value take up. If all of them overlap, some point within
/// `last_start..first_end`, reversed, will do; if not, the register must have had the value from
/// `first_end` to `last_start`.
#[derive(Clone, Copy, Debug)]
struct Zone {
    value: u64,
    first_end: u64,
    last_start: u64,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.first_end < self.last_start
    }

    fn bounds(&self) -> (u64, u64) {
        (self.first_end.min(self.last_start), self.first_end.max(self.last_start))
    }
}

/// Why a history of one register, in which each value is written once, is not linearizable. The
/// criterion is Gibbons and Korach's: no two values are needed at the same time, and none only
/// fits where another is needed.
pub fn not_linearizable(ops: &[Op]) -> Option<String> {
    let mut zones: Vec<Zone> = vec![Zone { value: 0, first_end: 0, last_start: 0 }];
    for write in ops.iter().filter(|op| op.is_write) {
        zones.push(Zone { value: write.value, first_end: write.until, last_start: write.from });
    }
    for read in ops.iter().filter(|op| !op.is_write) {
        let Some(zone) = zones.iter_mut().find(|zone| zone.value == read.value) else {
            return Some(format!("{read:?} found what nobody wrote"));
        };
        let written = ops.iter().find(|op| op.is_write && op.value == read.value);
        if written.is_some_and(|write| write.from > read.until) {
            return Some(format!("{read:?} found what was written later"));
        }
        zone.first_end = zone.first_end.min(read.until);
        zone.last_start = zone.last_start.max(read.from);
    }
    zones.retain(|zone| zone.first_end != u64::MAX);
    for one in zones.iter().filter(|zone| zone.is_forward()) {
        let (from, until) = one.bounds();
        for other in zones.iter().filter(|zone| zone.value != one.value) {
            let (start, end) = other.bounds();
            let clash = match other.is_forward() {
                true => start < until && from < end,
                false => from < start && end < until,
            };
            if clash {
                return Some(format!("{one:?} against {other:?}"));
            }
        }
    }
    None
}

#[test]
fn histories_are_told_apart() {
    let op = |value, is_write, from, until| Op { key: 0, value, is_write, from, until };
    let (write, new) = (op(1, true, 10, 20), op(1, false, 12, 13));
    let judge = |ops: &[Op]| not_linearizable(ops).is_none();
    assert!(judge(&[write, new, op(1, false, 30, 31)]));
    assert!(judge(&[write, op(0, false, 12, 13), op(1, false, 14, 15)]));
    assert!(!judge(&[write, new, op(0, false, 14, 15)]), "back to the old value");
    assert!(!judge(&[write, op(0, false, 30, 31)]), "a write that was answered is missed");
    assert!(!judge(&[write, op(1, false, 1, 2)]), "from the future");
    assert!(!judge(&[op(7, false, 1, 2)]), "from nowhere");
    let lost = op(2, true, 21, u64::MAX);
    assert!(judge(&[write, lost, op(1, false, 30, 31), op(2, false, 40, 41)]));
    assert!(!judge(&[write, lost, op(2, false, 30, 31), op(1, false, 40, 41)]));
}
