//! One connection of the origin: reads requests, runs their scripts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::origin::{OriginState, Request, no_route};
use super::script::{Script, Step};
use super::wire::{Head, Wire};

/// What became of the connection after a step.
enum After {
    Next,
    /// The script ended the connection.
    Ended,
    /// The script asked for a reset.
    Reset,
    /// The peer went away first.
    Gone,
}

pub(super) async fn serve(mut wire: Wire, shared: Arc<OriginState>) {
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
    while let Ok(Some(head)) = wire.head().await {
        let request = Request { head, nth: 0, connection, body: Vec::new(), trailers: Vec::new() };
        let (index, mut request) = shared.record(request);
        let path = request.path().to_owned();
        let route = shared.route(&path);
        if !route.as_ref().is_some_and(|route| route.early)
            && !read_body(&mut wire, &mut request, index, &shared).await
        {
            shared.left(&path);
            return;
        }
        let script = match &route {
            Some(route) => (route.handler)(&request),
            None => no_route(&request),
        };
        match run(&mut wire, script, &mut request, index, &shared).await {
            After::Next => {}
            After::Ended => return wire.finish().await,
            After::Reset => return wire.reset(),
            After::Gone => return shared.left(&path),
        }
    }
}

async fn run(
    wire: &mut Wire,
    script: Script,
    request: &mut Request,
    index: usize,
    shared: &OriginState,
) -> After {
    for step in script.0 {
        let sent = match step {
            Step::Send(bytes) => wire.send(&bytes).await.is_ok(),
            Step::Reply(reply) => wire.send(&reply.render(request.method())).await.is_ok(),
            Step::Gate(gate) => stays(wire, gate.passed()).await,
            Step::Sleep(time) => stays(wire, tokio::time::sleep(time)).await,
            Step::Hang => stays(wire, std::future::pending()).await,
            Step::ReadBody => read_body(wire, request, index, shared).await,
            Step::Flood => flood(wire, shared).await,
            Step::Echo => return echo(wire).await,
            Step::Close => return After::Ended,
            Step::Reset => return After::Reset,
        };
        if !sent {
            return After::Gone;
        }
    }
    After::Next
}

/// Waits for a future; false when the peer closed before it was done.
async fn stays(wire: &mut Wire, done: impl Future<Output = ()>) -> bool {
    tokio::pin!(done);
    loop {
        tokio::select! {
            biased;
            () = &mut done => return true,
            read = wire.fill() => {
                if !matches!(read, Ok(n) if n > 0) {
                    return false;
                }
            }
        }
    }
}

async fn flood(wire: &mut Wire, shared: &OriginState) -> bool {
    let block = vec![b'f'; 16 * 1024];
    loop {
        match wire.send_some(&block).await {
            Ok(n) if n > 0 => shared.flooded.fetch_add(n as u64, Ordering::Relaxed),
            _ => return false,
        };
    }
}

async fn echo(wire: &mut Wire) -> After {
    loop {
        let bytes = std::mem::take(&mut wire.buf);
        if wire.send(&bytes).await.is_err() {
            return After::Ended;
        }
        if !matches!(wire.fill().await, Ok(n) if n > 0) {
            return After::Ended;
        }
    }
}

async fn read_body(
    wire: &mut Wire,
    request: &mut Request,
    index: usize,
    shared: &OriginState,
) -> bool {
    let (body, trailers, whole) = body(wire, &request.head).await;
    shared.complete(index, &body, &trailers);
    request.body = body;
    request.trailers = trailers;
    whole
}

async fn body(wire: &mut Wire, head: &Head) -> super::wire::Chunked {
    if head.lists("transfer-encoding", "chunked") {
        return wire.chunked().await;
    }
    let Some(length) = head.get("content-length").and_then(|n| n.parse().ok()) else {
        return (Vec::new(), Vec::new(), true);
    };
    let body = wire.counted(length).await;
    let whole = body.len() == length;
    (body, Vec::new(), whole)
}
