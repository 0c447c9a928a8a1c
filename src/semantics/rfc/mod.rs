//! What the RFCs ask of a shared cache, row by row, with the tests that show it.
//!
//! Rows that bind others (origin servers, clients, authors of extensions) are left out, and so are
//! permissions (`MAY`) of which no use is made. The words of a row are ours; the RFC counts. A test is
//! named by its file without the ending, below `src/` or `tests/`, and by its function. Where there is
//! none, the last column says why, and where a row is not kept, it says so. A test of the workspace
//! (`tests/workspace/manual.rs`) refuses names that do not exist.
//!
//! Beside these tests the public HTTP cache suite runs (`tests/conformance`), and what of it does not
//! pass is listed there with its reasons.

#[doc = include_str!("rfc9111.md")]
pub mod rfc9111 {}

#[doc = include_str!("rfc9110.md")]
pub mod rfc9110 {}

#[doc = include_str!("extensions.md")]
pub mod extensions {}
