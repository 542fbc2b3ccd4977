//! Getting an image onto a host. Starts that wait for one image on one host share one pull.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, Shared};
use hyper::header::{HeaderName, HeaderValue};

use super::connect::Engine;
use super::errors::CallError;
use super::lock;
use super::registry::{DockerConfigFile, registry_of};
use crate::error::Remedy;
use crate::model::Credential;

/// A pull that says nothing for so long has stalled. There is no limit to the whole of it.
const STALL: Duration = Duration::from_secs(120);

/// Why there is no image.
#[derive(Debug, Clone, thiserror::Error)]
#[error("image {image} is not on the host and cannot be pulled: {why}")]
pub(super) struct PullError {
    image: String,
    why: String,
    pub(super) remedy: Remedy,
}

type Pull = Shared<BoxFuture<'static, Result<(), PullError>>>;

/// The pulls under way on one host.
#[derive(Default)]
pub(super) struct Pulls(Mutex<BTreeMap<String, Pull>>);

impl Pulls {
    /// Returns when the image is there. A caller that goes away leaves the pull to the others.
    pub(super) async fn ensure(
        &self,
        engine: &Engine,
        image: &str,
        config: Option<Credential>,
    ) -> Result<(), PullError> {
        let pull = {
            let mut pulls = lock(&self.0);
            let begin = || {
                let (engine, image) = (engine.clone(), image.to_owned());
                async move { pull(&engine, &image, config.as_ref()).await }.boxed().shared()
            };
            pulls.entry(image.to_owned()).or_insert_with(begin).clone()
        };
        let result = pull.clone().await;
        let mut pulls = lock(&self.0);
        // Only the one that was waited for: another may have been begun since.
        if pulls.get(image).is_some_and(|p| p.ptr_eq(&pull)) {
            pulls.remove(image);
        }
        result
    }
}

/// `(fromImage, tag)`: without a tag the engine would pull all of them.
fn reference(image: &str) -> (&str, &str) {
    if image.contains('@') {
        return (image, "");
    }
    let last = image.rfind('/').map_or(0, |at| at + 1);
    match image.get(last..).and_then(|name| name.rfind(':')) {
        Some(at) => image
            .split_at_checked(last + at)
            .map_or((image, "latest"), |(name, tag)| (name, tag.strip_prefix(':').unwrap_or(tag))),
        None => (image, "latest"),
    }
}

async fn pull(engine: &Engine, image: &str, config: Option<&Credential>) -> Result<(), PullError> {
    let fail = |why: String, remedy| PullError { image: image.into(), why, remedy };
    let credentials = match config {
        Some(config) => DockerConfigFile::of(config)
            .await
            .map_err(|e| fail(e, Remedy::Hold))?
            .credentials(image)
            .await
            .map_err(|e| fail(e, Remedy::Retry))?,
        None => None,
    };
    tracing::info!(image, credentials = credentials.is_some(), "pulling an image");
    let mut docker = engine.docker.clone();
    if let Some(credentials) = &credentials {
        let mut value = HeaderValue::from_str(&credentials.header())
            .map_err(|e| fail(e.to_string(), Remedy::Hold))?;
        value.set_sensitive(true);
        docker = docker.with_request_modifier(move |mut request| {
            let name = HeaderName::from_static("x-registry-auth");
            request.headers_mut().insert(name, value.clone());
            request
        });
    }
    let (from, tag) = reference(image);
    let options = CreateImageOptionsBuilder::default().from_image(from).tag(tag).build();
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
    loop {
        let next = tokio::time::timeout(STALL, progress.next()).await;
        let next = next.map_err(|_| {
            fail(format!("no progress from {} for 2 minutes", registry_of(image)), Remedy::Retry)
        })?;
        let error = match next {
            None => return Ok(()),
            Some(Ok(CreateImageInfo { error_detail: Some(detail), .. })) => {
                CallError::refused(500, &detail.message.unwrap_or_default())
            }
            Some(Ok(_)) => continue,
            Some(Err(e)) => CallError::from(e),
        };
        // A 404 to a pull is about the image, not about the world having moved on.
        let remedy = match error.remedy() {
            Remedy::Reobserve | Remedy::Hold => Remedy::Hold,
            Remedy::Retry => Remedy::Retry,
        };
        let hint = match (remedy, &credentials) {
            (Remedy::Hold, None) => "; no credentials are configured for it",
            _ => "",
        };
        return Err(fail(format!("{error} (registry {}{hint})", registry_of(image)), remedy));
    }
}

impl std::fmt::Debug for Pulls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

/// The configuration to use: of the host, else as given, else where the docker command keeps it.
pub(super) fn config(host: Option<&Credential>, given: Option<&PathBuf>) -> Option<Credential> {
    let file = || given.cloned().or_else(super::registry::default_path);
    host.cloned().or_else(|| Some(Credential::File(file()?.display().to_string())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_split_so_that_one_image_is_pulled() {
        for (image, split) in [
            ("nginx", ("nginx", "latest")),
            ("nginx:1.2", ("nginx", "1.2")),
            ("r.example:5000/a/b", ("r.example:5000/a/b", "latest")),
            ("r.example:5000/a/b:c", ("r.example:5000/a/b", "c")),
            ("r/a@sha256:00", ("r/a@sha256:00", "")),
            ("r/a:1@sha256:00", ("r/a:1@sha256:00", "")),
        ] {
            assert_eq!(reference(image), split);
        }
    }

    proptest! {
        #[test]
        fn any_reference_is_split_without_harm(image in ".{0,60}") {
            let _ = reference(&image);
        }
    }
}
