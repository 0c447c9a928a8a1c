//! The sides of a pod's traffic, as the annotation and the injection file write them under the name
//! `mode`.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// Which sides of a pod's traffic Outrigger takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Requests to this pod.
    pub inbound: bool,
    /// Requests of this pod.
    pub outbound: bool,
}

impl Default for Sides {
    fn default() -> Self {
        Sides { inbound: true, outbound: false }
    }
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.inbound, self.outbound) {
            (true, false) => "inbound",
            (false, true) => "outbound",
            _ => "inbound,outbound",
        })
    }
}

/// A text that names no side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no mode; write inbound, outbound or inbound,outbound")]
pub struct NotSides(String);

impl FromStr for Sides {
    type Err = NotSides;

    fn from_str(text: &str) -> Result<Self, NotSides> {
        let mut sides = Sides { inbound: false, outbound: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "inbound" => sides.inbound = true,
                "outbound" => sides.outbound = true,
                _ => return Err(NotSides(text.to_owned())),
            }
        }
        Ok(sides)
    }
}

impl<'de> Deserialize<'de> for Sides {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SidesVisitor)
    }
}

/// Reads the text within a visit: the YAML library adds a place only to errors that a visitor returns.
struct SidesVisitor;

impl Visitor<'_> for SidesVisitor {
    type Value = Sides;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inbound, outbound or inbound,outbound")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Sides, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_read_in_any_order() {
        for (text, shown) in [
            ("inbound", "inbound"),
            ("outbound", "outbound"),
            ("outbound, inbound", "inbound,outbound"),
        ] {
            assert_eq!(text.parse::<Sides>().unwrap().to_string(), shown);
        }
        for wrong in ["", ",", "inbound,", "in", "Inbound"] {
            assert!(wrong.parse::<Sides>().is_err(), "{wrong}");
        }
    }
}
