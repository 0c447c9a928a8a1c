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
    /// Takes from `request` the fields that `response` names in `Vary`.
    pub fn of(response: &HeaderMap, request: &HeaderMap) -> Self {
        let selectors = vary_names(response)
            .into_iter()
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

/// One member such as `de; q=0.8` as its weight in thousandths and its text without white space,
/// in lower case, without `q=1`.
fn negotiation_member(member: &[u8]) -> (u32, Vec<u8>) {
    let mut weight = 1000;
    let mut text = Vec::with_capacity(member.len());
    for part in split_unquoted(member, b';').map(<[u8]>::trim_ascii) {
        let part: Vec<u8> =
            part.iter().filter(|b| !b.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect();
        if let Some(value) = part.strip_prefix(b"q=").and_then(thousandths) {
            weight = value;
            continue;
        }
        if !text.is_empty() {
            text.push(b';');
        }
        text.extend_from_slice(&part);
    }
    if weight != 1000 {
        text.extend_from_slice(format!(";q={weight}").as_bytes());
    }
    (weight, text)
}

/// A weight (RFC 9110 §12.4.2) in thousandths.
fn thousandths(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<f32>().ok())
        .filter(|weight| (0.0..=1.0).contains(weight))
        .map(|weight| (weight * 1000.0).round() as u32)
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
    fn variants_are_told_apart_and_absence_is_a_value() {
        let response = map(&[("vary", "Foo, Bar")]);
        let variant = Variant::of(&response, &map(&[("foo", "1")]));
        assert!(variant.matches(&map(&[("foo", "1"), ("other", "x")])));
        assert!(!variant.matches(&map(&[("foo", "2")])));
        assert!(!variant.matches(&map(&[("foo", "1"), ("bar", "")])));
    }

    #[test]
    fn spelling_does_not_make_a_variant() {
        let response = map(&[("vary", "accept-language, x-list")]);
        let variant =
            Variant::of(&response, &map(&[("accept-language", "de, en"), ("x-list", "1,2")]));
        assert!(variant.matches(&map(&[
            ("accept-language", "DE,en;q=1.0"),
            ("x-list", "1"),
            ("x-list", " 2 "),
        ])));
        assert!(!variant.matches(&map(&[("accept-language", "en;q=0.5, de"), ("x-list", "1,2")])));
    }

    proptest::proptest! {
        #[test]
        fn a_request_matches_the_variant_it_made(value in "[ -~]{0,40}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let mut request = HeaderMap::new();
                request.insert(ACCEPT_LANGUAGE, value);
                let variant = Variant::of(&map(&[("vary", "accept-language")]), &request);
                proptest::prop_assert!(variant.matches(&request));
            }
        }
    }
}
