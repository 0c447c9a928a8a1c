//! Fetching for the store: who fetches (`collapse`), the fetch itself (`run`), storing what it
//! brings (`store`, `pump`, `parts`, `of_post`), the rest of a body that
//! broke off (`resume`), how long it goes on without clients (`outlive`), and refreshing behind a
//! response (`refresh`).

mod collapse;
pub(crate) mod of_post;
mod outlive;
mod parts;
mod pump;
mod refresh;
mod resume;
mod run;
mod store;

pub(crate) use collapse::{Fetched, collapse};
pub(crate) use refresh::refresh;
pub(crate) use store::Storing;
