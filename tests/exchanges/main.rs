//! Exchanges between a client, Outrigger and an upstream, as tables that a person can read and add
//! to: `README.md` describes their form.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;
mod check;
mod client;
mod clock;
mod nginx;
mod run;
mod upstream;

use case::Version;

/// A module for each file, with a test for each version of HTTP and one for nginx.
macro_rules! files {
    ($($name:ident)*) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_http1() {
                crate::run::outrigger(stringify!($name), crate::Version::Http1).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_http2() {
                crate::run::outrigger(stringify!($name), crate::Version::Http2).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn beside_nginx() {
                crate::nginx::nginx(stringify!($name)).await;
            }
        })*
    };
}

files! {
    conditional failures freshness headers invalidation keys methods negotiation policy ranges
    request_directives requests resuming stale storing targeted validation vary
}

#[test]
fn every_file_of_cases_runs() {
    let mut found: Vec<String> = std::fs::read_dir(case::folder())
        .expect("the folder of cases")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    let mut listed: Vec<String> = FILES.iter().map(|name| (*name).to_owned()).collect();
    listed.sort();
    assert_eq!(found, listed, "tests/exchanges/main.rs lists the files of tests/exchanges/cases");
    let cases: usize = FILES.iter().map(|name| case::read(name).cases.len()).sum();
    let steps: usize =
        FILES.iter().flat_map(|name| case::read(name).cases).map(|case| case.steps.len()).sum();
    println!("{cases} cases, {steps} exchanges");
}
