//! Composition: from configuration to a running process, in stages that can be read one by one.
//!
//! [`config`] reads what the operator wrote; [`build`] turns it into settings and refuses what
//! cannot work; [`run`] binds, starts and drains. Nothing before `run` touches a port.

pub mod build;
pub mod config;
pub mod memory_limit;
pub mod mesh;
pub mod redis;
pub mod run;
