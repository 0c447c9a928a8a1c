//! Is a history of reads and writes of one register linearizable?
//!
//! The search is Wing and Gong's with Lowe's memory of visited states: it decides in milliseconds
//! where `stateright`'s tester, which has no such memory, may take hours over a history that is
//! not linearizable. That tester is the judge of this one in the tests below.

use std::collections::HashSet;
use std::fmt;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Set the register to this value.
    Write(u64),
    /// Found this value.
    Read(u64),
}

/// An operation with its time on one clock.
#[derive(Clone, Debug)]
pub struct Op {
    /// What it did.
    pub kind: Kind,
    /// When it was asked for.
    pub call: u64,
    /// When it was answered; `None` for a write that may or may not have happened.
    pub ret: Option<u64>,
    /// Who did it and where, for people.
    pub note: String,
}

/// The beginning of a history up to the operation that cannot be explained.
#[derive(Debug)]
pub struct Violation {
    ops: Vec<Op>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order explains this history (ms; the last answer is the one too many):")?;
        let from = self.ops.len().saturating_sub(30);
        let ms = |nanos: u64| nanos as f64 / 1e6;
        for op in &self.ops[from..] {
            let ret = op.ret.map_or("later/never".to_owned(), |ret| format!("{:11.3}", ms(ret)));
            writeln!(f, "{:11.3} .. {ret}  {:?}  {}", ms(op.call), op.kind, op.note)?;
        }
        Ok(())
    }
}

/// Looks for an order of the operations that explains every answer.
///
/// # Errors
/// The shortest beginning of the history that has none.
pub fn check(initial: u64, ops: &[Op]) -> Result<(), Violation> {
    if explained(initial, ops) {
        return Ok(());
    }
    let mut cuts: Vec<u64> = ops.iter().filter_map(|op| op.ret).collect();
    cuts.sort_unstable();
    // What begins a history that has an order has one too, so that halving finds the first cut.
    let first = cuts.partition_point(|cut| explained(initial, &until(ops, *cut)));
    let mut ops = until(ops, cuts[first.min(cuts.len() - 1)]);
    ops.sort_by_key(|op| op.call);
    Err(Violation { ops })
}

/// The history as it was known at a time: what was not answered yet may not have happened.
fn until(ops: &[Op], cut: u64) -> Vec<Op> {
    let begun = ops.iter().filter(|op| op.call <= cut);
    let known = begun.filter_map(|op| match (op.ret.is_some_and(|ret| ret <= cut), op.kind) {
        (true, _) => Some(op.clone()),
        (false, Kind::Write(_)) => Some(Op { ret: None, ..op.clone() }),
        (false, Kind::Read(_)) => None,
    });
    known.collect()
}

fn explained(initial: u64, ops: &[Op]) -> bool {
    let ops: Vec<&Op> = ops.iter().filter(|op| matters(op, ops)).collect();
    assert!(ops.len() <= 128, "{} operations are too many for one key", ops.len());
    let bit = |i: usize| 1_u128 << i;
    let answered = |(i, op): (usize, &&Op)| if op.ret.is_some() { bit(i) } else { 0 };
    let required = ops.iter().enumerate().map(answered).fold(0, |mask, one| mask | one);
    let mut seen = HashSet::new();
    let mut stack = vec![(0_u128, initial)];
    while let Some((done, value)) = stack.pop() {
        if done & required == required {
            return true;
        }
        let left = || ops.iter().enumerate().filter(|(i, _)| done & bit(*i) == 0);
        let horizon = left().filter_map(|(_, op)| op.ret).min().unwrap_or(u64::MAX);
        let possible = || left().filter(|(_, op)| op.call <= horizon);
        // A read that fits now changes nothing, and so may as well come now.
        if let Some((i, _)) = possible().find(|(_, op)| op.kind == Kind::Read(value)) {
            stack.push((done | bit(i), value));
            continue;
        }
        for (i, op) in possible() {
            if let Kind::Write(written) = op.kind {
                let next = (done | bit(i), written);
                if seen.insert(next) {
                    stack.push(next);
                }
            }
        }
    }
    false
}

/// A write without an answer whose value nobody saw explains nothing.
fn matters(op: &Op, ops: &[Op]) -> bool {
    match (op.ret, op.kind) {
        (None, Kind::Write(value)) => ops.iter().any(|other| other.kind == Kind::Read(value)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

    use super::*;
    use crate::rng::Rng;

    fn op(kind: Kind, call: u64, ret: u64) -> Op {
        Op { kind, call, ret: Some(ret), note: String::new() }
    }

    fn open(kind: Kind, call: u64) -> Op {
        Op { ret: None, ..op(kind, call, 0) }
    }

    use Kind::{Read, Write};

    #[test]
    fn histories_that_have_an_order_are_accepted() {
        let good: [&[Op]; 6] = [
            &[],
            &[op(Read(0), 0, 1), op(Write(1), 2, 3), op(Read(1), 4, 5)],
            // Concurrent with the write: the old and the new value are both right.
            &[op(Write(1), 0, 10), op(Read(0), 1, 2), op(Read(1), 3, 4)],
            &[op(Write(1), 0, 10), op(Write(2), 1, 9), op(Read(1), 11, 12)],
            // A write without an answer may happen late, or never.
            &[open(Write(1), 0), op(Read(0), 1, 2), op(Read(1), 3, 4), op(Read(1), 5, 6)],
            &[open(Write(1), 0), op(Write(2), 1, 2), op(Read(2), 3, 4), op(Read(2), 5, 6)],
        ];
        for ops in good {
            assert!(check(0, ops).is_ok(), "{ops:#?}");
        }
    }

    #[test]
    fn histories_that_have_none_are_refused() {
        let bad: [&[Op]; 6] = [
            &[op(Read(1), 0, 1)],
            // Old after the write was answered.
            &[op(Write(1), 0, 1), op(Read(0), 2, 3)],
            // New, then old again, both during the write.
            &[op(Write(1), 0, 10), op(Read(1), 1, 2), op(Read(0), 3, 4)],
            &[op(Write(1), 0, 1), op(Write(2), 2, 3), op(Read(1), 4, 5)],
            &[op(Write(1), 0, 9), op(Write(2), 0, 9), op(Read(1), 10, 11), op(Read(2), 12, 13)],
            // Once seen, even a write without an answer has happened.
            &[open(Write(1), 0), op(Read(1), 1, 2), op(Read(0), 3, 4)],
        ];
        for ops in bad {
            assert!(check(0, ops).is_err(), "{ops:#?}");
        }
    }

    #[test]
    fn the_report_ends_with_the_answer_that_is_too_many() {
        let ops = [
            op(Write(1), 0, 1),
            op(Read(1), 2, 3),
            op(Read(0), 4, 5),
            op(Read(1), 6, 7),
            op(Write(2), 8, 9),
        ];
        let violation = check(0, &ops).unwrap_err();
        assert_eq!(violation.ops.last().map(|op| op.kind), Some(Read(0)));
        assert_eq!(violation.ops.len(), 3, "{violation}");
    }

    /// Few values, threads and times, so that good and bad histories are about equally many.
    fn history(rng: &mut Rng) -> Vec<(usize, Op)> {
        let mut ops = Vec::new();
        for thread in 0..3 {
            let mut now = rng.below(6) as u64;
            for _ in 0..=rng.below(3) {
                let value = rng.below(3) as u64;
                let kind = if rng.percent(50) { Write(value) } else { Read(value) };
                let ret = now + 1 + rng.below(8) as u64;
                if matches!(kind, Write(_)) && rng.percent(20) {
                    ops.push((thread, open(kind, now)));
                    break;
                }
                ops.push((thread, op(kind, now, ret)));
                now = ret + 1 + rng.below(3) as u64;
            }
        }
        ops
    }

    /// What the reference says. It knows an order of events only, so that at one time calls come
    /// before answers.
    fn judged(ops: &[(usize, Op)]) -> bool {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (i, (_, op)) in ops.iter().enumerate() {
            events.push((op.call, false, i));
            events.extend(op.ret.map(|ret| (ret, true, i)));
        }
        events.sort_unstable();
        let mut tester = LinearizabilityTester::new(Register(0));
        for (_, answer, i) in events {
            let (thread, op) = &ops[i];
            let valid = match (op.kind, answer) {
                (Write(value), false) => tester.on_invoke(*thread, RegisterOp::Write(value)),
                (Read(_), false) => tester.on_invoke(*thread, RegisterOp::Read),
                (Write(_), true) => tester.on_return(*thread, RegisterRet::WriteOk),
                (Read(value), true) => tester.on_return(*thread, RegisterRet::ReadOk(value)),
            };
            valid.expect("a well-formed history");
        }
        tester.is_consistent()
    }

    #[test]
    fn the_reference_says_the_same_about_short_histories() {
        let mut rng = Rng::of(1);
        let mut good = 0;
        for n in 0..4000 {
            let ops = history(&mut rng);
            let expected = judged(&ops);
            good += usize::from(expected);
            let plain: Vec<Op> = ops.iter().map(|(_, op)| op.clone()).collect();
            assert_eq!(check(0, &plain).is_ok(), expected, "history {n}: {ops:#?}");
        }
        assert!((400..3600).contains(&good), "{good} of 4000 are good: a one-sided test");
    }

    #[test]
    fn a_long_history_is_decided_quickly() {
        // Ten writers at once again and again, and at the end a value that nobody wrote.
        let mut ops = Vec::new();
        for round in 0..10_u64 {
            for writer in 0..10 {
                ops.push(op(Write(1 + round * 10 + writer), round * 100, round * 100 + 50));
            }
        }
        let ends_well = [ops.clone(), vec![op(Read(95), 1000, 1001)]].concat();
        assert!(check(0, &ends_well).is_ok());
        let ends_badly = [ops, vec![op(Read(7), 1000, 1001)]].concat();
        assert!(check(0, &ends_badly).is_err());
    }
}
