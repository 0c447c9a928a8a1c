//! Keys and certificates: an authority of our own, and the certificate that it has issued for the
//! webhook's service.
//!
//! Nothing is read or written here, and the time is an argument; only keys are random.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

use super::error::CertificateError;
use super::tls;

/// The name of every authority of ours; they differ by key.
const AUTHORITY: &str = "Outrigger webhook CA";
/// How far the clock of a client may be behind.
const SKEW: Duration = Duration::from_secs(300);

/// CertificateLifetimes of certificates. Each is replaced after two thirds of its lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateLifetimes {
    /// That of the authority.
    pub ca: Duration,
    /// That of the certificate which the webhook serves.
    pub cert: Duration,
}

impl Default for CertificateLifetimes {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        CertificateLifetimes { ca: DAY * 365, cert: DAY * 90 }
    }
}

/// What has to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Certificate,
    Authority,
}

/// The keys and certificates that replicas share in the Secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    /// Certificates of authorities, as PEM, newest first: the first has signed `cert`.
    authorities: Vec<String>,
    authority_key: String,
    cert: String,
    key: String,
}

/// Leaves the keys out: they must not reach a log.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Material {
    /// A new authority, and a certificate from it.
    pub fn fresh(
        names: &[String],
        lifetimes: CertificateLifetimes,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = authority_params();
        dated(&mut params, now, lifetimes.ca);
        let authority = params.self_signed(&key)?;
        let bare = Material {
            authorities: vec![authority.pem()],
            authority_key: key.serialize_pem(),
            cert: String::new(),
            key: String::new(),
        };
        bare.issued(names, lifetimes, now)
    }

    /// The same, with those authorities of a bundle that are ours and have not expired: replicas may
    /// still serve certificates that they have signed.
    pub fn trusting(mut self, bundle: &str, now: SystemTime) -> Self {
        let ours = |pem: &String| is_ours(pem) && !self.authorities.contains(pem);
        let others: Vec<String> = split_pem(bundle).into_iter().filter(ours).collect();
        self.authorities.extend(others);
        self.authorities = self.trusted(now).into_iter().cloned().collect();
        self
    }

    /// The same, with a new certificate from the newest authority.
    fn issued(
        mut self,
        names: &[String],
        lifetimes: CertificateLifetimes,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let authority_key = KeyPair::from_pem(&self.authority_key)?;
        let issuer = Issuer::new(authority_params(), authority_key);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Outrigger webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        dated(&mut params, now, lifetimes.cert);
        // A certificate must not be valid for longer than its authority.
        let last = self.authorities.first().map(|pem| validity(pem)).transpose()?;
        if let Some((_, end)) = last {
            params.not_after = params.not_after.min(end.into());
        }
        let key = KeyPair::generate()?;
        self.cert = params.signed_by(&key, &issuer)?.pem();
        self.key = key.serialize_pem();
        self.check(names, now)?;
        Ok(self)
    }

    /// Renews what is due. A new authority comes before the old ones, which stay until they expire:
    /// other replicas still serve what they have signed.
    pub fn renewed(
        self,
        due: Due,
        names: &[String],
        lifetimes: CertificateLifetimes,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        match due {
            Due::Nothing => Ok(self),
            Due::Certificate => self.issued(names, lifetimes, now),
            Due::Authority => {
                let mut new = Material::fresh(names, lifetimes, now)?;
                new.authorities.extend(self.trusted(now).into_iter().cloned());
                Ok(new)
            }
        }
    }

    /// What has to be renewed now.
    pub fn due(&self, names: &[String], now: SystemTime) -> Due {
        let authority = self.authorities.first().map_or("", String::as_str);
        if is_old(authority, now) || self.trusted(now).first().is_none_or(|pem| *pem != authority) {
            Due::Authority
        } else if is_old(&self.cert, now) || self.check(names, now).is_err() {
            Due::Certificate
        } else {
            Due::Nothing
        }
    }

    /// The authorities that have not expired.
    fn trusted(&self, now: SystemTime) -> Vec<&String> {
        let valid = |pem: &&String| validity(pem).is_ok_and(|(_, end)| now < end);
        self.authorities.iter().filter(valid).collect()
    }

    /// What the API server has to trust, as PEM.
    pub fn bundle(&self, now: SystemTime) -> String {
        self.trusted(now).into_iter().map(String::as_str).collect()
    }

    /// The certificate's own authority, as PEM.
    pub fn authority(&self) -> &str {
        self.authorities.first().map_or("", String::as_str)
    }

    /// Certificate and key in the form that connections are served with.
    pub fn certified_key(&self) -> Result<CertifiedKey, CertificateError> {
        tls::certified_key(self.cert.as_bytes(), self.key.as_bytes())
    }

    /// Whether both serve the same certificate.
    pub fn is_same_certificate(&self, other: &Self) -> bool {
        self.cert == other.cert
    }

    /// When the certificate expires.
    pub fn expires(&self) -> Result<SystemTime, CertificateError> {
        validity(&self.cert).map(|(_, end)| end)
    }

    /// Whether a client that trusts the authority takes the certificate for these names.
    fn check(&self, names: &[String], now: SystemTime) -> Result<(), CertificateError> {
        self.certified_key()?;
        self.is_trusted(self.authority(), names, now)
    }

    /// Whether a client that trusts a bundle takes the certificate for these names.
    pub fn is_trusted(
        &self,
        bundle: &str,
        names: &[String],
        now: SystemTime,
    ) -> Result<(), CertificateError> {
        let mut roots = RootCertStore::empty();
        let authorities = tls::certificates(bundle.as_bytes())?;
        authorities.into_iter().try_for_each(|der| roots.add(der))?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), tls::provider()).build()?;
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes())?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        for name in names {
            let name = ServerName::try_from(name.as_str())?;
            verifier.verify_server_cert(&cert, &[], &name, &[], now)?;
        }
        Ok(())
    }

    /// The `data` of the Secret, not encoded.
    pub fn to_data(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("ca.crt", self.authorities.concat()),
            ("ca.key", self.authority_key.clone()),
            ("tls.crt", self.cert.clone()),
            ("tls.key", self.key.clone()),
        ])
    }

    /// Reads the `data` of a Secret.
    ///
    /// # Errors
    /// When a key of it is missing, or its value is no certificate or key.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, CertificateError> {
        let get = |key| data.get(key).cloned().ok_or(CertificateError::Missing(key));
        let authorities = split_pem(&get("ca.crt")?);
        let material = Material {
            authorities,
            authority_key: get("ca.key")?,
            cert: get("tls.crt")?,
            key: get("tls.key")?,
        };
        if material.authorities.is_empty() {
            return Err(CertificateError::NoAuthority);
        }
        for pem in &material.authorities {
            validity(pem).map_err(|error| error.of("ca.crt"))?;
        }
        validity(&material.cert).map_err(|error| error.of("tls.crt"))?;
        KeyPair::from_pem(&material.authority_key)
            .map_err(|error| CertificateError::from(error).of("ca.key"))?;
        material.certified_key().map_err(|error| error.of("tls.key"))?;
        Ok(material)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Valid from a little before now: clocks differ.
fn dated(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    params.not_before = (now - SKEW.min(lifetime / 10)).into();
    params.not_after = (now + lifetime).into();
}

fn is_ours(pem: &str) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    x509_parser::parse_x509_certificate(&der).is_ok_and(|(_, parsed)| {
        parsed
            .subject()
            .iter_common_name()
            .any(|name| name.as_str().is_ok_and(|name| name == AUTHORITY))
    })
}

/// Whether two thirds of a certificate's lifetime are over.
fn is_old(pem: &str, now: SystemTime) -> bool {
    validity(pem).is_ok_and(|(start, end)| {
        let life = end.duration_since(start).unwrap_or_default();
        now.duration_since(start).is_ok_and(|age| age >= life * 2 / 3)
    })
}

/// When a certificate begins and ends to be valid.
pub(super) fn validity(pem: &str) -> Result<(SystemTime, SystemTime), CertificateError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(CertificateError::Text)?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).map_err(CertificateError::Content)?;
    let time = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        UNIX_EPOCH + Duration::from_secs(seconds)
    };
    Ok((time(parsed.validity.not_before), time(parsed.validity.not_after)))
}

/// The certificates of a bundle, each as PEM of its own.
pub(super) fn split_pem(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = bundle;
    while let Some((head, tail)) = rest.split_once(END) {
        if let Some(at) = head.find(BEGIN) {
            found.push(format!("{}{END}\n", &head[at..]).replace("\r\n", "\n"));
        }
        rest = tail;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn names() -> Vec<String> {
        vec!["inject.mesh.svc".to_owned(), "inject.mesh.svc.cluster.local".to_owned()]
    }

    fn at(days: u32) -> SystemTime {
        UNIX_EPOCH + DAY * (20_000 + days)
    }

    #[test]
    fn a_fresh_one_is_good_and_comes_back_from_the_secret() {
        let material = Material::fresh(&names(), CertificateLifetimes::default(), at(0)).unwrap();
        assert_eq!(material.due(&names(), at(0)), Due::Nothing);
        let data = material.to_data();
        let data = data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(Material::from_data(&data).unwrap(), material);
        for key in ["ca.crt", "ca.key", "tls.crt", "tls.key"] {
            let mut broken = data.clone();
            broken.insert(key.to_owned(), "nonsense".to_owned());
            let error = Material::from_data(&broken).unwrap_err().to_string();
            assert!(error.starts_with(key) || error.starts_with("tls.key"), "{key}: {error}");
            broken.remove(key);
            let error = Material::from_data(&broken).unwrap_err().to_string();
            assert_eq!(error, format!("{key} is missing"));
        }
        let other = Material::fresh(&names(), CertificateLifetimes::default(), at(0)).unwrap();
        let mut mixed = data.clone();
        mixed.insert("tls.key".to_owned(), other.key);
        let error = Material::from_data(&mixed).unwrap_err().to_string();
        assert!(error.contains("do not belong together"), "{error}");
    }

    #[test]
    fn certificates_are_due_after_two_thirds_and_authorities_too() {
        let material = Material::fresh(&names(), CertificateLifetimes::default(), at(0)).unwrap();
        assert_eq!(material.due(&names(), at(59)), Due::Nothing);
        assert_eq!(material.due(&names(), at(61)), Due::Certificate);
        assert_eq!(material.due(&names(), at(244)), Due::Authority);
        let other = vec!["other.mesh.svc".to_owned()];
        assert_eq!(material.due(&other, at(1)), Due::Certificate, "other names");
        let renewed = material
            .clone()
            .renewed(Due::Certificate, &names(), CertificateLifetimes::default(), at(61))
            .unwrap();
        assert_eq!(renewed.authority(), material.authority());
        assert_ne!(renewed.cert, material.cert);
        assert_eq!(renewed.due(&names(), at(61)), Due::Nothing);
    }

    #[test]
    fn old_authorities_stay_until_they_expire() {
        let first = Material::fresh(&names(), CertificateLifetimes::default(), at(0)).unwrap();
        let lifetimes = CertificateLifetimes::default();
        let second = first.clone().renewed(Due::Authority, &names(), lifetimes, at(250)).unwrap();
        let bundle = second.bundle(at(250));
        assert!(bundle.contains(first.authority()) && bundle.contains(second.authority()));
        assert_eq!(second.bundle(at(366)), second.authority());
        assert_eq!(second.due(&names(), at(250)), Due::Nothing);
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let lifetimes = CertificateLifetimes { ca: DAY * 10, cert: DAY * 90 };
        let material = Material::fresh(&names(), lifetimes, at(0)).unwrap();
        assert_eq!(material.expires().unwrap(), at(10));
    }

    #[test]
    fn a_bundle_is_split_whatever_is_between() {
        let material = Material::fresh(&names(), CertificateLifetimes::default(), at(0)).unwrap();
        let pem = material.authority();
        let bundle = format!("# one\n{pem}\n\njunk\n{}", pem.replace('\n', "\r\n"));
        assert_eq!(split_pem(&bundle), [pem, pem]);
    }
}
