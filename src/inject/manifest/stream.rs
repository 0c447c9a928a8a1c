//! Cutting a stream of YAML into documents, with their text as it is.

/// One document, with the line that begins it.
pub(super) struct Part<'a> {
    /// Lines before this one in the stream.
    pub line: usize,
    /// The text as it was given, markers and comments included.
    pub text: &'a str,
}

/// Cuts a stream at its `---` lines. A block of text cannot hold such a line: it would end it.
pub(super) fn documents(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut first, mut at, mut marked) = (0, 0, 0, false);
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            // Comments before the first marker are no document of their own.
            if marked || !is_blank(&text[start..at]) {
                parts.push(Part { line: first, text: &text[start..at] });
                (start, first) = (at, i);
            }
            marked = true;
        }
        at += line.len();
    }
    parts.push(Part { line: first, text: &text[start..] });
    parts
}

impl<'a> Part<'a> {
    /// Whether it holds nothing but comments.
    pub fn is_blank(&self) -> bool {
        is_blank(self.text)
    }

    /// The comments and the marker before the document. A marker on the line of the document's own
    /// first value is told apart from it.
    pub fn preamble(&self) -> (&'a str, &'static str) {
        let blank = self.text.split_inclusive('\n').take_while(|line| is_blank_line(line));
        let (preamble, rest) = self.text.split_at(blank.map(str::len).sum());
        (preamble, if rest.starts_with("---") { "---\n" } else { "" })
    }
}

fn is_blank(text: &str) -> bool {
    text.lines().all(is_blank_line)
}

fn is_blank_line(line: &str) -> bool {
    let line = line.strip_prefix("---").unwrap_or(line).trim();
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_without_losing_a_byte() {
        let cases = [
            ("", 1),
            ("a: 1\n", 1),
            ("---\na: 1\n---\nb: 2", 2),
            ("# c\n---\n# d\na: 1\n--- # e\nb: 2\n", 2),
            ("a: 1\n---\n---\nb: 2\n", 3),
            ("---\n---\na: 1\n", 2),
            ("a: |\n  ---\n  x\n----\nb: 1\n", 1),
            ("--- {a: 1}\n--- {b: 1}\n", 2),
        ];
        for (text, count) in cases {
            let parts = documents(text);
            assert_eq!(parts.len(), count, "{text:?}");
            assert_eq!(parts.iter().map(|part| part.text).collect::<String>(), text);
            for part in &parts {
                let before: usize = part.text.as_ptr() as usize - text.as_ptr() as usize;
                assert_eq!(text[..before].lines().count(), part.line, "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_before_a_document_is_known() {
        let preamble = |text| documents(text)[0].preamble();
        assert_eq!(preamble("# a\n---\n# b\nc: 1\n"), ("# a\n---\n# b\n", ""));
        assert_eq!(preamble("--- {a: 1}\n"), ("", "---\n"));
    }
}
