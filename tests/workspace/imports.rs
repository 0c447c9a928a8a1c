//! Reads the imports between the files of a crate from their text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The name of a module or an item, in segments from the crate's root on.
type ModulePath = Vec<String>;

/// A `use` of one name: where it comes from, and how it is called here.
#[derive(Clone, Debug)]
struct Import {
    from: ModulePath,
    name: String,
    public: bool,
}

/// One file: its module, what it imports, and its text without comments, strings and tests.
#[derive(Debug)]
struct Source {
    file: String,
    code: String,
    imports: Vec<Import>,
    /// Modules of which everything is imported.
    globs: Vec<ModulePath>,
}

/// The sources of one crate.
#[derive(Debug)]
pub(crate) struct Sources {
    modules: BTreeMap<ModulePath, Source>,
}

impl Sources {
    /// Reads `lib.rs` (and `main.rs`) in `folder` and all modules below; `skip` are folders of other
    /// crates. Files are named relative to `folder`.
    pub(crate) fn read(folder: &Path, skip: &[&str]) -> Self {
        let mut files = Vec::new();
        collect(folder, folder, skip, &mut files);
        let mut modules = BTreeMap::new();
        for file in files {
            let text = fs::read_to_string(folder.join(&file)).expect("a source can be read");
            let source = Source {
                code: without_tests(&without_comments_and_strings(&text)),
                file: file.clone(),
                imports: Vec::new(),
                globs: Vec::new(),
            };
            modules.insert(module_of(&file), source);
        }
        let mut sources = Sources { modules };
        sources.read_uses();
        sources
    }

    /// Every file with the files that it imports from.
    pub(crate) fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges = BTreeMap::new();
        for (module, source) in &self.modules {
            let paths = self.paths_in(module, source);
            let targets = paths.iter().filter_map(|path| self.defined_in(path, 0));
            edges.insert(&*source.file, targets.filter(|file| *file != source.file).collect());
        }
        edges
    }

    fn read_uses(&mut self) {
        let names: BTreeSet<ModulePath> = self.modules.keys().cloned().collect();
        for (module, source) in &mut self.modules {
            for declaration in uses(&source.code) {
                for (path, name) in flattened(declaration.tree) {
                    let Some(from) = absolute(&names, module, &path) else { continue };
                    match name.as_str() {
                        "*" => source.globs.push(from),
                        _ => source.imports.push(Import { from, name, public: declaration.public }),
                    }
                }
            }
        }
    }

    /// Every path of the crate that the code of a file names. Re-exports that the file itself does
    /// not use are left out: they say where a name can be found, and tie nothing together.
    fn paths_in(&self, module: &ModulePath, source: &Source) -> Vec<ModulePath> {
        let code = without_uses(&source.code);
        let used = |import: &&Import| !import.public || has_word(&code, &import.name);
        let used = source.imports.iter().filter(used);
        let mut found: Vec<ModulePath> = used.map(|import| import.from.clone()).collect();
        found.extend(source.globs.iter().cloned());
        let names: BTreeSet<ModulePath> = self.modules.keys().cloned().collect();
        for path in paths(&code) {
            let imported = source.imports.iter().find(|import| import.name == path[0]);
            match imported {
                // Only an imported module leads further; of a type the path names a member.
                Some(import) if names.contains(&import.from) => {
                    found.push(joined(&import.from, &path[1..]));
                }
                Some(_) => {}
                None => found.extend(absolute(&names, module, &path)),
            }
        }
        found
    }

    /// The file that defines what a path names.
    fn defined_in(&self, path: &[String], depth: usize) -> Option<&str> {
        assert!(depth < 32, "re-exports go round in a circle at {path:?}");
        let mut module: ModulePath = Vec::new();
        for (at, segment) in path.iter().enumerate() {
            let child = joined(&module, std::slice::from_ref(segment));
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let source = self.modules.get(&module)?;
            let rest = &path[at + 1..];
            let import = source.imports.iter().find(|import| import.name == *segment);
            if let Some(import) = import.filter(|import| import.from != path[..=at]) {
                return self.defined_in(&joined(&import.from, rest), depth + 1);
            }
            if defines(&source.code, segment) {
                return Some(&source.file);
            }
            for glob in &source.globs {
                let there = self.modules.get(glob);
                if there.is_some_and(|there| defines(&there.code, segment)) {
                    return there.map(|there| there.file.as_str());
                }
            }
            return Some(&source.file);
        }
        self.modules.get(&module).map(|source| source.file.as_str())
    }
}

/// Files of circles, each as a way that ends where it begins: the shortest one for each group of
/// files that import each other.
pub(crate) fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in edges.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(way) = way_back(edges, start) {
            // Whatever can be reached from here and leads back belongs to the same group.
            let group = reachable(edges, start);
            let group = group.into_iter().filter(|file| reachable(edges, file).contains(start));
            seen.extend(group);
            found.push(way);
        }
    }
    found
}

/// The shortest way from a file back to itself.
fn way_back<'a>(
    edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    start: &'a str,
) -> Option<Vec<&'a str>> {
    let mut ways = std::collections::VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in edges.get(way.last()?).into_iter().flatten() {
            let longer: Vec<&str> = way.iter().copied().chain([*next]).collect();
            if *next == start {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

fn reachable<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = edges.get(start).into_iter().flatten().copied().collect();
    while let Some(next) = open.pop() {
        if let Some((known, _)) = edges.get_key_value(next)
            && found.insert(*known)
        {
            open.extend(edges[known].iter().copied());
        }
    }
    found
}

fn collect(root: &Path, folder: &Path, skip: &[&str], files: &mut Vec<String>) {
    let entries = fs::read_dir(folder).expect("a folder of sources can be read");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let inner = path.strip_prefix(root).expect("below the root").display().to_string();
        if path.is_dir() {
            if name != "tests" && !skip.contains(&inner.as_str()) {
                collect(root, &path, skip, files);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(inner);
        }
    }
}

fn module_of(file: &str) -> ModulePath {
    let mut path: ModulePath = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    // `main.rs` is a crate of its own, which nothing imports: it keeps its name.
    let last = path.last().map(String::as_str);
    if last == Some("mod") || (path.len() == 1 && last == Some("lib")) {
        path.pop();
    }
    path
}

fn joined(path: &[String], rest: &[String]) -> ModulePath {
    path.iter().chain(rest).cloned().collect()
}

/// A path as it is written in a module, from the crate's root on; `None` if it leads out of the
/// crate or names something of the module itself.
fn absolute(
    modules: &BTreeSet<ModulePath>,
    module: &[String],
    path: &[String],
) -> Option<ModulePath> {
    let first = path.first()?.as_str();
    let mut base: &[String] = module;
    let mut rest = path;
    match first {
        "crate" => (base, rest) = (&[], &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|segment| segment == "super") {
                base = base.split_last()?.1;
                rest = &rest[1..];
            }
        }
        _ if modules.contains(&joined(module, &path[..1])) => {}
        _ => return None,
    }
    Some(joined(base, rest))
}

/// Replaces comments, strings and characters by blanks, so that braces and words in them do not
/// count.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let skipped = if rest.starts_with(b"//") {
            rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'"' {
            string(rest)
        } else if rest[0] == b'r' && !at.checked_sub(1).is_some_and(|at| is_word(bytes[at])) {
            raw_string(rest)
        } else if rest[0] == b'\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.push(b' ');
            at += skipped;
        }
    }
    String::from_utf8(out).expect("whole characters are left")
}

fn block_comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Length of `r"…"`, `r#"…"#` and so on; zero for any other word that begins with `r`.
fn raw_string(text: &[u8]) -> usize {
    let hashes = text[1..].iter().take_while(|b| **b == b'#').count();
    if text.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &text[2 + hashes..];
    let length = body.windows(end.len()).position(|window| window == end).unwrap_or(body.len());
    2 + hashes + length + end.len()
}

/// Length of a character; zero for a lifetime.
fn character(text: &[u8]) -> usize {
    match text {
        [_, b'\\', ..] => 3 + text[3..].iter().position(|b| *b == b'\'').unwrap_or(0) + 1,
        _ => {
            // One character of up to four bytes, then the quote.
            let close = text.iter().skip(2).take(4).position(|b| *b == b'\'');
            let width = close.map_or(0, |at| at + 1);
            let one = width > 0
                && std::str::from_utf8(&text[1..=width]).is_ok_and(|c| c.chars().count() == 1);
            if one { width + 2 } else { 0 }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Removes what follows `#[cfg(test)]`: a module, a function or a declaration.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        rest = &rest[at + MARK.len()..];
        rest = &rest[item_length(rest)..];
    }
    out.push_str(rest);
    out
}

/// Length of the item at the beginning of a text: to the `;`, or to the end of its braces.
fn item_length(code: &str) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b';' if depth == 0 => return at + 1,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// A `use` declaration: its tree, and whether it is a re-export.
struct Use<'a> {
    tree: &'a str,
    public: bool,
}

/// Where `use` declarations begin and end, the `;` included.
fn use_spans(code: &str) -> Vec<(usize, usize)> {
    let bytes = code.as_bytes();
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find("use ") {
        let at = from + found;
        let whole = at == 0 || !is_word(bytes[at - 1]);
        let end = code[at..].find(';').map_or(code.len(), |length| at + length + 1);
        from = at + 4;
        if whole {
            spans.push((at, end));
            from = end;
        }
    }
    spans
}

fn uses(code: &str) -> Vec<Use<'_>> {
    let parse = |(start, end): (usize, usize)| {
        let before = code[..start].trim_end();
        let public = before.ends_with("pub")
            || (before.ends_with(')') && {
                let open = before.rfind('(').unwrap_or(0);
                before[..open].ends_with("pub")
            });
        Use { tree: code[start + 4..end].trim_end_matches(';'), public }
    };
    use_spans(code).into_iter().map(parse).collect()
}

fn without_uses(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut from = 0;
    for (start, end) in use_spans(code) {
        out.push_str(&code[from..start]);
        from = end;
    }
    out.push_str(&code[from..]);
    out
}

/// The paths of a `use` tree, each with the name that it gets.
fn flattened(tree: &str) -> Vec<(Vec<String>, String)> {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let prefix: Vec<String> = segments(&tree[..open]);
        let close = tree.rfind('}').unwrap_or(tree.len());
        let inner = split_list(&tree[open + 1..close]);
        let below = inner.into_iter().flat_map(flattened);
        return below
            .map(|(path, name)| match path.as_slice() {
                [only] if only == "self" => {
                    let own = if name == "self" { prefix.last().cloned() } else { Some(name) };
                    (prefix.clone(), own.unwrap_or_default())
                }
                _ => (joined(&prefix, &path), name),
            })
            .collect();
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (segments(path), Some(alias.trim().to_owned())),
        None => (segments(tree), None),
    };
    let Some(last) = path.last().cloned() else { return Vec::new() };
    if last == "*" {
        return vec![(path[..path.len() - 1].to_vec(), last)];
    }
    vec![(path, alias.unwrap_or(last))]
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Splits at the commas outside of braces.
fn split_list(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0usize, 0);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// All paths of two or more segments in a code.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut current: Vec<String> = Vec::new();
    let bytes = code.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if is_word(bytes[at]) && !bytes[at].is_ascii_digit() {
            let length = bytes[at..].iter().take_while(|b| is_word(**b)).count();
            current.push(code[at..at + length].to_owned());
            at += length;
            if code[at..].starts_with("::") {
                at += 2;
                continue;
            }
        } else {
            at += 1;
        }
        if current.len() > 1 {
            found.push(std::mem::take(&mut current));
        }
        current.clear();
    }
    found
}

fn has_word(code: &str, word: &str) -> bool {
    let bytes = code.as_bytes();
    code.match_indices(word).any(|(at, _)| {
        let end = at + word.len();
        let begins = at == 0 || !is_word(bytes[at - 1]);
        begins && !bytes.get(end).is_some_and(|b| is_word(*b))
    })
}

/// Whether a code defines an item of this name.
fn defines(code: &str, name: &str) -> bool {
    const KINDS: [&str; 8] =
        ["fn", "struct", "enum", "trait", "type", "const", "static", "macro_rules!"];
    KINDS.iter().any(|kind| has_word(code, &format!("{kind} {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().expect("a folder");
        for (file, text) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        let sources = Sources::read(folder.path(), &[]);
        (folder, sources)
    }

    fn arrows(sources: &Sources) -> Vec<String> {
        let edges = sources.edges();
        let arrows = edges.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to)));
        arrows.map(|(from, to)| format!("{from} -> {to}")).collect()
    }

    #[test]
    fn imports_are_found_however_they_are_written() {
        let (_folder, sources) = crate_of(&[
            ("lib.rs", "mod a; mod b; pub use b::deep::Deep;"),
            ("a.rs", "use crate::b::{self, deep::{Deep as D, other}}; fn f() { b::g() }"),
            ("b/mod.rs", "mod deep; pub(crate) use deep::Deep; pub fn g() { deep::h() }"),
            ("b/deep.rs", "pub struct Deep; fn h() { super::super::c::x(); }"),
            ("c.rs", "use std::fmt; fn x<'a>(c: &'a str) -> crate::Deep { '{'; r#\"}\"#; }"),
        ]);
        assert_eq!(
            arrows(&sources),
            [
                "a.rs -> b/deep.rs",
                "a.rs -> b/mod.rs",
                "b/deep.rs -> c.rs",
                "b/mod.rs -> b/deep.rs",
                "c.rs -> b/deep.rs",
            ]
        );
        let edges = sources.edges();
        assert_eq!(circles(&edges), [["b/deep.rs", "c.rs", "b/deep.rs"]]);
    }

    #[test]
    fn comments_strings_and_tests_import_nothing() {
        let (_folder, sources) = crate_of(&[
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "// use crate::b::X;\n/* crate::b::X /* */ */ const T: &str = \"crate::b::X\";\n\
                 #[cfg(test)]\nuse crate::b::X;\n#[cfg(test)]\nmod tests { use crate::b::X; }",
            ),
            ("b.rs", "pub struct X;"),
        ]);
        assert_eq!(arrows(&sources), Vec::<String>::new());
    }
}
