//! Reads what proves who we are, where it is needed.

use std::io;

use tokio::io::AsyncReadExt as _;

use crate::model::Credential;

/// The longest token, key or certificate.
const LONGEST: u64 = 1 << 20;

/// What it is now. A file is read anew at every call.
///
/// # Errors
/// The file cannot be read; its name is to be told by the caller.
pub async fn read(credential: &Credential) -> io::Result<Vec<u8>> {
    match credential {
        Credential::File(path) => {
            let mut bytes = Vec::new();
            let file = tokio::fs::File::open(path).await?;
            file.take(LONGEST).read_to_end(&mut bytes).await?;
            Ok(bytes)
        }
        Credential::Secret { value, .. } => Ok(value.reveal().as_bytes().to_vec()),
    }
}
