//! The first stage: is this a request that we pass on at all, and which route is it for?
//!
//! Framing is checked by hyper; here is what hyper leaves to its user (RFC 9112 §3.2, §6).

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Method, Request, StatusCode, Version};
use outrigger_policy::snapshot::RouteQuery;
use outrigger_policy::{RequestTarget, Route, Snapshot};
use outrigger_telemetry::Outcome;

use crate::app::Shared;
use crate::headers::{Identity, wants_upgrade};
use crate::mesh::{self, Arrived, MeshSettings, Mode};

/// A request that may go on.
pub(crate) struct Admitted<'a> {
    pub(crate) authority: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) route: &'a Arc<Route>,
    pub(crate) arrived: Arrived<'a>,
    pub(crate) upgrade: bool,
}

impl<'a> Admitted<'a> {
    pub(crate) fn target(&self) -> RequestTarget<'a> {
        RequestTarget {
            scheme: "http",
            authority: self.authority,
            path: self.path,
            query: self.query,
        }
    }
}

/// A request that is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) outcome: Outcome,
    pub(crate) detail: &'static str,
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, outcome: Outcome::Rejected, detail }
}

/// What the listener by which a request came in knows.
#[derive(Clone, Copy)]
pub(crate) struct ListenerContext<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) mode: Mode,
    pub(crate) mesh: &'a MeshSettings,
    /// Whether there is an upstream for requests that name none.
    pub(crate) has_upstream: bool,
}

impl<'a> ListenerContext<'a> {
    pub(crate) fn of(shared: &'a Shared, mode: Mode) -> Self {
        ListenerContext {
            identity: &shared.identity,
            mode,
            mesh: &shared.settings.mesh,
            has_upstream: !shared.settings.upstream.endpoints.is_empty(),
        }
    }
}

/// Checks a request and finds its route.
pub(crate) fn admit<'a, B>(
    request: &'a Request<B>,
    snapshot: &'a Snapshot,
    listener: ListenerContext<'a>,
) -> Result<Admitted<'a>, Refusal> {
    let headers = request.headers();
    if *request.method() == Method::CONNECT {
        let status = StatusCode::NOT_IMPLEMENTED;
        return Err(Refusal { status, outcome: Outcome::Rejected, detail: "connect" });
    }
    let framing = headers.get_all(CONTENT_LENGTH).iter().count();
    if framing > 1 {
        return Err(bad("several-content-lengths"));
    }
    if framing == 1 && headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("content-length-and-transfer-encoding"));
    }
    let authority = snapshot.authority(authority(request)?);
    let path = match request.uri().path() {
        "" => "/",
        path => path,
    };
    if !path.starts_with('/') && path != "*" {
        return Err(bad("request-target"));
    }
    if listener.identity.is_looping(headers, listener.mode) {
        let status = StatusCode::LOOP_DETECTED;
        return Err(Refusal { status, outcome: Outcome::Loop, detail: "loop" });
    }
    let arrived =
        mesh::arrive(listener.mode, headers, listener.mesh, listener.has_upstream, snapshot)?;
    let peer = arrived.arrival.peer;
    let query = RouteQuery { host: authority, path, method: request.method(), headers, peer };
    Ok(Admitted {
        authority,
        path,
        query: request.uri().query(),
        route: snapshot.route(query),
        arrived,
        upgrade: wants_upgrade(headers, request.version()),
    })
}

/// The host that the request is for: an absolute target before `Host` (RFC 9112 §3.2.2).
fn authority<B>(request: &Request<B>) -> Result<&str, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("several-hosts"));
    }
    if let Some(authority) = request.uri().authority() {
        // Without a scheme it is the authority form, which only CONNECT may use.
        if request.version() < Version::HTTP_2 && request.uri().scheme().is_none() {
            return Err(bad("request-target"));
        }
        if authority.as_str().contains('@') {
            return Err(bad("user-information"));
        }
        return Ok(authority.as_str());
    }
    let Some(host) = host else {
        // HTTP/1.0 knows no Host; a probe may well be one.
        if request.version() <= Version::HTTP_10 {
            return Ok("localhost");
        }
        return Err(bad("no-host"));
    };
    let host = host.to_str().map_err(|_| bad("host"))?.trim();
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&b);
    let port_ok = match host.rsplit_once(':') {
        Some((_, port)) if !host.ends_with(']') => port.bytes().all(|b| b.is_ascii_digit()),
        _ => true,
    };
    if host.is_empty() || !port_ok || !host.bytes().all(good) {
        return Err(bad("host"));
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(request: &Request<()>) -> Result<String, &'static str> {
        let snapshot = Snapshot::built_in();
        let (identity, mesh) = (Identity::new("i".to_owned()), MeshSettings::default());
        let listener = ListenerContext {
            identity: &identity,
            mode: Mode::Direct,
            mesh: &mesh,
            has_upstream: true,
        };
        admit(request, &snapshot, listener)
            .map(|found| format!("{}{}", found.authority, found.path))
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
    }
}
