mod api;
mod certificates;
mod ending;
mod files;
mod harness;
mod reviews;
