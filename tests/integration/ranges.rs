//! Ranges from what is stored.

use crate::support::{Origin, Proxy, Reply, Response, Setup};

const BODY: &str = "0123456789";

/// `/r` is stored whole, with both validators.
async fn stored() -> (Origin, Proxy) {
    let origin = Origin::start().await;
    origin.on("/r", |_| {
        Reply::cached("max-age=600", BODY)
            .header("ETag", "\"v1\"")
            .header("Last-Modified", "Tue, 01 Sep 2026 10:00:00 GMT")
    });
    let proxy = Proxy::start(&origin).await;
    proxy.get("/r").await.assert_is(200, BODY);
    (origin, proxy)
}

async fn ranged(proxy: &Proxy, headers: &[(&str, &str)]) -> Response {
    proxy.fetch("GET", "/r", headers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_cut_from_a_full_entry() {
    let (origin, proxy) = stored().await;
    for (range, body, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-30", BODY, "bytes 0-9/10"),
        ("bytes=5-500", "56789", "bytes 5-9/10"),
    ] {
        let part = ranged(&proxy, &[("Range", range)]).await;
        part.assert_is(206, body).assert_hit();
        assert_eq!(part.header("content-range"), Some(content_range), "{range}");
        assert_eq!(part.header("content-length"), Some(body.len().to_string().as_str()));
        assert_eq!(part.header("etag"), Some("\"v1\""));
    }
    assert_eq!(origin.hits("/r"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_beyond_the_end_is_416() {
    let (origin, proxy) = stored().await;
    for range in ["bytes=10-", "bytes=100-200", "bytes=-0"] {
        let refused = ranged(&proxy, &[("Range", range)]).await;
        refused.assert_status(416);
        assert_eq!(refused.header("content-range"), Some("bytes */10"), "{range}");
    }
    ranged(&proxy, &[]).await.assert_is(200, BODY).assert_hit();
    assert_eq!(origin.hits("/r"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_makes_no_sense_is_ignored() {
    let (_origin, proxy) = stored().await;
    for range in ["bytes=4-2", "bytes=a-b", "bytes", "lines=1-2", "bytes=", "bytes=--1"] {
        ranged(&proxy, &[("Range", range)]).await.assert_is(200, BODY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_range_decides_between_the_part_and_the_whole() {
    let (_origin, proxy) = stored().await;
    let part = ("Range", "bytes=2-4");
    for same in ["\"v1\"", "Tue, 01 Sep 2026 10:00:00 GMT"] {
        ranged(&proxy, &[part, ("If-Range", same)]).await.assert_is(206, "234");
    }
    for other in ["\"v2\"", "W/\"v1\"", "Tue, 01 Sep 2026 10:00:01 GMT", "nonsense"] {
        ranged(&proxy, &[part, ("If-Range", other)]).await.assert_is(200, BODY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_holds_comes_before_the_range() {
    let (_origin, proxy) = stored().await;
    let both = [("Range", "bytes=2-4"), ("If-None-Match", "\"v1\"")];
    ranged(&proxy, &both).await.assert_status(304);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_with_a_range_is_the_whole() {
    let (_origin, proxy) = stored().await;
    let head = proxy.fetch("HEAD", "/r", &[("Range", "bytes=2-4")]).await;
    head.assert_status(200);
    assert_eq!(head.header("content-length"), Some("10"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_are_right_in_whatever_form() {
    let (_origin, proxy) = stored().await;
    let several = ranged(&proxy, &[("Range", "bytes=0-1,5-6")]).await;
    match several.status {
        200 => drop(several.assert_is(200, BODY)),
        206 => {
            let kind = several.header("content-type").unwrap_or_default();
            assert!(kind.starts_with("multipart/byteranges; boundary="), "{several:#?}");
            let text = several.text();
            assert!(text.contains("bytes 0-1/10") && text.contains("bytes 5-6/10"), "{text}");
            assert!(text.contains("\r\n\r\n01\r\n") && text.contains("\r\n\r\n56\r\n"), "{text}");
        }
        other => panic!("{other}: {several:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_never_served_as_the_whole() {
    let origin = Origin::start().await;
    origin.on("/r", |r| match r.header("range") {
        Some("bytes=2-4") => {
            let part = Reply::new(206).body("234").header("Cache-Control", "max-age=600");
            part.header("Content-Range", "bytes 2-4/10").header("ETag", "\"v1\"")
        }
        _ => Reply::cached("max-age=600", BODY).header("ETag", "\"v1\""),
    });
    let proxy = Proxy::start(&origin).await;
    ranged(&proxy, &[("Range", "bytes=2-4")]).await.assert_is(206, "234");
    ranged(&proxy, &[]).await.assert_is(200, BODY);
    ranged(&proxy, &[("Range", "bytes=0-1")]).await.assert_is(206, "01");
    // The whole, once stored, serves the part too.
    ranged(&proxy, &[("Range", "bytes=2-4")]).await.assert_is(206, "234").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn joined_parts_vary_by_what_either_of_them_varied() {
    let origin = Origin::start().await;
    origin.on("/r", |r| {
        let part = |body: &str, range: &str| {
            let part = Reply::new(206).body(body).header("Cache-Control", "max-age=600");
            part.header("Content-Range", range).header("ETag", "\"v1\"")
        };
        match r.header("range") {
            Some("bytes=0-3") => part("0123", "bytes 0-3/10").header("Vary", "X-User"),
            _ => part("456", "bytes 4-6/10"),
        }
    });
    let proxy = Proxy::start(&origin).await;
    let a = ("X-User", "a");
    for range in ["bytes=0-3", "bytes=4-6"] {
        ranged(&proxy, &[("Range", range), a]).await.assert_status(206);
    }
    let joined = ranged(&proxy, &[("Range", "bytes=2-5"), a]).await;
    joined.assert_is(206, "2345").assert_hit();
    assert_eq!(joined.header("vary"), Some("X-User"), "{joined:#?}");
    let other = ranged(&proxy, &[("Range", "bytes=0-3"), ("X-User", "b")]).await;
    assert!(!other.cache().has("hit"), "{other:#?}");
    assert_eq!(origin.hits("/r"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_206_that_contradicts_itself_is_not_stored() {
    let origin = Origin::start().await;
    origin.on("/r", |r| match r.header("range") {
        Some(_) => {
            // Three bytes that claim to be all ten.
            let part = Reply::new(206).body("234").header("Cache-Control", "max-age=600");
            part.header("Content-Range", "bytes 0-9/10").header("ETag", "\"v1\"")
        }
        None => Reply::cached("max-age=600", BODY).header("ETag", "\"v1\""),
    });
    let proxy = Proxy::start(&origin).await;
    let _ = ranged(&proxy, &[("Range", "bytes=0-9")]).await;
    ranged(&proxy, &[]).await.assert_is(200, BODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_of_a_response_with_a_stray_content_range_have_none_in_the_head() {
    let origin = Origin::start().await;
    let stray = Reply::cached("max-age=60", "0123456789").header("Content-Range", "bytes 0-9/10");
    origin.always("/r", stray);
    let proxy = Proxy::start(&origin).await;
    proxy.get("/r").await.assert_status(200);
    let several = proxy.fetch("GET", "/r", &[("Range", "bytes=0-1,5-6")]).await;
    several.assert_status(206).assert_hit();
    assert_eq!(several.header("content-range"), None);
    let one = proxy.fetch("GET", "/r", &[("Range", "bytes=0-1")]).await;
    assert_eq!(one.header("content-range"), Some("bytes 0-1/10"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_an_expired_object_that_changed_is_cut_out_of_the_new_one() {
    let origin = Origin::start().await;
    for path in ["/one", "/last", "/none", "/several", "/if"] {
        origin.on(path, |r| match r.nth {
            1 => {
                Reply::cached("max-age=1", "0123456789").header("Age", "1").header("ETag", "\"v1\"")
            }
            _ => Reply::cached("max-age=60", "abcdefghij").header("ETag", "\"v2\""),
        });
    }
    let proxy = Proxy::start(&origin).await;
    let asks = async |path: &str, fields: &[(&str, &str)]| {
        proxy.get(path).await.assert_is(200, "0123456789");
        let response = proxy.fetch("GET", path, fields).await;
        // The whole is stored all the same.
        proxy.get(path).await.assert_is(200, "abcdefghij").assert_hit();
        assert_eq!(origin.last(path).header("range"), None);
        response
    };
    let one = asks("/one", &[("Range", "bytes=2-4")]).await;
    one.assert_is(206, "cde");
    assert_eq!(one.header("content-range"), Some("bytes 2-4/10"));
    asks("/last", &[("Range", "bytes=-2")]).await.assert_is(206, "ij");
    let none = asks("/none", &[("Range", "bytes=10-")]).await;
    none.assert_is(416, "");
    assert_eq!(none.header("content-range"), Some("bytes */10"));
    asks("/several", &[("Range", "bytes=0-1,4-5")]).await.assert_is(200, "abcdefghij");
    let old = [("Range", "bytes=2-4"), ("If-Range", "\"v1\"")];
    asks("/if", &old).await.assert_is(200, "abcdefghij");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_let_a_range_fetch_the_whole() {
    let origin = Origin::start().await;
    origin.on("/r", |_| Reply::cached("max-age=60", "0123456789").header("ETag", "\"v1\""));
    let policy = "routes: [{name: all, cache: {range: whole}}]";
    let proxy = Setup::of(&origin).policy(policy).start().await;
    proxy.fetch("GET", "/r", &[("Range", "bytes=2-4")]).await.assert_is(206, "234");
    proxy.fetch("GET", "/r", &[("Range", "bytes=5-")]).await.assert_is(206, "56789").assert_hit();
    proxy.get("/r").await.assert_is(200, "0123456789").assert_hit();
    assert_eq!(origin.last("/r").header("range"), None);
    assert_eq!(origin.hits("/r"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_make_the_whole_have_the_fields_of_both() {
    let origin = Origin::start().await;
    origin.on("/r", |r| {
        let part = |body: &str, range: &str| {
            let part = Reply::new(206).body(body).header("Cache-Control", "max-age=600");
            part.header("Content-Range", range).header("ETag", "\"v1\"")
        };
        match r.header("range") {
            Some("bytes=0-3") => part("0123", "bytes 0-3/10").header("X-Old", "kept"),
            Some("bytes=4-6") => part("456", "bytes 4-6/10").header("X-Round", "two"),
            Some("bytes=7-9") => part("789", "bytes 7-9/10").header("X-Round", "three"),
            _ => Reply::new(500),
        }
    });
    let proxy = Proxy::start(&origin).await;
    for (range, body) in [("bytes=0-3", "0123"), ("bytes=4-6", "456")] {
        ranged(&proxy, &[("Range", range)]).await.assert_is(206, body);
    }
    let joined = ranged(&proxy, &[("Range", "bytes=2-5")]).await;
    joined.assert_is(206, "2345").assert_hit();
    assert_eq!(joined.header("content-range"), Some("bytes 2-5/10"));
    assert_eq!((joined.header("x-old"), joined.header("x-round")), (Some("kept"), Some("two")));
    ranged(&proxy, &[("Range", "bytes=7-9")]).await.assert_is(206, "789");
    let whole = ranged(&proxy, &[]).await;
    whole.assert_is(200, BODY).assert_hit();
    assert_eq!(whole.header("content-range"), None, "{whole:#?}");
    assert_eq!((whole.header("x-old"), whole.header("x-round")), (Some("kept"), Some("three")));
}
