//! Servers with a certificate of one's own: trust in a file beside the system's.
//!
//! libgit2 can only be told of a certificate file for the whole process, and git2 makes that an
//! unsafe call, so the server's certificate is judged here. Only ever adds to what the system
//! trusts; takes nothing that is not valid for the host and signed by the file.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The certificates of a PEM file, at least one.
pub(super) fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let pem = std::fs::read(path).map_err(|e| bad(&e))?;
    let certs: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| bad(&e))?;
    if certs.is_empty() {
        return Err(bad(&"no certificate in it"));
    }
    Ok(certs)
}

/// Is `leaf` (DER) valid for `host` now, by one of `certs` or as one of them? libgit2 hands out
/// the server's own certificate alone, so an issuer between must be in the file too.
pub(super) fn trusted(
    certs: &[CertificateDer<'static>],
    leaf: &[u8],
    host: &str,
    now: Timestamp,
) -> Result<(), String> {
    let der = CertificateDer::from(leaf);
    let cert = EndEntityCert::try_from(&der).map_err(|e| e.to_string())?;
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    cert.verify_is_valid_for_subject_name(&name).map_err(|e| e.to_string())?;
    if certs.contains(&der) {
        return Ok(());
    }
    let anchors: Vec<_> = certs.iter().filter_map(|c| anchor_from_trusted_cert(c).ok()).collect();
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let usage = KeyUsage::server_auth();
    cert.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, certs, time, usage, None, None)
        .map(|_| ())
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CA: &[u8] = include_bytes!("testdata/ca.pem");
    const SERVER: &[u8] = include_bytes!("testdata/server.pem");
    const OTHER: &[u8] = include_bytes!("testdata/other-ca.pem");

    fn certs(pem: &[u8]) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem).map(|c| c.unwrap().into_owned()).collect()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_signed_by_the_file_is_trusted_for_its_name_and_time_only() {
        let leaf = &certs(SERVER)[0];
        let ca = certs(CA);
        let now = at("2030-01-01T00:00:00Z");
        assert_eq!(trusted(&ca, leaf, "git.example", now), Ok(()));
        assert_eq!(trusted(&ca, leaf, "10.1.2.3", now), Ok(()));
        assert!(trusted(&ca, leaf, "evil.example", now).is_err());
        assert!(trusted(&certs(OTHER), leaf, "git.example", now).is_err());
        assert!(trusted(&[], leaf, "git.example", now).is_err());
        assert!(trusted(&ca, leaf, "git.example", at("1999-01-01T00:00:00Z")).is_err());
        assert!(trusted(&ca, leaf, "git.example", at("2999-01-01T00:00:00Z")).is_err());
    }

    #[test]
    fn a_certificate_in_the_file_itself_is_trusted_for_its_name_only() {
        let now = at("2030-01-01T00:00:00Z");
        let leaf = certs(SERVER);
        assert_eq!(trusted(&leaf, &leaf[0], "git.example", now), Ok(()));
        assert!(trusted(&leaf, &leaf[0], "evil.example", now).is_err());
    }

    #[test]
    fn a_file_without_certificates_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(read(&path).unwrap_err().contains("ca.pem"));
        std::fs::write(&path, "hello").unwrap();
        assert!(read(&path).unwrap_err().ends_with("no certificate in it"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_trusted(leaf in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..600, bit in 0u8..8) {
            let (ca, now) = (certs(CA), Timestamp::from_second(1_893_456_000).unwrap());
            prop_assert!(trusted(&ca, &leaf, "git.example", now).is_err());
            let mut flipped = certs(SERVER)[0].to_vec();
            let at = at % flipped.len();
            flipped[at] ^= 1 << bit;
            prop_assert!(trusted(&ca, &flipped, "git.example", now).is_err());
        }
    }
}
