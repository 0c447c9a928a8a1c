//! Ranges of a stored response (RFC 9110 §14, §15.3.7).

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName,
};
use http::{HeaderValue, Response, StatusCode};
use outrigger_semantics::conditional::Selection;
use outrigger_semantics::range::ByteRange;

use crate::body::response::ResponseBody;

/// Sends what was selected of a body with a response that has the fields of the whole.
pub(super) fn send(response: &mut Response<ResponseBody>, body: &Bytes, selected: Selection) {
    let length = body.len() as u64;
    match selected {
        Selection::Whole | Selection::NotModified => {
            *response.body_mut() = ResponseBody::Full(body.clone());
        }
        Selection::Unsatisfiable => {
            unsatisfiable(response, length);
        }
        Selection::Ranges(ranges) => match ranges[..] {
            [range] => one_range(response, body.slice(bounds(range)), range, length),
            _ => several_ranges(response, body, &ranges),
        },
    }
}

/// A 206 with one range.
pub(super) fn one_range(
    response: &mut Response<ResponseBody>,
    piece: Bytes,
    range: ByteRange,
    length: u64,
) {
    head_of_range(response, range, length);
    *response.body_mut() = ResponseBody::Full(piece);
}

/// Makes the head of a whole response that of a 206 with one range.
pub(super) fn head_of_range(response: &mut Response<ResponseBody>, range: ByteRange, length: u64) {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.count()));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, CONTENT_RANGE, format!("bytes {}-{}/{length}", range.first, range.last));
}

/// Makes the head of a whole response that of a 416.
pub(super) fn unsatisfiable(response: &mut Response<ResponseBody>, length: u64) {
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    set(headers, CONTENT_RANGE, format!("bytes */{length}"));
}

pub(super) fn bounds(range: ByteRange) -> std::ops::Range<usize> {
    // Ranges were cut to the length of the body, which is a usize.
    range.first as usize..range.last as usize + 1
}

fn several_ranges(response: &mut Response<ResponseBody>, body: &Bytes, ranges: &[ByteRange]) {
    let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let kind = response.headers().get(CONTENT_TYPE).cloned();
    let mut pieces = VecDeque::new();
    for range in ranges {
        let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(kind) = &kind {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(kind.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        let line =
            format!("Content-Range: bytes {}-{}/{}\r\n\r\n", range.first, range.last, body.len());
        head.extend_from_slice(line.as_bytes());
        pieces.push_back(Bytes::from(head));
        pieces.push_back(body.slice(bounds(*range)));
    }
    pieces.push_back(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let length: usize = pieces.iter().map(Bytes::len).sum();
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    // Each part has its own (RFC 9110 §15.3.7.2).
    headers.remove(CONTENT_RANGE);
    set(headers, CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
    *response.body_mut() = ResponseBody::Pieces(pieces);
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use http::header::RANGE;
    use outrigger_semantics::conditional::select;

    use super::*;

    fn ranged(value: &'static str, body: &'static [u8]) -> Response<ResponseBody> {
        let mut request = HeaderMap::new();
        request.insert(RANGE, HeaderValue::from_static(value));
        let (status, length) = (StatusCode::OK, Some(body.len() as u64));
        let (method, stored) = (http::Method::GET, HeaderMap::new());
        let now = outrigger_semantics::UnixMillis(0);
        let selected = select(&method, &request, status, &stored, length, now);
        let mut response = Response::new(ResponseBody::empty());
        send(&mut response, &Bytes::from_static(body), selected);
        response
    }

    #[test]
    fn one_range_is_cut_out() {
        let response = ranged("bytes=2-3", b"012345");
        assert_eq!(response.status(), 206);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes 2-3/6");
        assert!(matches!(response.body(), ResponseBody::Full(piece) if piece == "23"));
    }

    #[test]
    fn several_ranges_become_a_multipart() {
        let response = ranged("bytes=0-0,2-2", b"012345");
        let ResponseBody::Pieces(pieces) = response.body() else { panic!("not in pieces") };
        let length: usize = pieces.iter().map(Bytes::len).sum();
        assert_eq!(response.headers()[CONTENT_LENGTH], length.to_string());
        assert_eq!(pieces.len(), 5);
    }

    #[test]
    fn parts_come_in_the_order_asked_for_and_with_their_type() {
        let mut request = HeaderMap::new();
        request.insert(RANGE, HeaderValue::from_static("bytes=4-5,9-,0-1"));
        let (method, now) = (http::Method::GET, outrigger_semantics::UnixMillis(0));
        let selected = select(&method, &request, StatusCode::OK, &HeaderMap::new(), Some(9), now);
        let mut response = Response::new(ResponseBody::empty());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/x-own"));
        send(&mut response, &Bytes::from_static(b"012345678"), selected);
        let ResponseBody::Pieces(pieces) = response.body() else { panic!("not in pieces") };
        let body = pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect::<String>();
        let at = |text: &str| body.find(text).unwrap_or_else(|| panic!("{text} in {body}"));
        assert!(at("bytes 4-5/9\r\n\r\n45\r\n") < at("bytes 0-1/9\r\n\r\n01\r\n"), "{body}");
        assert_eq!(
            body.to_lowercase().matches("content-type: text/x-own\r\n").count(),
            2,
            "{body}"
        );
        assert!(response.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("multipart/"));
    }

    #[test]
    fn outside_is_416_with_the_length() {
        let response = ranged("bytes=9-", b"012345");
        assert_eq!(response.status(), 416);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes */6");
    }
}
