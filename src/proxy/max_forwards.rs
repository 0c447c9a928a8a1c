//! `Max-Forwards`: how many more hops a TRACE or OPTIONS may take (RFC 9110 §7.6.2).

use http::header::MAX_FORWARDS;
use http::{HeaderValue, Method, Request};
use outrigger_semantics::fields::single;

/// Takes one hop off. `true` if none is left: then the request is not forwarded, and this process
/// is its final recipient. A value that is no number is passed on as it is, like other methods'.
pub(crate) fn count_down<B>(request: &mut Request<B>) -> bool {
    if !matches!(*request.method(), Method::OPTIONS | Method::TRACE) {
        return false;
    }
    let headers = request.headers_mut();
    let Some(text) = single(headers, &MAX_FORWARDS).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    // A number beyond ours is more hops than there can be.
    let hops = text.parse::<u64>().unwrap_or(u64::MAX);
    let Some(left) = hops.checked_sub(1) else { return true };
    headers.insert(MAX_FORWARDS, HeaderValue::from(left));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_trace_and_options_count_down() {
        for (method, value, left) in [
            ("OPTIONS", "1", Ok("0")),
            ("TRACE", "007", Ok("6")),
            ("TRACE", "99999999999999999999999", Ok("18446744073709551614")),
            ("OPTIONS", "0", Err(())),
            ("TRACE", "000", Err(())),
            ("GET", "0", Ok("0")),
            ("OPTIONS", "-1", Ok("-1")),
            ("OPTIONS", "", Ok("")),
            ("OPTIONS", "1, 2", Ok("1, 2")),
        ] {
            let mut request =
                Request::builder().method(method).header(MAX_FORWARDS, value).body(()).unwrap();
            let is_last = count_down(&mut request);
            let after = request.headers()[MAX_FORWARDS].to_str().unwrap();
            assert_eq!(if is_last { Err(()) } else { Ok(after) }, left, "{method} {value}");
        }
    }
}
