//! The names in certificates.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsCertificate {
    /// Name of the owner, such as `C=DE, O=Example, CN=www.example`; empty if the certificate could not be read.
    pub subject: String,
    /// Name of the issuer.
    pub issuer: String,
    /// Host names that the certificate is valid for.
    pub dns_names: Vec<String>,
    /// The certificate itself, in DER.
    pub der: Vec<u8>,
}

impl TlsCertificate {
    /// Reads a certificate. Returns whether it could be read, too.
    pub(super) fn read(der: &[u8]) -> (Self, bool) {
        let (subject, issuer, dns_names) = (String::new(), String::new(), Vec::new());
        let mut own = Self { subject, issuer, dns_names, der: der.to_vec() };
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return (own, false) };
        own.subject = certificate.subject().to_string();
        own.issuer = certificate.issuer().to_string();
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            let names = names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            });
            own.dns_names = names.collect();
        }
        (own, true)
    }
}
