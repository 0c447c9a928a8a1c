//! `outrigger demo`: an embedded upstream with a cache before it, for the first five minutes.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::app::config::RunArgs;
use crate::app::error::CliError;
use crate::app::load::load;
use crate::app::run::until_signalled_with;

/// `outrigger demo`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Where the cache listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15480")]
    listen: String,
    /// Admin address.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15490")]
    admin: String,
}

static ANSWERED: AtomicU64 = AtomicU64::new(0);

/// Runs the demo until SIGTERM or SIGINT.
pub(super) fn demo(args: &DemoArgs) -> Result<(), CliError> {
    let upstream = start_upstream()?;
    let run = RunArgs {
        listen: vec![args.listen.clone()],
        admin: Some(args.admin.clone()),
        upstream: Some(format!("http://{upstream}")),
        ..RunArgs::default()
    };
    let plan = load(&run)?.plan()?;
    until_signalled_with(plan, |addresses, admin| {
        let at = addresses.first().map_or("127.0.0.1:15480", String::as_str);
        print!("{}", invitation(at, admin));
    })
}

fn invitation(at: &str, admin: &str) -> String {
    format!(
        "Outrigger is caching an embedded upstream. Try, in another terminal:

  curl -i http://{at}/time            # twice: a miss, then a hit with Age
  curl -i http://{at}/slow            # one second, then at once for 10 s
  curl -i http://{at}/private         # never stored; Cache-Status says why
  curl -i http://{admin}/stats
  curl -i 'http://{admin}/explain?url=http://{at}/time'
  curl -i -H 'content-type: application/json' -d '{{\"tag\": \"clock\"}}' http://{admin}/purge

Ctrl-C ends it.
"
    )
}

/// The upstream runs on a thread of its own, as a service would in a process of its own.
fn start_upstream() -> Result<std::net::SocketAddr, CliError> {
    let failed = |error: std::io::Error| {
        CliError::Startup(format!("cannot start the embedded upstream: {error}"))
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    std::thread::Builder::new()
        .name("demo-upstream".to_owned())
        .spawn(move || runtime.block_on(serve(listener)))
        .map_err(failed)?;
    Ok(address)
}

async fn serve(listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // An error here means that the client went away.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let count = ANSWERED.fetch_add(1, Ordering::Relaxed) + 1;
    let (control, note) = match request.uri().path() {
        "/private" => ("private, max-age=60", "for one reader only"),
        "/slow" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ("max-age=10, stale-while-revalidate=30", "this took a second")
        }
        _ => ("max-age=5, stale-while-revalidate=10", "fresh for five seconds"),
    };
    let text = format!("upstream answer {count} to {}: {note}\n", request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(text)));
    for (name, value) in
        [("content-type", "text/plain"), ("cache-control", control), ("cache-tag", "clock")]
    {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    Ok(response)
}
