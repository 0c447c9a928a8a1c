//! The address of istiod, as the bootstrap file and the environment write it.

use outrigger_diagnostic::Diagnostic;

/// The address of a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsAddress {
    /// Whether the connection uses TLS (`grpcs`).
    pub tls: bool,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl XdsAddress {
    /// Reads `grpcs://host:port` or `grpc://host:port`.
    ///
    /// # Errors
    /// What is wrong and what to write. The caller adds the place of the address.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        let fix = "write grpcs://istiod.istio-system.svc:15012, or grpc://host:port without TLS";
        let wrong = |why: &str| Diagnostic::new(format!("\"{text}\" {why}")).fix(fix);
        let (tls, rest) = match (text.strip_prefix("grpcs://"), text.strip_prefix("grpc://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(wrong("has no scheme that is known")),
        };
        let uri: http::uri::Authority =
            rest.trim_end_matches('/').parse().map_err(|_| wrong("is no address"))?;
        if uri.host().is_empty() || uri.as_str().contains('@') {
            return Err(wrong("has no usable host"));
        }
        let port = uri.port_u16().ok_or_else(|| wrong("has no port"))?;
        Ok(XdsAddress { tls, host: uri.host().to_owned(), port })
    }

    /// The address as an HTTP URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

impl std::fmt::Display for XdsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "grpcs" } else { "grpc" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print() {
        for text in
            ["grpcs://istiod.istio-system.svc:15012", "grpc://127.0.0.1:15010", "grpc://[::1]:1"]
        {
            assert_eq!(XdsAddress::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "istiod:15012",
            "https://istiod:15012",
            "grpcs://istiod",
            "grpc://",
            "grpc://a@b:1",
            "grpc://a:1/x",
        ] {
            let error = XdsAddress::parse(bad).unwrap_err().to_string();
            assert!(error.contains("write grpcs://"), "{bad}");
        }
    }
}
