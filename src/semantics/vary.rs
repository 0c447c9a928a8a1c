//! The secondary key (RFC 9111 §4.1): which request fields selected a stored response.
//!
//! Values are compared after a normalisation that cannot change their meaning, since a cache that
//! compares raw text stores the same page many times. Lines are joined and white space around list
//! members goes. Members of the negotiation fields are compared without case, in the order of their
//! weights.

use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderMap, HeaderName, VARY,
};

use crate::fields::{self, members, split_unquoted};

/// Whether `Vary` holds `*` in any line or position: then no other request matches.
pub fn has_star(headers: &HeaderMap) -> bool {
    fields::list(headers, &VARY).any(|member| member == b"*")
}

/// Whether `Vary` has a member that is neither a field name nor `*`. What it was meant to name is not
/// known, so that it counts like `*` (RFC 9110 §12.5.5).
pub fn is_unreadable(headers: &HeaderMap) -> bool {
    fields::list(headers, &VARY)
        .any(|member| member != b"*" && HeaderName::from_bytes(member).is_err())
}

/// The fields that a response names in `Vary`, in lower case and sorted, without repetition.
pub fn vary_names(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = fields::list(headers, &VARY)
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

/// A selecting field with its normalised value; `None` when the request did not have it.
type Selector = (HeaderName, Option<Box<[u8]>>);

/// The selecting fields of a stored response with the values its request had.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Variant {
    selectors: Box<[Selector]>,
}

impl Variant {
    /// Takes from `request` the fields that `response` names in `Vary`, but for those that are
    /// `ignored` by policy.
    pub fn of(response: &HeaderMap, request: &HeaderMap, ignored: &[HeaderName]) -> Self {
        let selectors = vary_names(response)
            .into_iter()
            .filter(|name| !ignored.contains(name))
            .map(|name| {
                let value = normalised(request, &name);
                (name, value)
            })
            .collect();
        Variant { selectors }
    }

    /// The variant that a request selects among responses that vary by these fields.
    pub fn of_names<'a>(
        names: impl IntoIterator<Item = &'a HeaderName>,
        request: &HeaderMap,
    ) -> Self {
        let selectors =
            names.into_iter().map(|name| (name.clone(), normalised(request, name))).collect();
        Variant { selectors }
    }

    /// A variant made from what [`Variant::selectors`] gave.
    pub fn from_selectors(
        selectors: impl IntoIterator<Item = (HeaderName, Option<Box<[u8]>>)>,
    ) -> Self {
        Variant { selectors: selectors.into_iter().collect() }
    }

    /// The selecting fields with their normalised values.
    pub fn selectors(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.selectors.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// Whether the response does not vary at all.
    pub fn is_invariant(&self) -> bool {
        self.selectors.is_empty()
    }

    /// Whether a request selects this variant.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.selectors.iter().all(|(name, value)| normalised(request, name) == *value)
    }

    /// The names of the selecting fields.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.selectors.iter().map(|(name, _)| name)
    }

    /// Bytes that are equal for equal variants only. Stored in Redis: they must not change.
    pub fn fingerprint(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in &self.selectors {
            out.extend_from_slice(name.as_str().as_bytes());
            out.push(b'\n');
            match value {
                Some(value) => {
                    out.push(b'=');
                    out.extend_from_slice(value);
                }
                None => out.push(b'-'),
            }
            out.push(b'\n');
        }
        out
    }

    /// Bytes of memory behind this value, as the memory tier counts them.
    pub fn weight(&self) -> usize {
        self.selectors
            .iter()
            .map(|(name, value)| 56 + name.as_str().len() + value.as_ref().map_or(0, |v| v.len()))
            .sum()
    }
}

/// A request field in the form in which it is compared; `None` when absent.
fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut lines = request.get_all(name).iter().peekable();
    lines.peek()?;
    let negotiates = [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name);
    let parts = lines.flat_map(|line| members(line.as_bytes()));
    let joined = if negotiates {
        let mut weighed: Vec<(u32, Vec<u8>)> = parts.map(negotiation_member).collect();
        // A stable sort: among equal weights the order may be a preference (RFC 9110 §12.5.4).
        weighed.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        weighed.iter().map(|(_, text)| text.as_slice()).collect::<Vec<_>>().join(&b',')
    } else {
        // An unknown field: white space around commas goes, all else counts.
        let whole = request
            .get_all(name)
            .iter()
            .flat_map(|line| split_unquoted(line.as_bytes(), b',').map(<[u8]>::trim_ascii));
        whole.collect::<Vec<_>>().join(&b',')
    };
    Some(joined.into_boxed_slice())
}

/// One member such as `de; q=0.8` as its weight in thousandths and its text: what has no case (ranges,
/// languages, codings, names of parameters) in lower case, values of parameters as they are, and
/// without `q=1`.
fn negotiation_member(member: &[u8]) -> (u32, Vec<u8>) {
    let mut weight = 1000;
    let mut text = Vec::with_capacity(member.len());
    for (nth, part) in split_unquoted(member, b';').map(<[u8]>::trim_ascii).enumerate() {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or(part);
        let value = part.get(name.len() + 1..);
        if nth > 0
            && name.eq_ignore_ascii_case(b"q")
            && let Some(stated) = value.and_then(thousandths)
        {
            weight = stated;
            continue;
        }
        if nth > 0 {
            text.push(b';');
        }
        text.extend(name.iter().map(u8::to_ascii_lowercase));
        if let Some(value) = value {
            text.push(b'=');
            text.extend_from_slice(value);
        }
    }
    if weight != 1000 {
        text.extend_from_slice(format!(";q={weight}").as_bytes());
    }
    (weight, text)
}

/// A weight in thousandths: at most three digits behind a zero, or zeros behind a one
/// (RFC 9110 §12.4.2). Anything else is no weight.
pub(crate) fn thousandths(value: &[u8]) -> Option<u32> {
    let (whole, digits) = match value {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| digits.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2);
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_star_anywhere_matches_nothing() {
        for lines in [&["*"][..], &["*, foo"], &["foo", "*"], &["", "*"], &[", *"]] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(VARY, HeaderValue::from_static(line));
            }
            assert!(has_star(&headers), "{lines:?}");
        }
    }

    #[test]
    fn a_member_that_is_no_field_name_is_told() {
        for line in [
            "Accept-Encoding; Cookie",
            "Accept X-User",
            ": X-User",
            "X-User;",
            "\"X-User\"",
            "\"X-User, Cookie",
            "Accept, X-User:",
            "Accept,\tX User",
            "X-\u{e9}",
            "{Cookie}",
        ] {
            let mut headers = HeaderMap::new();
            headers.append(VARY, HeaderValue::from_static("Accept"));
            headers.append(VARY, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            assert!(is_unreadable(&headers), "{line}");
        }
        for line in ["", ",", "Accept, , X-User ,", "*", "Accept,*", "x_user"] {
            assert!(!is_unreadable(&map(&[("vary", line)])), "{line}");
        }
    }

    #[test]
    fn variants_are_told_apart_and_absence_is_a_value() {
        let response = map(&[("vary", "Foo, Bar")]);
        let variant = Variant::of(&response, &map(&[("foo", "1")]), &[]);
        assert!(variant.matches(&map(&[("foo", "1"), ("other", "x")])));
        assert!(!variant.matches(&map(&[("foo", "2")])));
        assert!(!variant.matches(&map(&[("foo", "1"), ("bar", "")])));
    }

    #[test]
    fn spelling_does_not_make_a_variant() {
        let response = map(&[("vary", "accept-language, x-list")]);
        let variant =
            Variant::of(&response, &map(&[("accept-language", "de, en"), ("x-list", "1,2")]), &[]);
        assert!(variant.matches(&map(&[
            ("accept-language", "DE,en;q=1.0"),
            ("x-list", "1"),
            ("x-list", " 2 "),
        ])));
        assert!(!variant.matches(&map(&[("accept-language", "en;q=0.5, de"), ("x-list", "1,2")])));
    }

    #[test]
    fn what_may_mean_something_else_makes_a_variant() {
        let same = |name: &'static str, a: &'static str, b: &'static str| {
            let response = map(&[("vary", name)]);
            Variant::of(&response, &map(&[(name, a)]), &[]).matches(&map(&[(name, b)]))
        };
        for (a, b) in [
            ("text/html;profile=\"urn:Foo\"", "text/html;profile=\"urn:foo\""),
            ("text/html;version=A", "text/html;version=a"),
            ("text/html;v=\"d e\"", "text/html;v=\"de\""),
            ("text/html;q=0.5", "text/html;q=5e-1"),
            ("text/html", "text/html;q=1e0"),
            ("text/html", "text/html;q=+1"),
            ("text/html", "text/html;q=1.0000"),
            ("text/html;q=0.1", "text/html;q=.1"),
        ] {
            assert!(!same("accept", a, b), "{a} {b}");
        }
        assert!(!same("accept-language", "d e", "de"));
        for (a, b) in [
            ("text/html;Level=1", "TEXT/HTML ; level=1;q=1.000"),
            ("text/html;q=0.50", "text/html; Q=0.5"),
            ("a/b;q=1.", "a/b"),
        ] {
            assert!(same("accept", a, b), "{a} {b}");
        }
        assert!(same("accept-encoding", "GZIP, br;q=0.5", "gzip,br;q=0.500"));
    }

    proptest::proptest! {
        #[test]
        fn a_request_matches_the_variant_it_made(value in "[ -~]{0,40}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let mut request = HeaderMap::new();
                request.insert(ACCEPT_LANGUAGE, value);
                let variant = Variant::of(&map(&[("vary", "accept-language")]), &request, &[]);
                proptest::prop_assert!(variant.matches(&request));
            }
        }
    }
}
