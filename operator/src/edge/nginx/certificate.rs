//! Which certificate a server shows: nginx does not look into them, so each name is given its own here.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

use super::image::Surroundings;
use crate::model::Certificate;

/// Where certificates are put.
const DIRECTORY: &str = "/etc/evenkeel/certificates";

/// The most names of one certificate that get a server of their own.
const MOST_NAMES: usize = 100;

/// Where a certificate is in the container. Its content is in the name, so that what is in force stays what it is
/// while another is tried.
pub(super) fn path(certificate: &Certificate, beside: Option<&Surroundings>) -> String {
    let directory = match beside {
        Some(Surroundings { file, .. }) => format!("{file}.certificates"),
        None => DIRECTORY.to_owned(),
    };
    let digest = hex::encode(Sha256::digest(certificate.pem.reveal()));
    format!("{directory}/{}-{}.pem", certificate.name, digest.get(..16).unwrap_or_default())
}

/// The certificate for a server name, exact or `*.…`; the first where none has it.
pub(super) fn choose<'a>(
    certificates: &[&'a Certificate],
    name: Option<&str>,
) -> Option<&'a Certificate> {
    let fits = |certificate: &&&Certificate| name.is_some_and(|name| serves(certificate, name));
    certificates.iter().find(fits).or_else(|| certificates.first()).copied()
}

/// The host names in a certificate: those of its first, its own.
pub(super) fn names(certificate: &Certificate) -> Vec<String> {
    let Some(der) = leaf(certificate) else { return Vec::new() };
    let Ok(cert) = EndEntityCert::try_from(&der) else { return Vec::new() };
    cert.valid_dns_names().map(str::to_ascii_lowercase).take(MOST_NAMES).collect()
}

fn serves(certificate: &Certificate, name: &str) -> bool {
    let Some(der) = leaf(certificate) else { return false };
    let Ok(cert) = EndEntityCert::try_from(&der) else { return false };
    // A name under the wildcard stands for all of them.
    let name = match name.strip_prefix("*.") {
        Some(rest) => format!("any.{rest}"),
        None => name.to_owned(),
    };
    ServerName::try_from(name)
        .is_ok_and(|name| cert.verify_is_valid_for_subject_name(&name).is_ok())
}

fn leaf(certificate: &Certificate) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(certificate.pem.reveal().as_bytes()).ok()
}
