//! Every spelling of a URL, and every way in which a route can be chosen: what a purge, a write and
//! an explanation name must hold the key under which a request was stored.

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use crate::snapshot::RouteQuery;
use crate::{Arrival, Authority, CacheKey, Peer, RequestTarget, Snapshot, Url};

/// The canonical URI in the key of a GET, and whether its route caches.
fn stored_as(
    snapshot: &Snapshot,
    host: &str,
    target: &str,
    tenant: Option<&'static str>,
    caller: Option<&'static str>,
) -> (String, bool) {
    let authority = snapshot.service(Authority::parse(host).unwrap());
    let target = RequestTarget::new(authority, target);
    let mut headers = HeaderMap::new();
    headers.extend(tenant.map(|tenant| {
        (http::HeaderName::from_static("x-tenant"), HeaderValue::from_static(tenant))
    }));
    let peer = caller.and_then(Peer::parse);
    let method = &Method::GET;
    let query = RouteQuery { authority, path: target.path, method, headers: &headers, peer };
    let route = snapshot.route(query);
    let arrival = Arrival { peer, ..Arrival::default() };
    let key = CacheKey::build(target, &headers, &route.key, arrival);
    (String::from_utf8(key.uri().to_vec()).unwrap(), route.cache_enabled)
}

fn uris(snapshot: &Snapshot, url: &str) -> Vec<String> {
    snapshot.canonical_uris_of(&Url::parse(url).unwrap())
}

const FRONTEND: &str = "spiffe://td/ns/shop/sa/frontend";

/// Each condition by which a route is chosen has query rules of its own.
const CHOSEN: &str = "
routes:
  - {name: header, match: {path: {prefix: /h}, headers: {x-tenant: '*'}}, cache: {key: {query: {ignore: [utm_*], sort: true}}}}
  - {name: principal, match: {path: {prefix: /p}, principals: ['*/sa/frontend']}, cache: {key: {query: {sort: true}}}}
  - {name: namespace, match: {path: {prefix: /n}, namespaces: [shop]}, cache: {key: {query: {allow: [a]}}}}
  - {name: method, match: {path: {prefix: /m}, methods: [POST]}, cache: {key: {query: {allow: [b]}}}}
  - {name: disabled, match: {path: {prefix: /d}, headers: {x-tenant: '*'}}, cache: {enabled: false, key: {query: {sort: true}}}}
  - {name: off, match: {path: {prefix: /off}}, cache: {enabled: false}}
";

#[test]
fn a_url_has_a_form_for_every_route_that_may_have_stored_it() {
    let snapshot = Snapshot::from_yaml("p", CHOSEN).unwrap();
    for (path, tenant, caller) in [
        ("/h", Some("t"), None),
        ("/h", None, None),
        ("/p", None, Some(FRONTEND)),
        ("/p", None, None),
        ("/n", None, Some(FRONTEND)),
        ("/n", None, None),
        ("/m", None, None),
        ("/d", Some("t"), None),
        ("/d", None, None),
    ] {
        let target = format!("{path}?utm_x=1&b=2&a=1");
        let (stored, _) = stored_as(&snapshot, "shop.svc", &target, tenant, caller);
        let named = uris(&snapshot, &format!("http://shop.svc{target}"));
        assert!(named.contains(&stored), "{path} {tenant:?} {caller:?}: {stored} in {named:?}");
    }
    assert_eq!(
        uris(&snapshot, "http://shop.svc/h?utm_x=1&b=2&a=1"),
        ["http://shop.svc/h?utm_x=1&b=2&a=1", "http://shop.svc/h?a=1&b=2"],
        "the form of a request without fields comes first"
    );
}

#[test]
fn a_route_that_no_get_finds_adds_no_form() {
    let snapshot = Snapshot::from_yaml("p", CHOSEN).unwrap();
    assert_eq!(uris(&snapshot, "http://shop.svc/m?b=1&a=2"), ["http://shop.svc/m?b=1&a=2"]);
}

#[test]
fn only_what_no_route_caches_is_never_stored() {
    let snapshot = Snapshot::from_yaml("p", CHOSEN).unwrap();
    let may_store = |url| snapshot.may_store(Url::parse(url).unwrap().target());
    assert!(!may_store("http://shop.svc/off/1"));
    assert!(may_store("http://shop.svc/d"), "without the header another route applies");
    assert!(may_store("http://shop.svc/else"));
}

/// The spellings of `http://shop.svc/x`: as `Host` of a request, and as URL of a purge.
const HOSTS: [&str; 6] =
    ["shop.svc", "Shop.SVC", "shop.svc.", "shop.svc:", "shop.svc:80", "SHOP.svc.:80"];
const ORIGINS: [&str; 10] = [
    "http://shop.svc",
    "HTTP://Shop.SVC",
    "http://shop.svc.",
    "http://shop.svc:",
    "http://shop.svc:80",
    "http://shop.svc.:80",
    "https://shop.svc",
    "https://shop.svc:443",
    "https://shop.svc.:443",
    "https://shop.svc:",
];

#[test]
fn every_spelling_of_a_host_is_one() {
    let policy =
        "routes: [{name: r, match: {hosts: [shop.svc]}, cache: {key: {query: {sort: true}}}}]";
    let snapshot = Snapshot::from_yaml("p", policy).unwrap();
    for host in HOSTS {
        let (stored, _) = stored_as(&snapshot, host, "/x?b=1&a=2", None, None);
        assert_eq!(stored, "http://shop.svc/x?a=2&b=1", "{host}");
        for origin in ORIGINS {
            let named = uris(&snapshot, &format!("{origin}/x?b=1&a=2#part"));
            assert!(named.contains(&stored), "{origin}: {named:?}");
        }
    }
    for (host, url) in [
        ("[::1]", "http://[0:0:0:0:0:0:0:1]:80/"),
        ("[2001:DB8::A]:8080", "https://[2001:db8::a]:8080/"),
        ("shop.svc:443", "https://shop.svc/"),
        ("shop.svc:8080", "http://SHOP.svc.:8080/"),
    ] {
        let (stored, _) = stored_as(&snapshot, host, "/", None, None);
        assert!(uris(&snapshot, url).contains(&stored), "{host}: {stored}");
    }
}

#[test]
fn paths_and_queries_are_compared_as_they_are_written() {
    let snapshot = Snapshot::built_in();
    for (target, same) in [
        ("/a%2Fb", "/a%2Fb#fragment"),
        ("/a%2fb?x=%C3%A9", "/a%2fb?x=%C3%A9"),
        ("/?b=1&a=2", "?b=1&a=2"),
        ("/a//b/../c", "/a//b/../c"),
        ("/a?", "/a?"),
    ] {
        let (stored, _) = stored_as(&snapshot, "shop.svc", target, None, None);
        assert_eq!(uris(&snapshot, &format!("http://shop.svc{same}")), [stored], "{target}");
    }
    for (target, other) in [("/a%2Fb", "/a%2fb"), ("/a%2Fb", "/a/b"), ("/a?b&a", "/a?a&b")] {
        let (stored, _) = stored_as(&snapshot, "shop.svc", target, None, None);
        assert_ne!(uris(&snapshot, &format!("http://shop.svc{other}")), [stored], "{target}");
    }
}

#[test]
fn uri_rules_change_with_what_decides_about_uris_only() {
    let of = |text: &str| Snapshot::from_yaml("p", text).unwrap().uri_rules();
    let base = of("routes: [{name: r, match: {path: {prefix: /a}}}]");
    assert_eq!(
        base,
        of("routes: [{name: r, match: {path: {prefix: /a}}, cache: {ttl: {default: 1s}}}]")
    );
    for other in [
        "{}",
        "routes: [{name: r, match: {path: {prefix: /b}}}]",
        "routes: [{name: r, match: {path: {prefix: /a}}, cache: {key: {query: {sort: true}}}}]",
        "{routes: [{name: r, match: {path: {prefix: /a}}}], aliases: {shop.svc: [store]}}",
    ] {
        assert_ne!(base, of(other), "{other}");
    }
}

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(choices)
}

/// A route with any of the conditions and query rules that there are.
fn route() -> impl Strategy<Value = String> {
    let conditions = (
        one_of(&["", "hosts: [shop.svc], ", "hosts: ['*.svc'], ", "hosts: [store], "]),
        one_of(&[
            "",
            "path: {exact: /a}, ",
            "path: {prefix: /a}, ",
            "path: {template: '/{id}/b'}, ",
        ]),
        one_of(&["", "methods: [GET], ", "methods: [POST], ", "methods: [HEAD], "]),
        one_of(&["", "", "headers: {x-tenant: '*'}, ", "headers: {x-tenant: b}, "]),
        one_of(&["", "", "principals: ['*/sa/frontend'], ", "namespaces: [shop], "]),
    );
    let query = one_of(&["{}", "{sort: true}", "{ignore: [utm_*]}", "{allow: [a, b]}"]);
    (conditions, query, any::<bool>()).prop_map(|((hosts, path, methods, headers, callers), query, on)| {
        format!(
            "match: {{{hosts}{path}{methods}{headers}{callers}}}, cache: {{enabled: {on}, key: {{query: {query}}}}}"
        )
    })
}

proptest! {
    /// Whatever the policy, and however a request finds its route: the URL names what is stored.
    #[test]
    fn a_url_names_what_any_request_for_it_stored(
        routes in prop::collection::vec(route(), 0..6),
        host in one_of(&["shop.svc", "Store", "store.:80", "other.svc:8080", "[::1]"]),
        path in one_of(&["/", "/a", "/a/b", "/c/b"]),
        query in one_of(&["", "?", "?b=2&a=1&utm_x=1", "?utm_x=1", "?a=%20&a"]),
        tenant in prop::option::of(one_of(&["a", "b"])),
        caller in prop::option::of(one_of(&[FRONTEND, "spiffe://td/ns/other/sa/batch"])),
    ) {
        let mut policy = "aliases: {shop.svc: [store]}\nroutes:\n".to_owned();
        for (at, route) in routes.iter().enumerate() {
            policy.push_str(&format!("  - {{name: r{at}, {route}}}\n"));
        }
        if routes.is_empty() {
            policy = "aliases: {shop.svc: [store]}\n".to_owned();
        }
        let snapshot = Snapshot::from_yaml("p", &policy).unwrap();
        let target = format!("{path}{query}");
        let (stored, caches) = stored_as(&snapshot, host, &target, tenant, caller);
        let url = Url::parse(&format!("http://{host}{target}")).unwrap();
        let named = snapshot.canonical_uris_of(&url);
        prop_assert!(named.contains(&stored), "{} in {:?} by {}", stored, named, policy);
        prop_assert!(!caches || snapshot.may_store(url.target()), "{}", policy);
        // Naming a stored response by its own URI names it again.
        let again = snapshot.canonical_uris_of(&Url::parse(&stored).unwrap());
        prop_assert!(again.contains(&stored), "{} in {:?} by {}", stored, again, policy);
    }
}
