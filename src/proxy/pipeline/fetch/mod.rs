//! Fetching for the store: who fetches (`collapse`), the fetch itself (`run`), storing what it
//! brings (`store`), how long it goes on without clients (`outlive`), and refreshing behind a
//! response (`refresh`).

mod collapse;
mod outlive;
mod refresh;
mod run;
mod store;

pub(crate) use collapse::{Fetched, collapse};
pub(crate) use refresh::refresh;
pub(crate) use store::Storing;
