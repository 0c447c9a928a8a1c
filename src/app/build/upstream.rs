//! The upstream of a plan: its URL taken apart, endpoints, TLS, and checks of what is written.

use std::path::Path;

use outrigger_diagnostic::Diagnostic;
use outrigger_proxy::{
    Address, ConnectionLimits, EjectionSettings, HealthCheckSettings, Protocol, TlsSettings,
    UpstreamSettings,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::app::config::UpstreamConfig;

/// What a URL says about the upstream.
struct FromUrl {
    address: Address,
    authority: String,
    tls: bool,
    protocol: Protocol,
}

/// What is configured about the upstream; a process whose requests all name theirs needs no URL.
pub(super) fn upstream(
    config: &UpstreamConfig,
    limits: &ConnectionLimits,
    named: bool,
) -> Result<UpstreamSettings, Diagnostic> {
    let from_url = match &config.url {
        Some(url) => Some(parse_url(url)?),
        None if named && config.endpoints.is_empty() => None,
        None => {
            let fix = "say --upstream http://127.0.0.1:8080, or write it into the bootstrap file";
            return Err(Diagnostic::new("it is missing").at("upstream.url").fix(fix));
        }
    };
    let endpoints = match &from_url {
        Some(url) if config.endpoints.is_empty() => vec![url.address.clone()],
        _ => config.endpoints.iter().map(|text| parse_endpoint(text)).collect::<Result<_, _>>()?,
    };
    let tls = from_url.as_ref().map(|url| tls(config, url)).transpose()?.flatten();
    check_ejection(&config.ejection)?;
    Ok(UpstreamSettings {
        endpoints,
        tls,
        protocol: from_url.as_ref().map_or(Protocol::Http1, |url| url.protocol),
        balance: config.balance,
        host_header: config.host_header,
        authority: from_url.map(|url| url.authority).unwrap_or_default(),
        health_check: config.health_check.as_ref().map(bounded),
        ejection: config.ejection.clone(),
        timeouts: config.timeouts,
        pool: config.pool.clone(),
        header_count_max: limits.header_count_max.max(256),
        header_bytes_max: limits.header_bytes_max.max(256 * 1024),
    })
}

/// Health checks at most ten times a second, with thresholds of at least one.
fn bounded(check: &HealthCheckSettings) -> HealthCheckSettings {
    HealthCheckSettings {
        interval_ms: check.interval_ms.max(100),
        healthy_after: check.healthy_after.max(1),
        unhealthy_after: check.unhealthy_after.max(1),
        ..check.clone()
    }
}

fn check_ejection(ejection: &EjectionSettings) -> Result<(), Diagnostic> {
    if ejection.eject_for_ms == 0 {
        return Err(Diagnostic::new("0 is no time")
            .at("upstream.ejection.ejectForMs")
            .fix("write 5000, or enabled: false"));
    }
    if ejection.eject_ms_max < ejection.eject_for_ms {
        let (max, first) = (ejection.eject_ms_max, ejection.eject_for_ms);
        return Err(Diagnostic::new(format!("{max} is less than ejectForMs, {first}"))
            .at("upstream.ejection.ejectMsMax")
            .fix("raise it or lower that"));
    }
    Ok(())
}

fn tls(config: &UpstreamConfig, from_url: &FromUrl) -> Result<Option<TlsSettings>, Diagnostic> {
    if !from_url.tls {
        if config.tls.server_name.is_some() || config.tls.ca_file.is_some() {
            return Err(Diagnostic::new("the URL is not https")
                .at("upstream.tls")
                .fix("write https://… or leave tls out"));
        }
        return Ok(None);
    }
    let host = match &from_url.address {
        // A certificate names an IPv6 address without brackets.
        Address::Tcp { host, .. } => host.trim_matches(['[', ']']).to_owned(),
        Address::Unix(_) => String::new(),
    };
    let server_name = config.tls.server_name.clone().unwrap_or(host);
    // Without a name the certificate could not be verified.
    if server_name.is_empty() {
        return Err(Diagnostic::new("it is missing").at("upstream.tls.serverName"));
    }
    if let Some(path) = &config.tls.ca_file {
        check_certificates(path)?;
    }
    Ok(Some(TlsSettings { server_name, ca_file: config.tls.ca_file.clone() }))
}

/// Checks a file of trusted certificates, so that a mistake is reported with its field.
fn check_certificates(path: &Path) -> Result<(), Diagnostic> {
    let wrong = |reason: String| {
        let reason = format!("{}: {reason}", path.display());
        Diagnostic::new(reason).at("upstream.tls.caFile")
    };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let labels = String::from_utf8_lossy(&text);
    let foreign = labels
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .find(|label| *label != "CERTIFICATE");
    if let Some(label) = foreign {
        let fix = "leave only certificates (PEM) in it";
        return Err(wrong(format!("it holds a {label}")).fix(fix));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(format!("no valid PEM: {error}")))?;
        roots.add(certificate).map_err(|error| wrong(format!("not a certificate: {error}")))?;
    }
    if roots.is_empty() { Err(wrong("no PEM certificate in it".to_owned())) } else { Ok(()) }
}

fn parse_url(url: &str) -> Result<FromUrl, Diagnostic> {
    let wrong = |why: &str| {
        let forms = "write http://host:port, https://host, h2c://host:port or unix:/path";
        Diagnostic::new(format!("\"{url}\" {why}")).at("upstream.url").fix(forms)
    };
    if let Some(path) = url.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(wrong("has no path"));
        }
        return Ok(FromUrl {
            address: Address::Unix(path.into()),
            authority: "localhost".to_owned(),
            tls: false,
            protocol: Protocol::Http1,
        });
    }
    let uri: http::Uri = url.parse().map_err(|_| wrong("is no URL"))?;
    let (tls, protocol, port) = match uri.scheme_str() {
        Some("http") => (false, Protocol::Http1, 80),
        Some("https") => (true, Protocol::Auto, 443),
        Some("h2c") => (false, Protocol::Http2, 80),
        _ => return Err(wrong("has no scheme that is known")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(wrong("has no usable host"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("has a path, which is not supported"));
    }
    Ok(FromUrl {
        address: Address::Tcp {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(port),
        },
        authority: authority.as_str().to_owned(),
        tls,
        protocol,
    })
}

fn parse_endpoint(text: &str) -> Result<Address, Diagnostic> {
    let wrong = || {
        let fix = "write host:port or unix:/path";
        Diagnostic::new(format!("\"{text}\" is no endpoint")).at("upstream.endpoints").fix(fix)
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() { Err(wrong()) } else { Ok(Address::Unix(path.into())) };
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || host.contains('/') {
        return Err(wrong());
    }
    Ok(Address::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use outrigger_proxy::Protocol;

    use crate::app::build::{ProcessPlan, plan};
    use crate::app::config::Config;

    fn with_url(url: &str) -> Result<ProcessPlan, String> {
        let mut config = Config::default();
        config.upstream.url = Some(url.to_owned());
        plan(config).map_err(|error| error.to_string())
    }

    #[test]
    fn urls_name_protocol_and_address() {
        let upstream = with_url("h2c://shop:9000").unwrap().settings.upstream;
        assert_eq!(upstream.protocol, Protocol::Http2);
        assert_eq!(upstream.endpoints[0].to_string(), "shop:9000");
        let upstream = with_url("https://shop.example").unwrap().settings.upstream;
        assert_eq!(upstream.tls.map(|tls| tls.server_name).as_deref(), Some("shop.example"));
        assert_eq!(upstream.endpoints[0].to_string(), "shop.example:443");
        assert!(with_url("unix:/run/app.sock").is_ok());
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_fix() {
        for url in ["shop:80", "ftp://shop", "http://", "http://shop/path", "unix:", "http://a@b"] {
            let error = with_url(url).unwrap_err();
            assert!(
                error.contains("upstream.url") && error.contains("http://host:port"),
                "{error}"
            );
        }
        assert!(plan(Config::default()).unwrap_err().to_string().contains("--upstream"));
    }
}
