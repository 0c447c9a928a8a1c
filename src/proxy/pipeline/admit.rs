//! The first stage: is this a request that we pass on at all, and which route is it for?
//!
//! Most is checked by hyper; here is what hyper leaves to its user (RFC 9112 §3.2).

use std::sync::Arc;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri, Version};
use outrigger_policy::snapshot::RouteQuery;
use outrigger_policy::uri::AuthorityError;
use outrigger_policy::{Authority, RequestTarget, Route, Side, Snapshot};

use crate::framing;
use crate::headers::{ProxyIdentity, wants_upgrade};
use crate::mesh::{self, Arrived, MeshSettings};
use crate::refusal::Refusal;
use crate::state::Shared;

/// A request that may go on.
pub(crate) struct Admitted<'a> {
    /// What is asked for, under the name of its service.
    pub(crate) target: RequestTarget<'a>,
    pub(crate) route: &'a Arc<Route>,
    pub(crate) arrived: Arrived<'a>,
    pub(crate) upgrade: bool,
}

/// What the listener by which a request came in knows.
#[derive(Clone, Copy)]
pub(crate) struct ListenerContext<'a> {
    pub(crate) identity: &'a ProxyIdentity,
    pub(crate) side: Option<Side>,
    pub(crate) mesh: &'a MeshSettings,
    /// Whether there is an upstream for requests that name none.
    pub(crate) has_upstream: bool,
}

impl<'a> ListenerContext<'a> {
    pub(crate) fn of(shared: &'a Shared, side: Option<Side>) -> Self {
        ListenerContext {
            identity: &shared.identity,
            side,
            mesh: &shared.settings.mesh,
            has_upstream: !shared.settings.upstream.endpoints.is_empty(),
        }
    }
}

/// Checks a request and finds its route; `has_body` tells whether content follows its head.
pub(crate) fn admit<'a, B>(
    request: &'a Request<B>,
    has_body: bool,
    snapshot: &'a Snapshot,
    listener: ListenerContext<'a>,
) -> Result<Admitted<'a>, Refusal> {
    let headers = request.headers();
    if *request.method() == Method::CONNECT {
        return Err(Refusal::rejected(StatusCode::NOT_IMPLEMENTED, "connect"));
    }
    framing::check_request(headers, has_body)?;
    check_target(request)?;
    let authority = snapshot.service(authority(request)?);
    let path = request.uri().path();
    if listener.identity.is_looping(headers, listener.side) {
        return Err(Refusal::looping("loop"));
    }
    let arrived =
        mesh::arrive(listener.side, headers, listener.mesh, listener.has_upstream, snapshot)?;
    let peer = arrived.arrival.peer;
    let query = RouteQuery { authority, path, method: request.method(), headers, peer };
    Ok(Admitted {
        target: RequestTarget { authority, path, query: request.uri().query() },
        route: snapshot.route(query),
        arrived,
        upgrade: wants_upgrade(headers, request.version()),
    })
}

/// Checks scheme, path and query of the target (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn check_target<B>(request: &Request<B>) -> Result<(), Refusal> {
    let uri = request.uri();
    let scheme = uri.scheme_str();
    let known = |scheme: &str| ["http", "https"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
    if scheme.is_some_and(|scheme| !known(scheme)) {
        return Err(Refusal::bad_request("scheme"));
    }
    let is_absolute = scheme.is_some() && request.version() < Version::HTTP_2;
    let target = uri.path_and_query();
    // `Uri` cuts fragments off. Where nothing else was, it says `/`, and would be sent as nothing.
    let is_nothing = |target: &PathAndQuery| Uri::from(target.clone()).path().is_empty();
    let text = target.map_or("", |target| target.as_str());
    let good = match text.as_bytes().first() {
        Some(b'/') => text.len() > 1 || !target.is_some_and(is_nothing),
        // An absolute URI may have no path (RFC 3986 §3.3).
        Some(b'?') => is_absolute,
        Some(b'*') => *request.method() == Method::OPTIONS && text.len() == 1 && !is_absolute,
        _ => false,
    };
    if good { Ok(()) } else { Err(Refusal::bad_request("request-target")) }
}

/// The host that the request is for: an absolute target before `Host` (RFC 9112 §3.2.2).
fn authority<B>(request: &Request<B>) -> Result<Authority<'_>, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::bad_request("several-hosts"));
    }
    // It is checked also where the target's authority takes its place.
    let host = match host {
        None => None,
        Some(host) => {
            let text = host.to_str().map_err(|_| Refusal::bad_request("host"))?.trim();
            Some(Authority::parse(text).map_err(|_| Refusal::bad_request("host"))?)
        }
    };
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Refusal::bad_request("no-host"));
    }
    if let Some(authority) = request.uri().authority() {
        // Without a scheme it is the authority form, which only CONNECT may use.
        if request.version() < Version::HTTP_2 && request.uri().scheme().is_none() {
            return Err(Refusal::bad_request("request-target"));
        }
        return Authority::parse(authority.as_str()).map_err(|error| match error {
            AuthorityError::UserInformation => Refusal::bad_request("user-information"),
            AuthorityError::Host => Refusal::bad_request("host"),
        });
    }
    match host {
        Some(host) => Ok(host),
        // HTTP/1.0 knows no Host; a probe may well be one.
        None if request.version() <= Version::HTTP_10 => Ok(Authority::of_valid("localhost")),
        None => Err(Refusal::bad_request("no-host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(request: &Request<()>) -> Result<String, &'static str> {
        let snapshot = Snapshot::built_in();
        let (identity, mesh) = (ProxyIdentity::new("i".to_owned()), MeshSettings::default());
        let listener =
            ListenerContext { identity: &identity, side: None, mesh: &mesh, has_upstream: true };
        admit(request, true, &snapshot, listener)
            .map(|found| format!("{}{}", found.target.authority.as_sent(), found.target.path))
            .map_err(|refusal| refusal.detail)
    }

    fn request(uri: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri(uri);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn the_target_comes_before_host() {
        let absolute = request("http://a.svc", &[("host", "b.svc")]);
        assert_eq!(admitted(&absolute).as_deref(), Ok("a.svc/"));
        assert_eq!(admitted(&request("/x", &[("host", "b.svc")])).as_deref(), Ok("b.svc/x"));
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        for (fields, why) in [
            (&[][..], "no-host"),
            (&[("host", "a"), ("host", "b")], "several-hosts"),
            (&[("host", "a/b")], "host"),
            (&[("host", "a:port")], "host"),
            (&[("host", "a@b")], "host"),
            (
                &[("host", "a"), ("content-length", "1"), ("content-length", "1")],
                "several-content-lengths",
            ),
            (
                &[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")],
                "content-length-and-transfer-encoding",
            ),
            (&[("host", "a"), ("cdn-loop", "outrigger; id=i")], "loop"),
        ] {
            assert_eq!(admitted(&request("/", fields)), Err(why));
        }
        for (uri, fields, why) in [
            ("http://a/", &[][..], "no-host"),
            ("http://a/", &[("host", "[::1")], "host"),
            ("http://a#x", &[("host", "a")], "request-target"),
            ("ftp://a/", &[("host", "a")], "scheme"),
            ("*", &[("host", "a")], "request-target"),
            ("a", &[("host", "a")], "request-target"),
        ] {
            assert_eq!(admitted(&request(uri, fields)), Err(why), "{uri}");
        }
        let mut http2 = request("http://a#x", &[]);
        *http2.version_mut() = Version::HTTP_2;
        assert_eq!(admitted(&http2), Err("request-target"));
    }
}
