//! The form of the cases: what a file, a case and a step may say. `README.md` describes it for who
//! writes cases.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// A file of cases on one subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What the cases are about, for who reads them.
    #[allow(dead_code, reason = "read by people")]
    about: String,
    /// The policy document; the default policy when absent. Peers run files without one only.
    pub policy: Option<String>,
    /// The cases, in the order in which they run.
    pub cases: Vec<Case>,
}

/// Some exchanges about one URL or a few below it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The behaviour, as a sentence; the URLs of the case are made of it.
    pub name: String,
    /// The section that demands or allows it.
    pub rfc: Option<String>,
    /// The folder of its URLs, by which a policy chooses a route.
    pub route: Option<String>,
    /// Whether it is about one version of HTTP.
    pub only: Option<Version>,
    /// What nginx does instead, in the words of the test.
    pub nginx: Option<String>,
    /// The exchanges.
    pub steps: Vec<Step>,
}

impl Case {
    /// What its URLs begin with.
    pub fn base(&self, file: &str) -> String {
        let route = self.route.as_ref().map(|route| format!("/{route}")).unwrap_or_default();
        format!("/{file}{route}/{}", slug(&self.name))
    }

    /// Whether a peer can be asked for a second opinion: it is spoken to over HTTP/1.1, and nothing
    /// tells when it has ended what it does in the background.
    pub fn peers(&self) -> bool {
        self.only != Some(Version::Http2) && !self.steps.iter().any(|step| step.background)
    }
}

/// A version of HTTP, between the client and Outrigger.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// HTTP/1.1, or what the request line says.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// One exchange: a request, what the upstream sees and answers, and what the client gets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How much time passes first.
    #[serde(default, deserialize_with = "duration")]
    pub after: Duration,
    /// Method, and what follows the URL of the case; `GET` alone when absent.
    #[serde(default = "get")]
    pub request: String,
    /// Fields of the request; `~` takes away one that is always sent.
    #[serde(default)]
    pub with: Fields,
    /// The content of the request.
    pub content: Option<String>,

    /// Fields that the upstream must see; `~` for those that it must not. `:method`, `:target` and
    /// `:content` name the rest of the request.
    #[serde(default)]
    pub sees: Fields,
    /// The status of the upstream's response. A step without it (and without the next three) must be
    /// answered without the upstream.
    pub answer: Option<u16>,
    /// Fields of that response; `~` takes away `Date` or `Content-Length`.
    #[serde(default)]
    pub fields: Fields,
    /// Its content; `body N` in step N when absent.
    pub body: Option<String>,
    /// How that content ends, or that there is no response.
    #[serde(default)]
    pub framing: Framing,
    /// Further requests to the upstream in this step, with `sees`, `answer`, `fields`, `body` and
    /// `framing` of their own.
    #[serde(default)]
    pub then: Vec<Step>,
    /// Whether the upstream is asked behind the response to the client.
    #[serde(default)]
    pub background: bool,

    /// The status that the client gets: that of `from` when absent.
    pub status: Option<u16>,
    /// Fields that the client must get; `~` for those that it must not.
    #[serde(default)]
    pub gets: Fields,
    /// The content that the client gets: that of `from` when absent.
    pub serves: Option<String>,
    /// The step whose response is served; by default this one, and one that asks nobody serves the
    /// last one with content.
    pub from: Option<usize>,
    /// Whether the client must see the content break off.
    #[serde(default)]
    pub truncated: bool,
    /// Parameters of `Cache-Status`: `hit`, `fwd=stale`, `!stored`.
    pub cache: Option<String>,
}

impl Step {
    /// Whether the upstream must be asked.
    pub fn asks(&self) -> bool {
        let answered = self.answer.is_some() || self.body.is_some() || !self.fields.0.is_empty();
        answered || self.framing != Framing::Length
    }

    /// This step and what comes after it in the same one, as far as the upstream is asked.
    pub fn answers_in_order(&self) -> impl Iterator<Item = &Step> {
        std::iter::once(self).filter(|step| step.asks()).chain(&self.then)
    }

    /// The content of the upstream's response, in the step at this place of the case.
    pub fn content_of_answer(&self, at: usize) -> String {
        self.body.clone().unwrap_or_else(|| format!("body {}", at + 1))
    }

    /// The status that the upstream answers with.
    pub fn answers(&self) -> u16 {
        self.answer.unwrap_or(200)
    }

    /// The request's method.
    pub fn method(&self) -> &str {
        self.request.split(' ').next().unwrap_or_default()
    }

    /// What follows the URL of the case.
    pub fn suffix(&self) -> &str {
        self.request.split_once(' ').map_or("", |(_, suffix)| suffix)
    }
}

/// How the upstream ends its response.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// With the length that it has declared.
    #[default]
    Length,
    /// With the last chunk.
    Chunked,
    /// By closing the connection, without a declared length.
    Close,
    /// By closing the connection one byte before the declared length.
    Truncated,
    /// By closing the connection before the last chunk.
    Unended,
    /// There is none: it closes the connection.
    Nothing,
}

/// Fields in order: a name, and its value, its values for a line each, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<(String, Value)>);

/// What is said of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// It is not there.
    Absent,
    /// It has these lines.
    Lines(Vec<String>),
}

impl Fields {
    /// Whether something is said of this field.
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found.eq_ignore_ascii_case(name))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mapping = serde_yaml::Mapping::deserialize(deserializer)?;
        let read = |value: &serde_yaml::Value| match value {
            serde_yaml::Value::String(text) => Some(text.clone()),
            serde_yaml::Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let field = |(name, value): (&serde_yaml::Value, &serde_yaml::Value)| {
            let name = read(name)?;
            let value = match value {
                serde_yaml::Value::Null => Value::Absent,
                serde_yaml::Value::Sequence(lines) => {
                    Value::Lines(lines.iter().map(read).collect::<Option<_>>()?)
                }
                line => Value::Lines(vec![read(line)?]),
            };
            Some((name, value))
        };
        let fields = mapping.iter().map(field).collect::<Option<Vec<_>>>();
        let why = "a field has a text, a number, a list of these, or ~ for absent";
        fields.map(Fields).ok_or_else(|| serde::de::Error::custom(why))
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let why = || serde::de::Error::custom(format!("{text}: a time is a number and s, m, h or d"));
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(why)?;
    let number: u64 = number.parse().map_err(|_| why())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(why()),
    };
    Ok(Duration::from_secs(number * seconds))
}

/// The folder of the files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exchanges/cases")
}

/// Reads a file of [`folder`] by its name without the ending. Panics with place and reason when it
/// is not of this form.
pub fn read(name: &str) -> File {
    let path = folder().join(format!("{name}.yaml"));
    let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let file: File =
        serde_yaml::from_str(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut slugs = HashSet::new();
    for case in &file.cases {
        assert!(slugs.insert(slug(&case.name)), "{name}: two cases are called {:?}", case.name);
        assert!(!case.steps.is_empty(), "{name}: {:?} has no steps", case.name);
    }
    file
}

/// A name in letters, digits and hyphens.
fn slug(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' };
    let words: String = name.chars().map(kept).collect();
    words.split_whitespace().collect::<Vec<_>>().join("-")
}
