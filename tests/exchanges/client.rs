//! One request, and the response as a client saw it, over either version of HTTP.

use bytes::BytesMut;
use http_body_util::BodyExt;
use outrigger_test_support::{
    CacheStatus, ChannelBody, Client, End, H2Client, Head, PATIENCE, within,
};

use crate::case::Version;

/// A request in the form that both versions share.
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its fields, `Host` first.
    pub fields: Vec<(String, String)>,
    /// Its content, if there is any.
    pub content: Option<String>,
}

/// A response in the form that both versions share.
#[derive(Debug)]
pub struct Got {
    /// Its status.
    pub status: u16,
    /// Its fields; the start line is empty over HTTP/2.
    pub head: Head,
    /// Its content, as much as came.
    pub body: String,
    /// Whether the content broke off.
    pub truncated: bool,
}

impl Got {
    /// What Outrigger says that it did.
    pub fn cache(&self) -> CacheStatus {
        CacheStatus::of(&self.head.all("cache-status"))
    }
}

/// Sends a request on a connection of its own, and reads the response to its end.
pub async fn send(addr: std::net::SocketAddr, version: Version, asked: &Asked) -> Got {
    match version {
        Version::Http1 => http1(addr, asked).await,
        Version::Http2 => http2(addr, asked).await,
    }
}

async fn http1(addr: std::net::SocketAddr, asked: &Asked) -> Got {
    let mut text = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
    for (name, value) in &asked.fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(content) = &asked.content {
        text.push_str(&format!("Content-Length: {}\r\n\r\n{content}", content.len()));
    } else {
        text.push_str("\r\n");
    }
    let mut client = Client::connect(addr).await;
    client.send(text).await;
    let response = client.response(&asked.method).await;
    Got {
        status: response.status,
        body: response.text(),
        truncated: response.end == End::Truncated,
        head: response.head,
    }
}

async fn http2(addr: std::net::SocketAddr, asked: &Asked) -> Got {
    let client = H2Client::connect(addr).await;
    let mut request = client.to(&asked.method, &asked.target);
    for (name, value) in asked.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
    {
        request = request.header(name, value);
    }
    let body = ChannelBody::of(asked.content.as_deref().unwrap_or_default(), &[]);
    let request = request.body(body).expect("a request that HTTP/2 can carry");
    let response = client.send(request).await.expect("a response");
    let (parts, mut body) = response.into_parts();
    let (mut content, mut truncated) = (BytesMut::new(), false);
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                truncated = true;
                break;
            };
            if let Ok(data) = frame.into_data() {
                content.extend_from_slice(&data);
            }
        }
    };
    within(&format!("the end of a body within {PATIENCE:?}"), read).await;
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers = parts.headers.iter().map(line).collect();
    Got {
        status: parts.status.as_u16(),
        head: Head { start: String::new(), headers },
        body: String::from_utf8_lossy(&content).into_owned(),
        truncated,
    }
}
