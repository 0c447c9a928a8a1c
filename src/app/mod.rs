//! Composition: from configuration to a running process, in stages that can be read one by one.
//!
//! [`load`] reads the bootstrap file and puts the flags over it; [`config`] is what both say;
//! [`build`] turns it into a [`build::ProcessPlan`] and refuses what cannot work; [`run`] binds, starts and
//! drains. Nothing before `run` touches a port. [`pod`] is the identity of the pod, which several
//! parts of a plan need, and [`redis`] what Redis adds to each stage.

pub mod build;
pub mod config;
pub mod error;
pub mod load;
pub mod memory_limit;
pub mod pod;
pub mod redis;
pub mod run;
