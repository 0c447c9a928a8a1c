//! One fetch for many clients, and when not to.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{
    Client, Gate, Origin, Proxy, Reply, Request, Response, Script, Setup, eventually, head, metric,
    waiting,
};

/// "first " at once, "rest" after the gate.
fn held(gate: &Gate) -> Script {
    Script::new()
        .send(head(200, &[("Cache-Control", "max-age=60"), ("Content-Length", "10")]))
        .send("first ")
        .gate(gate)
        .send("rest")
}

async fn ask(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = proxy.connect().await;
    client.request("GET", path, headers).await;
    client
}

/// Requests that run beside the test.
fn ask_all(proxy: &Proxy, path: &str, n: usize) -> JoinSet<Response> {
    let mut all = JoinSet::new();
    for _ in 0..n {
        let (addr, path) = (proxy.addr, path.to_owned());
        all.spawn(async move { crate::support::get(addr, &path).await });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_of_a_cold_url_cause_one_fetch_and_get_bytes_as_they_come() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/cold", held(&gate));
    let proxy = Proxy::start(&origin).await;
    let mut early = JoinSet::new();
    for _ in 0..1000 {
        let addr = proxy.addr;
        early.spawn(async move {
            let mut client = Client::connect(addr).await;
            client.request("GET", "/cold", &[]).await;
            let head = client.final_head().await;
            client.until("first ").await;
            (client, head)
        });
    }
    // Every client has the head and the first bytes; the origin holds the rest.
    let clients = early.join_all().await;
    assert_eq!(origin.hits("/cold"), 1);
    gate.open();
    let mut collapsed = 0;
    for (mut client, head) in clients {
        client.until("rest").await;
        let status = crate::support::CacheStatus::of(&head.all("cache-status"));
        collapsed += usize::from(status.has("collapsed"));
    }
    assert_eq!(collapsed, 999, "all but the leader say so");
    assert_eq!(origin.hits("/cold"), 1);
    proxy.get("/cold").await.assert_is(200, "first rest").assert_hit();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_that_come_before_the_head_share_the_fetch_too() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let reply = Reply::cached("max-age=60", "body");
    origin.always("/cold", Script::new().gate(&gate).reply(reply));
    let proxy = Proxy::start(&origin).await;
    let all = ask_all(&proxy, "/cold", 50);
    origin.arrived("/cold", 1).await;
    gate.open();
    for response in all.join_all().await {
        response.assert_is(200, "body");
    }
    assert_eq!(origin.hits("/cold"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_leaving_does_not_cancel_the_fill_while_others_wait() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/cold", held(&gate));
    let proxy = Proxy::start(&origin).await;
    let mut leader = ask(&proxy, "/cold", &[]).await;
    leader.until("first ").await;
    let mut waiter = ask(&proxy, "/cold", &[]).await;
    waiter.until("first ").await;
    leader.reset();
    eventually("the leader's connection is gone", || async {
        (metric(&proxy, "outrigger_connections", &[]).await == 1.0).then_some(())
    })
    .await;
    gate.open();
    waiter.until("rest").await;
    proxy.get("/cold").await.assert_is(200, "first rest").assert_hit();
    assert_eq!(origin.hits("/cold"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_does_not_hold_up_the_others() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let body = vec![b'x'; 7 << 20];
    let length = body.len().to_string();
    let lines = [("Cache-Control", "max-age=60"), ("Content-Length", length.as_str())];
    let script = Script::new().send(head(200, &lines)).gate(&gate).send(&body);
    origin.always("/big", script);
    let proxy = Proxy::start(&origin).await;
    let mut slow = ask(&proxy, "/big", &[]).await;
    slow.final_head().await;
    let mut quick = ask(&proxy, "/big", &[]).await;
    quick.final_head().await;
    gate.open();
    assert_eq!(quick.exactly(body.len()).await.len(), body.len());
    assert_eq!(slow.exactly(body.len()).await.len(), body.len());
    assert_eq!(origin.hits("/big"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncacheable_answer_releases_the_waiters_and_is_remembered() {
    let origin = Origin::start().await;
    let (first, second, third) = (Gate::new(), Gate::new(), Gate::new());
    let gates = [first.clone(), second.clone(), third.clone()];
    origin.on("/u", move |r: &Request| {
        let gate = match r.nth {
            1 => &gates[0],
            2..=20 => &gates[1],
            _ => &gates[2],
        };
        let reply = Reply::cached("private, no-store", r.nth.to_string());
        Script::new().gate(gate).reply(reply)
    });
    let proxy = Proxy::start(&origin).await;
    let waiting = ask_all(&proxy, "/u", 20);
    origin.arrived("/u", 1).await;
    first.open();
    // All others are at the origin at the same time: nobody waits for anybody.
    origin.arrived("/u", 20).await;
    second.open();
    let mut bodies: Vec<_> = waiting.join_all().await.iter().map(Response::text).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 20, "a private answer went to more than one client");

    // Remembered: later ones are at the origin together from the start.
    let later = ask_all(&proxy, "/u", 20);
    origin.arrived("/u", 40).await;
    third.open();
    for response in later.join_all().await {
        response.assert_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_credentials_are_never_collapsed() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let open = gate.clone();
    origin.on("/me", move |r| {
        let who = r.header("authorization").unwrap_or("nobody").to_owned();
        Script::new().gate(&open).reply(Reply::cached("max-age=60", who))
    });
    let proxy = Proxy::start(&origin).await;
    let mut ann = ask(&proxy, "/me", &[("Authorization", "Bearer ann")]).await;
    let mut bob = ask(&proxy, "/me", &[("Authorization", "Bearer bob")]).await;
    origin.arrived("/me", 2).await;
    gate.open();
    ann.response("GET").await.assert_is(200, "Bearer ann");
    bob.response("GET").await.assert_is(200, "Bearer bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_varies_gets_its_own_variant() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let open = gate.clone();
    origin.on("/v", move |r| {
        let language = r.header("accept-language").unwrap_or("none").to_owned();
        let reply = Reply::cached("max-age=60", language).header("Vary", "Accept-Language");
        Script::new().gate(&open).reply(reply)
    });
    let proxy = Proxy::start(&origin).await;
    let mut english = ask(&proxy, "/v", &[("Accept-Language", "en")]).await;
    origin.arrived("/v", 1).await;
    let mut german = ask(&proxy, "/v", &[("Accept-Language", "de")]).await;
    gate.open();
    english.response("GET").await.assert_is(200, "en");
    german.response("GET").await.assert_is(200, "de");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_with_no_cache_makes_its_own_fetch() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let open = gate.clone();
    origin.on("/n", move |r| {
        let reply = Reply::cached("max-age=60", r.nth.to_string());
        if r.nth == 1 { Script::new().gate(&open).reply(reply) } else { reply.into() }
    });
    let proxy = Proxy::start(&origin).await;
    let mut held = ask(&proxy, "/n", &[]).await;
    origin.arrived("/n", 1).await;
    let own = proxy.fetch("GET", "/n", &[("Cache-Control", "no-store")]).await;
    own.assert_is(200, "2");
    gate.open();
    held.response("GET").await.assert_is(200, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_or_a_write_elsewhere_does_not_split_a_fetch() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    origin.always("/cold", held(&gate));
    origin.always("/write", Reply::ok("written"));
    let proxy = Proxy::start(&origin).await;
    let mut leader = ask(&proxy, "/cold", &[]).await;
    leader.until("first ").await;
    for url in ["http://shop.test/other", "http://other.test/cold"] {
        proxy.purge(serde_json::json!({"url": url})).await;
    }
    proxy.purge(serde_json::json!({"tag": "other"})).await;
    proxy.purge(serde_json::json!({"prefix": "http://shop.test/other/"})).await;
    proxy.fetch("POST", "/write", &[("Content-Length", "0")]).await.assert_status(200);
    let mut waiter = ask(&proxy, "/cold", &[]).await;
    waiter.until("first ").await;
    assert_eq!(origin.hits("/cold"), 1);
    gate.open();
    waiter.until("rest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_to_a_response_that_has_expired_shares_one_new_fetch() {
    let origin = Origin::start().await;
    let (first, second) = (Gate::new(), Gate::new());
    let gates = [first.clone(), second.clone()];
    origin.on("/late", move |r| {
        if r.nth == 1 {
            return Script::new()
                .send(head(200, &[("Cache-Control", "max-age=1"), ("Content-Length", "10")]))
                .send("first ")
                .gate(&gates[0])
                .send("rest");
        }
        Script::new().gate(&gates[1]).reply(Reply::cached("max-age=60", "new"))
    });
    let proxy = Proxy::start(&origin).await;
    let mut leader = ask(&proxy, "/late", &[]).await;
    leader.until("first ").await;
    // Its body is still on the way when its lifetime is over.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let late = ask_all(&proxy, "/late", 20);
    origin.arrived("/late", 2).await;
    waiting(&[&proxy], 19).await;
    second.open();
    for response in late.join_all().await {
        response.assert_is(200, "new");
    }
    first.open();
    leader.until("rest").await;
    assert_eq!(origin.hits("/late"), 2, "one fetch for all who came late");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_is_bounded_in_time() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/w", move |r| {
        let reply = Reply::cached("max-age=60", "late");
        if r.nth == 1 {
            Script::new().gate(&held).reply(reply)
        } else {
            Reply::cached("max-age=60", "own").into()
        }
    });
    let proxy = Setup::of(&origin).config("coalesce: {waitMsMax: 200}").start().await;
    let mut leader = ask(&proxy, "/w", &[]).await;
    origin.arrived("/w", 1).await;
    // The origin holds the leader's answer, and this one comes all the same.
    proxy.get("/w").await.assert_is(200, "own");
    gate.open();
    leader.response("GET").await.assert_is(200, "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_have_waited_in_vain_one_fetches_for_the_others() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/w", move |r| {
        let reply = Reply::cached("max-age=60", r.nth.to_string());
        if r.nth == 1 { Script::new().gate(&held).reply(reply) } else { reply.into() }
    });
    let proxy = Setup::of(&origin).config("coalesce: {waitMsMax: 500}").start().await;
    let mut leader = ask(&proxy, "/w", &[]).await;
    origin.arrived("/w", 1).await;
    for response in ask_all(&proxy, "/w", 20).join_all().await {
        response.assert_is(200, "2");
    }
    assert_eq!(origin.hits("/w"), 2);
    gate.open();
    leader.response("GET").await.assert_is(200, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_twice_in_vain_goes_alone() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/w", move |r| {
        let reply = Reply::cached("max-age=60", r.nth.to_string());
        if r.nth <= 2 { Script::new().gate(&held).reply(reply) } else { reply.into() }
    });
    let proxy = Setup::of(&origin).config("coalesce: {waitMsMax: 300}").start().await;
    let mut held = Vec::new();
    for n in 1..=2 {
        held.push(ask(&proxy, "/w", &[]).await);
        origin.arrived("/w", n).await;
    }
    // The origin holds the fetch and the one of those who waited for it in vain.
    proxy.get("/w").await.assert_is(200, "3");
    gate.open();
    for client in &mut held {
        client.response("GET").await.assert_status(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_how_long_its_requests_wait_for_each_other() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    for path in ["/own/now", "/own/soon", "/other"] {
        let held = gate.clone();
        origin.on(path, move |r| {
            let reply = Reply::cached("max-age=60", r.nth.to_string());
            if r.nth == 1 { Script::new().gate(&held).reply(reply) } else { reply.into() }
        });
    }
    let policy = "routes:
  - {name: now, match: {path: {exact: /own/now}}, cache: {coalesceWait: 0s}}
  - {name: soon, match: {path: {exact: /own/soon}}, cache: {coalesceWait: 100ms}}
";
    let config = "coalesce: {waitMsMax: 600000}";
    let proxy = Setup::of(&origin).policy(policy).config(config).start().await;
    let mut leaders = Vec::new();
    for path in ["/own/now", "/own/soon", "/other"] {
        leaders.push(ask(&proxy, path, &[]).await);
        origin.arrived(path, 1).await;
    }
    let mut waits = ask(&proxy, "/other", &[]).await;
    waiting(&[&proxy], 1).await;
    proxy.get("/own/now").await.assert_is(200, "2");
    assert_eq!(metric(&proxy, "outrigger_coalesce_waiters_total", &[]).await, 1.0);
    proxy.get("/own/soon").await.assert_is(200, "2");
    assert_eq!(metric(&proxy, "outrigger_coalesce_timeouts_total", &[]).await, 1.0);
    gate.open();
    waits.response("GET").await.assert_is(200, "1");
    for leader in &mut leaders {
        leader.response("GET").await.assert_is(200, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_are_bounded_in_number() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let reply = Reply::cached("max-age=60", "body");
    origin.always("/w", Script::new().gate(&gate).reply(reply));
    let config = "coalesce: {waitersMax: 2, waitMsMax: 60000}";
    let proxy = Setup::of(&origin).config(config).start().await;
    let all = ask_all(&proxy, "/w", 8);
    // One leader and two waiters; the other five go by themselves.
    origin.arrived("/w", 6).await;
    gate.open();
    for response in all.join_all().await {
        response.assert_is(200, "body");
    }
    assert_eq!(origin.hits("/w"), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_leader_leaves_nobody_stuck() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/f", move |r| {
        if r.nth == 1 {
            Script::new().gate(&held).reset()
        } else {
            Reply::cached("max-age=60", "fine").into()
        }
    });
    let proxy = Proxy::start(&origin).await;
    let all = ask_all(&proxy, "/f", 20);
    origin.arrived("/f", 1).await;
    waiting(&[&proxy], 19).await;
    gate.open();
    for response in all.join_all().await {
        response.assert_status(502);
    }
    assert_eq!(origin.hits("/f"), 1, "who has waited does not try in turn");
    proxy.get("/f").await.assert_is(200, "fine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_alone_leaves_nobody_stuck() {
    let origin = Origin::start().await;
    origin.on("/f", |r| {
        if r.nth == 1 { Script::new().hang() } else { Reply::cached("max-age=60", "fine").into() }
    });
    let timeouts = "timeouts: {firstByteMs: 60000}";
    let proxy = Setup::of(&origin).upstream_line(timeouts).config("coalesce: {waitMsMax: 1000}");
    let proxy = proxy.start().await;
    let leader = ask(&proxy, "/f", &[]).await;
    origin.arrived("/f", 1).await;
    leader.reset();
    eventually("a new fetch", || async {
        let mut client = Client::try_connect(proxy.addr).await.ok()?;
        client.request("GET", "/f", &[]).await;
        let answer = client.try_response("GET");
        let answer = tokio::time::timeout(Duration::from_secs(3), answer).await;
        answer.ok()?.ok().filter(|response| response.text() == "fine")
    })
    .await;
}

/// An origin whose response varies by language: each language has a gate if it is among these.
async fn languages(gates: &[(&'static str, Gate)], control: &'static str) -> Origin {
    let origin = Origin::start().await;
    let gates = gates.to_vec();
    origin.on("/v", move |r| {
        let language = r.header("accept-language").unwrap_or("none").to_owned();
        let gate = gates.iter().find(|(of, _)| *of == language);
        let reply = Reply::cached(control, &language).header("Vary", "Accept-Language");
        let script = gate.map_or_else(Script::new, |(_, gate)| Script::new().gate(gate));
        script.reply(reply)
    });
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_of_a_url_that_is_known_to_vary_do_not_wait_for_each_other() {
    let slow = Gate::new();
    let origin = languages(&[("de", slow.clone())], "max-age=60").await;
    let config = "coalesce: {waitMsMax: 600000}";
    let proxy = Setup::of(&origin).config(config).start().await;
    let in_language = |language| [("Accept-Language", language)];
    proxy.fetch("GET", "/v", &in_language("en")).await.assert_is(200, "en");
    let mut german = ask(&proxy, "/v", &in_language("de")).await;
    origin.arrived("/v", 2).await;
    // The origin holds the German variant. It may be known by which fields it varies without being
    // stored.
    proxy.fetch("GET", "/v", &in_language("fr")).await.assert_is(200, "fr");
    proxy.purge(serde_json::json!({"all": true})).await;
    let mut again = ask(&proxy, "/v", &in_language("de")).await;
    origin.arrived("/v", 4).await;
    proxy.fetch("GET", "/v", &in_language("en")).await.assert_is(200, "en");
    // The same variant in another spelling is still the same fetch.
    let mut joined = ask(&proxy, "/v", &in_language("DE")).await;
    waiting(&[&proxy], 1).await;
    slow.open();
    for client in [&mut german, &mut again, &mut joined] {
        client.response("GET").await.assert_is(200, "de");
    }
    assert_eq!(origin.hits("/v"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn validations_of_two_variants_do_not_wait_for_each_other() {
    let origin = Origin::start().await;
    let slow = Gate::new();
    let held = slow.clone();
    origin.on("/v", move |r| {
        let language = r.header("accept-language").unwrap_or("none").to_owned();
        let validates = r.header("if-none-match").is_some();
        let vary = |reply: Reply| reply.header("Vary", "Accept-Language").header("ETag", "\"1\"");
        match (validates, &*language) {
            (false, _) => vary(Reply::cached("max-age=0", language)).into(),
            (true, "de") => Script::new().gate(&held).reply(vary(Reply::new(304))),
            (true, _) => vary(Reply::new(304)).into(),
        }
    });
    let config = "coalesce: {waitMsMax: 600000}";
    let proxy = Setup::of(&origin).config(config).start().await;
    for language in ["en", "de"] {
        let headers = [("Accept-Language", language)];
        proxy.fetch("GET", "/v", &headers).await.assert_is(200, language);
    }
    let mut german = ask(&proxy, "/v", &[("Accept-Language", "de")]).await;
    origin.arrived("/v", 3).await;
    proxy.fetch("GET", "/v", &[("Accept-Language", "en")]).await.assert_is(200, "en");
    slow.open();
    german.response("GET").await.assert_is(200, "de");
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_of_two_variants_run_side_by_side() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.on("/v", move |r| {
        let language = r.header("accept-language").unwrap_or("none").to_owned();
        let control = "max-age=0, stale-while-revalidate=600";
        let reply = Reply::cached(control, language).header("Vary", "Accept-Language");
        if r.nth <= 2 { reply.into() } else { Script::new().gate(&held).reply(reply) }
    });
    let proxy = Proxy::start(&origin).await;
    for language in ["en", "de", "en", "de"] {
        let headers = [("Accept-Language", language)];
        proxy.fetch("GET", "/v", &headers).await.assert_is(200, language);
    }
    origin.arrived("/v", 4).await;
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_the_first_response_of_a_variant_streams_reads_along() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let open = gate.clone();
    origin.on("/v", move |_| {
        let lines = [
            ("Cache-Control", "max-age=60"),
            ("Content-Length", "10"),
            ("Vary", "Accept-Language"),
        ];
        Script::new().send(head(200, &lines)).send("first ").gate(&open).send("rest")
    });
    let proxy = Proxy::start(&origin).await;
    let english = [("Accept-Language", "en")];
    let mut first = ask(&proxy, "/v", &english).await;
    first.until("first ").await;
    // Now it is known by what it varies, and the fetch is found by that too.
    let mut second = ask(&proxy, "/v", &english).await;
    second.until("first ").await;
    assert_eq!(origin.hits("/v"), 1);
    gate.open();
    first.until("rest").await;
    second.until("rest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_another_variant_when_the_response_varies_by_other_fields_than_before() {
    let origin = Origin::start().await;
    let gate = Gate::new();
    let open = gate.clone();
    origin.on("/v", move |r| {
        if r.nth == 1 {
            let old = Reply::cached("max-age=0", "old").header("ETag", "\"old\"");
            return old.header("Vary", "Accept-Language").into();
        }
        let kind = r.header("accept").unwrap_or("none").to_owned();
        Script::new().gate(&open).reply(Reply::cached("max-age=60", kind).header("Vary", "Accept"))
    });
    let proxy = Proxy::start(&origin).await;
    let request = |kind| [("Accept-Language", "en"), ("Accept", kind)];
    proxy.fetch("GET", "/v", &request("text/html")).await.assert_is(200, "old");
    // By what is known they want the same, and so one waits for the other.
    let mut first = ask(&proxy, "/v", &request("text/html")).await;
    origin.arrived("/v", 2).await;
    let mut second = ask(&proxy, "/v", &request("text/plain")).await;
    waiting(&[&proxy], 1).await;
    gate.open();
    first.response("GET").await.assert_is(200, "text/html");
    second.response("GET").await.assert_is(200, "text/plain");
}
