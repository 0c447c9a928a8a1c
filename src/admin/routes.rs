//! The routes of the admin port. This is the only list of them: the router and the index page are
//! made from it.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;

use crate::admin::error::ApiError;
use crate::admin::state::{Admin, AdminScope};
use crate::admin::{explain, guard, pages, purge, reply};

/// Methods of pages that are read, as in `Allow`. axum answers HEAD as GET without the body.
const READ: &str = "GET, HEAD";
/// Methods of pages that change something.
const WRITE: &str = "POST";

/// A route and what the index page says about it.
struct Route {
    method: &'static str,
    path: &'static str,
    /// Text for the index page. One that begins with `?` gives the query, and follows the path.
    about: &'static str,
    /// The smallest scope that has the route.
    scope: AdminScope,
    handler: MethodRouter<Arc<Admin>>,
}

impl Route {
    fn get<T: 'static>(
        path: &'static str,
        about: &'static str,
        handler: impl Handler<T, Arc<Admin>>,
    ) -> Self {
        let handler = only(READ, get(handler));
        Route { method: "GET", path, about, scope: AdminScope::All, handler }
    }

    fn post<T: 'static>(
        path: &'static str,
        about: &'static str,
        handler: impl Handler<T, Arc<Admin>>,
    ) -> Self {
        let handler = only(WRITE, post(handler));
        Route { method: "POST", path, about, scope: AdminScope::All, handler }
    }

    /// The read-only port has it, too.
    fn read_only(self) -> Self {
        Route { scope: AdminScope::ReadOnly, ..self }
    }
}

/// All routes except the index page, in the order of the index.
fn routes() -> Vec<Route> {
    vec![
        Route::get("/healthz", "whether the process lives", pages::healthz).read_only(),
        Route::get("/readyz", "whether it wants traffic", pages::readyz).read_only(),
        Route::get("/stats", "what it does, JSON", pages::stats),
        Route::get("/metrics", "the same for Prometheus", pages::metrics).read_only(),
        Route::get(
            "/explain",
            "?[method=GET&][header=Name:value&][side=inbound|outbound&]\n\
             [port=8080&][peer=spiffe://…&]url=http://host/path (encoded, or last)",
            explain::page,
        ),
        Route::get("/config_dump", "bootstrap and policy in force", pages::config_dump),
        Route::get("/guard", "circuit breakers, limits, endpoints", guard::page),
        Route::post(
            "/breaker",
            "{\"name\": \"upstream\", \"state\": \"open\"|\"closed\"|\"auto\"}; without a name, all",
            guard::post,
        ),
        Route::get("/purges", "the latest purges: what, who, why, when", purge::list),
        Route::post(
            "/purge",
            "{\"url\"|\"tag\"|\"prefix\": \"…\"} or {\"all\": true}, \"mode\": \"hard\"|\"soft\",\n\
             \"wait\": \"none\"|\"appended\"|\"all\", \"timeout\": \"2s\", \"reason\": \"…\"",
            purge::post,
        ),
    ]
}

/// The router of a port.
pub(super) fn router(admin: Arc<Admin>, scope: AdminScope) -> Router {
    let routes = routes();
    let index = index(&routes);
    let router = routes
        .into_iter()
        .filter(|route| scope == AdminScope::All || route.scope == scope)
        .fold(Router::new(), |router, route| router.route(route.path, route.handler));
    let router = match scope {
        AdminScope::All => router
            .route("/", only(READ, get(|| async { reply::text(StatusCode::OK, index) })))
            .fallback(|| async { ApiError::NotFound }),
        AdminScope::ReadOnly => {
            let elsewhere = admin.address.clone();
            router.fallback(|| async { ApiError::NotOnReadOnlyPort(elsewhere) })
        }
    };
    router.with_state(admin)
}

/// Answers other methods with what is allowed, in this port's own words.
fn only(methods: &'static str, handler: MethodRouter<Arc<Admin>>) -> MethodRouter<Arc<Admin>> {
    handler.fallback(move || async move { ApiError::MethodNotAllowed(methods) })
}

fn index(routes: &[Route]) -> String {
    let mut page = String::from("outrigger admin\n\n");
    for Route { method, path, about, .. } in routes {
        // Columns of 5, 14 and the rest; lines that go on are indented by 20.
        let width = if about.starts_with('?') { 0 } else { 14 };
        let about = about.replace('\n', "\n                    ");
        // Writing to a string does not fail.
        let _ = writeln!(page, "{method:<5}{path:<width$}{about}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_lists_each_route_once() {
        let routes = routes();
        let page = index(&routes);
        for route in &routes {
            let listed = page.lines().filter(|line| {
                let rest = line.strip_prefix(route.method).unwrap_or_default().trim_start();
                let path = rest.split([' ', '?']).next().unwrap_or_default();
                path == route.path
            });
            assert_eq!(listed.count(), 1, "{}", route.path);
        }
    }

    #[test]
    fn the_read_only_port_has_nothing_that_changes_or_tells_what_is_stored() {
        let routes = routes();
        let routes = routes.iter().filter(|route| route.scope == AdminScope::ReadOnly);
        let paths: Vec<&str> = routes.map(|route| route.path).collect();
        assert_eq!(paths, ["/healthz", "/readyz", "/metrics"]);
    }
}
