//! How a message is framed (RFC 9112 §6), as far as hyper leaves it to its user. Two readers of one
//! message must not find its end at different places, so that what can be read in two ways is
//! refused, and what is passed on says one thing.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use outrigger_semantics::fields::list;

use crate::refusal::Refusal;

/// Whether the transfer codings of a message are `chunked` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codings {
    Chunked,
    /// A coding besides `chunked`, or none at all.
    Unknown,
    /// `chunked` more than once (RFC 9112 §7.1).
    Repeated,
}

fn codings(headers: &HeaderMap) -> Codings {
    let mut found = 0;
    for coding in list(headers, &TRANSFER_ENCODING) {
        if !coding.eq_ignore_ascii_case(b"chunked") {
            return Codings::Unknown;
        }
        found += 1;
    }
    match found {
        0 => Codings::Unknown,
        1 => Codings::Chunked,
        _ => Codings::Repeated,
    }
}

/// Checks the framing of a request, of which hyper knows whether it `has_body`. Without one there
/// are no transfer codings: hyper would have read them, or refused them.
///
/// # Errors
/// There are two lengths, a length that is none, a length beside a transfer coding (RFC 9112 §6.3),
/// or transfer codings other than one `chunked` (§6.1).
pub(crate) fn check_request(headers: &HeaderMap, has_body: bool) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(Refusal::bad_request("several-content-lengths"));
    }
    if length.is_some_and(|length| !is_length(length.as_bytes())) {
        return Err(Refusal::bad_request("content-length"));
    }
    if !has_body || !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    if length.is_some() {
        return Err(Refusal::bad_request("content-length-and-transfer-encoding"));
    }
    match codings(headers) {
        Codings::Chunked => Ok(()),
        Codings::Repeated => Err(Refusal::bad_request("transfer-coding")),
        Codings::Unknown => Err(Refusal::rejected(StatusCode::NOT_IMPLEMENTED, "transfer-coding")),
    }
}

/// Sets the framing of a request with a body of a length that nobody declared. hyper sends such a
/// body of itself, but for methods whose requests have none as a rule.
pub(crate) fn declare_body(method: &Method, headers: &mut HeaderMap) {
    if matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Checks the framing of a response of the upstream, and leaves at most one `Content-Length` that
/// says what the message is.
///
/// # Errors
/// Its body has transfer codings that we do not decode, so that it cannot be passed on.
pub(crate) fn settle_response(
    status: StatusCode,
    headers: &mut HeaderMap,
) -> Result<(), &'static str> {
    if headers.contains_key(TRANSFER_ENCODING) {
        let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !has_none && codings(headers) != Codings::Chunked {
            return Err("a transfer coding other than chunked");
        }
        // `Transfer-Encoding` has framed the message, so this length is wrong (RFC 9112 §6.3).
        headers.remove(CONTENT_LENGTH);
    }
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        // Neither has content, and so no length of it (RFC 9110 §8.6).
        headers.remove(CONTENT_LENGTH);
        return Ok(());
    }
    single_length(headers);
    Ok(())
}

/// Makes equal lengths one (RFC 9110 §8.6). Others are left only where they frame nothing, in
/// responses to HEAD and in a 304, and are removed.
fn single_length(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return };
    if lines.next().is_none() && is_length(first.as_bytes()) {
        return;
    }
    let length = {
        let mut lengths = list(headers, &CONTENT_LENGTH).map(digits);
        lengths.next().flatten().filter(|length| lengths.all(|next| next == Some(*length)))
    };
    match length {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.remove(CONTENT_LENGTH),
    };
}

/// Whether a text is a length: digits alone, and no more than a number can have.
fn is_length(text: &[u8]) -> bool {
    matches!(text.len(), 1..=19) && text.iter().all(u8::is_ascii_digit)
}

/// A number as `Content-Length` writes it.
fn digits(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok().filter(|text| is_length(text.as_bytes()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const TE: &str = "transfer-encoding";
    const CL: &str = "content-length";

    #[test]
    fn a_request_has_one_length_or_one_chunked() {
        for good in [&[][..], &[(CL, "0")], &[(TE, "Chunked")], &[(TE, ", chunked ,"), (TE, "")]] {
            assert_eq!(check_request(&fields(good), true), Ok(()), "{good:?}");
        }
        for (bad, status) in [
            (&[(CL, "")][..], 400),
            (&[(CL, "+1")], 400),
            (&[(CL, "1, 1")], 400),
            (&[(CL, "1"), (CL, "1")], 400),
            (&[(CL, "1"), (TE, "chunked")], 400),
            (&[(TE, "chunked, chunked")], 400),
            (&[(TE, "chunked"), (TE, "CHUNKED")], 400),
            (&[(TE, "gzip, chunked")], 501),
            (&[(TE, "gzip"), (TE, "chunked")], 501),
            (&[(TE, "xchunked")], 501),
            (&[(TE, "chunked;q=1")], 501),
            (&[(TE, "\"chunked\"")], 501),
            (&[(TE, "")], 501),
        ] {
            let refused =
                check_request(&fields(bad), true).map_err(|refusal| refusal.status.as_u16());
            assert_eq!(refused, Err(status), "{bad:?}");
        }
    }

    #[test]
    fn a_response_keeps_one_true_length() {
        let settled = |status: u16, lines: &[(&'static str, &'static str)]| {
            let mut headers = fields(lines);
            let status = StatusCode::from_u16(status).unwrap();
            settle_response(status, &mut headers).ok()?;
            let all = headers.get_all(CONTENT_LENGTH).iter();
            Some(all.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>().join("|"))
        };
        for (status, lines, length) in [
            (200, &[(CL, "5")][..], Some("5")),
            (200, &[(CL, "5, 5")], Some("5")),
            (200, &[(CL, "5"), (CL, "5")], Some("5")),
            (200, &[(CL, "5, 6")], Some("")),
            (304, &[(CL, "5,5")], Some("5")),
            (304, &[(CL, "abc")], Some("")),
            (204, &[(CL, "5")], Some("")),
            (204, &[(TE, "gzip"), (CL, "5")], Some("")),
            (101, &[(CL, "5")], Some("")),
            (205, &[(CL, "0")], Some("0")),
            (200, &[(TE, "chunked"), (CL, "5")], Some("")),
            (200, &[(TE, "gzip, chunked")], None),
            (200, &[(TE, "chunked, chunked")], None),
            (200, &[(TE, "gzip"), (TE, "chunked")], None),
            (200, &[(TE, "xchunked")], None),
            (200, &[(TE, "")], None),
        ] {
            assert_eq!(settled(status, lines).as_deref(), length, "{status} {lines:?}");
        }
    }
}
