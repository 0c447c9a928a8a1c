//! Fetching for the store: who fetches (`collapse`), the fetch itself (`run`), storing what it
//! brings (`store`, `parts`, `of_post`), how long it goes on without clients (`outlive`), and refreshing behind a
//! response (`refresh`).

mod collapse;
pub(crate) mod of_post;
mod outlive;
mod parts;
mod refresh;
mod run;
mod store;

pub(crate) use collapse::{Fetched, collapse};
pub(crate) use refresh::refresh;
pub(crate) use store::Storing;
