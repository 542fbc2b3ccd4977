//! What can be told of a certificate from its text alone, before any balancer sees it.

use std::sync::Arc;

use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use webpki::EndEntityCert;

/// The most bytes that a certificate with its chain and key may have.
const MOST_BYTES: usize = 256 << 10;
/// The most certificates in one chain.
const MOST_LINKS: usize = 20;

const FORM: &str =
    "the secret holds PEM text: the certificate, then those that signed it, and its key";

/// Why a balancer would not take it, with a hint; nothing of its content is in either.
pub fn fault(pem: &str) -> Option<(String, Option<String>)> {
    let fault = |message: &str, hint: &str| Some((message.to_owned(), Some(hint.to_owned())));
    if pem.len() > MOST_BYTES {
        return fault("has more than 256 KiB, which no certificate needs", FORM);
    }
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).take(MOST_LINKS).collect();
    let Ok(chain) = chain else { return fault("is damaged PEM text", FORM) };
    let Some(own) = chain.first() else { return fault("has no certificate in it", FORM) };
    if chain.iter().any(|link| EndEntityCert::try_from(link).is_err()) {
        return fault("has a certificate in it that cannot be read", FORM);
    }
    let Ok(key) = PrivateKeyDer::from_pem_slice(pem.as_bytes()) else {
        if pem.contains("ENCRYPTED") {
            let hint =
                "nobody is there to type a passphrase: keep the key in the secret without one";
            return fault("has a key that is locked by a passphrase", hint);
        }
        return fault("has no private key in it", FORM);
    };
    let Ok(key) = aws_lc_rs::sign::any_supported_type(&key) else {
        return fault("has a private key that cannot be read", "RSA, ECDSA and Ed25519 are known");
    };
    match CertifiedKey::new(vec![own.clone()], Arc::clone(&key)).keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => fault(
            "has a private key that is not the one of its first certificate",
            "the own certificate comes first, those that signed it after it",
        ),
        // What cannot be compared is for the balancer to say.
        Ok(()) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn said(pem: &str) -> String {
        fault(pem).map(|(message, _)| message).unwrap_or_default()
    }

    #[test]
    fn good_ones_are_good_in_any_order() {
        let ((one, key), (signer, _)) = (made("a.example"), made("b.example"));
        for good in
            [format!("{one}{key}"), format!("{key}{one}"), format!("text\n{one}\n{signer}{key}\n")]
        {
            assert_eq!(said(&good), "");
        }
    }

    #[test]
    fn each_fault_is_named() {
        let ((one, key), (signer, other)) = (made("a.example"), made("b.example"));
        let locked = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for (pem, expect) in [
            (String::new(), "has no certificate in it"),
            ("garbage".into(), "has no certificate in it"),
            (key.clone(), "has no certificate in it"),
            (one.clone(), "has no private key in it"),
            (format!("{one}{locked}"), "has a key that is locked by a passphrase"),
            (
                format!("{one}{other}"),
                "has a private key that is not the one of its first certificate",
            ),
            (
                format!("{signer}{one}{key}"),
                "has a private key that is not the one of its first certificate",
            ),
            (format!("{}{key}", one.replacen('\n', "\n*", 2)), "is damaged PEM text"),
            (
                format!("-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n{key}"),
                "has a certificate in it that cannot be read",
            ),
            (
                format!("{one}-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n"),
                "has a private key that cannot be read",
            ),
            (
                format!("{one}{key}{}", " ".repeat(MOST_BYTES)),
                "has more than 256 KiB, which no certificate needs",
            ),
        ] {
            assert_eq!(said(&pem), expect, "{pem:.60}");
        }
    }
}
