//! Which bucket it is, and how it is reached.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::error::BucketError;

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What the bucket is called.
    pub bucket: String,
    /// What the names of all objects begin with; empty, or without a `/` at either end.
    pub prefix: String,
    /// The server, `http://…` or `https://…`; `None` for Amazon's of the region.
    pub endpoint: Option<String>,
    /// The region, which a signature names.
    pub region: String,
}

/// A text that names no bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no bucket: write s3://NAME or s3://NAME/PREFIX")]
pub struct InvalidUrl {
    /// What was given.
    pub text: String,
}

impl Location {
    /// The bucket of a URL, `s3://NAME/PREFIX`.
    ///
    /// # Errors
    /// [`InvalidUrl`].
    pub fn parse(url: &str, endpoint: Option<String>, region: String) -> Result<Self, InvalidUrl> {
        let invalid = || InvalidUrl { text: url.to_owned() };
        let (bucket, prefix) = match url.strip_prefix("s3://").ok_or_else(invalid)? {
            rest if rest.contains('/') => rest.split_once('/').ok_or_else(invalid)?,
            bucket => (bucket, ""),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_bucket = (3..=63).contains(&bucket.len()) && bucket.chars().all(is_plain);
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_part = |part: &str| !part.is_empty() && part.chars().all(is_plain) && part != "." && part != "..";
        let is_prefix = prefix.is_empty() || (prefix.len() <= 512 && prefix.split('/').all(is_part));
        if !is_bucket || !is_prefix {
            return Err(invalid());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), endpoint, region })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        match &self.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => write!(f, " in {}", self.region),
        }
    }
}

/// Who asks. What it is made of is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The id of a key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// For credentials that last for a while only.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// A client of the bucket. Asks nothing yet. `authority` is, in PEM, whose certificates its server may have, beside those whom the system
/// trusts.
///
/// # Errors
/// [`BucketError::Request`] where the settings contradict each other.
pub fn connect(
    location: &Location,
    credentials: &Credentials,
    authority: Option<&[u8]>,
) -> Result<Arc<dyn ObjectStore>, BucketError> {
    // The provider that all of the project's TLS uses; whoever was first is as good.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let unusable = |source: object_store::Error| BucketError::Request {
        what: format!("the bucket {location} cannot be used"),
        cause: source.to_string(),
    };
    let mut client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_pool_idle_timeout(IDLE_TIMEOUT);
    for certificate in authority.map(Certificate::from_pem_bundle).transpose().map_err(unusable)?.unwrap_or_default() {
        client = client.with_root_certificate(certificate);
    }
    let is_plain = location.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client.with_allow_http(is_plain))
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: MAX_RETRIES,
            retry_timeout: RETRY_TIMEOUT,
        })
        .with_bucket_name(&location.bucket)
        .with_region(&location.region)
        .with_access_key_id(&credentials.access_key_id)
        .with_secret_access_key(&credentials.secret_access_key);
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(token) = &credentials.session_token {
        builder = builder.with_token(token);
    }
    Ok(Arc::new(builder.build().map_err(unusable)?))
}

/// A pack of 32 MiB over 1 Mbit/s takes less.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Of what is worth another attempt, with longer and longer pauses; whoever asked tries again later.
const MAX_RETRIES: usize = 6;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_bucket_with_or_without_a_prefix() {
        let parse = |url| Location::parse(url, None, "us-east-1".to_owned());
        let of = |url| parse(url).map(|location| (location.bucket, location.prefix)).expect("a bucket");
        assert_eq!(of("s3://disks"), ("disks".to_owned(), String::new()));
        assert_eq!(of("s3://disks/"), ("disks".to_owned(), String::new()));
        assert_eq!(of("s3://disks/of/ams/"), ("disks".to_owned(), "of/ams".to_owned()));
        assert_eq!(parse("s3://disks/ams").expect("a bucket").to_string(), "s3://disks/ams in us-east-1");
        for url in
            ["", "disks", "https://disks", "s3://", "s3://a", "s3://disks//a", "s3://disks/a/../b", "s3://dis ks"]
        {
            assert_eq!(parse(url), Err(InvalidUrl { text: url.to_owned() }));
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        let (id, secret) = ("the-id".to_owned(), "the-secret".to_owned());
        let shown = format!("{:?}", Credentials { access_key_id: id, secret_access_key: secret, session_token: None });
        assert!(!shown.contains("the-"), "{shown}");
    }
}
