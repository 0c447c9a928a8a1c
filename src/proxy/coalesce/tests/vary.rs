//! What is known of variants before a response has come.

use http::header::{ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue, VARY};
use outrigger_semantics::Variant;

use crate::coalesce::vary::*;

fn request(language: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static(language))])
}

fn variant(vary: &'static str, language: &'static str) -> Variant {
    let response = HeaderMap::from_iter([(VARY, HeaderValue::from_static(vary))]);
    Variant::of(&response, &request(language), &[])
}

#[test]
fn without_knowledge_all_requests_have_the_same_fetch() {
    let known = KnownVary::new();
    assert_eq!(known.hint(1, &request("de"), None), 0);
    known.learn(1, &Variant::default());
    assert_eq!(known.hint(1, &request("de"), None), 0);
}

#[test]
fn known_fields_tell_requests_apart_until_the_response_no_longer_varies() {
    let known = KnownVary::new();
    known.learn(1, &variant("accept-language", "de"));
    let hint = |language| known.hint(1, &request(language), None);
    assert_ne!(hint("de"), hint("en"));
    assert_eq!(hint("de"), hint("DE"));
    assert_eq!(hint("de"), super::super::vary::hint([&ACCEPT_LANGUAGE], &request("de")));
    assert_eq!(known.hint(2, &request("de"), None), 0, "another key");
    known.learn(1, &variant("accept", "de"));
    assert_eq!(known.hint(1, &request("de"), None), known.hint(1, &request("en"), None));
    known.learn(1, &Variant::default());
    assert_eq!(known.hint(1, &request("de"), None), 0);
}

#[test]
fn a_stored_response_says_by_what_its_key_varies_where_nothing_else_does() {
    let known = KnownVary::new();
    let stored = variant("accept-language", "de");
    let hint = known.hint(1, &request("de"), Some(&stored));
    known.learn(1, &stored);
    assert_eq!(known.hint(1, &request("de"), None), hint);
    let other = HeaderName::from_static("x-other");
    assert_ne!(super::super::vary::hint([&other], &request("de")), hint);
}
