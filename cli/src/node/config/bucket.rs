//! `[bucket]`: where the chunks and roots of this node's volumes are kept besides, and how it is asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sterna_bucket::{Credentials, Location};
use sterna_types::ByteRate;

use super::values::{Age, Bounds, Wrong, set_time};

/// A bucket.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Which one.
    pub location: Location,
    /// Where it is said who asks.
    pub credentials: CredentialsSource,
    /// Whose certificates its server may have besides those that the system trusts, in PEM.
    pub authority: Option<PathBuf>,
    /// How much is sent there in a second.
    pub rate: Option<ByteRate>,
    /// How long after what was sent last more is sent.
    pub interval: Duration,
    /// How long what nothing needs is left, in a bucket that nobody has used yet.
    pub grace: Duration,
}

/// Where it is said who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsSource {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and `AWS_SESSION_TOKEN` where there is one.
    Environment,
    /// A file in the form of `~/.aws/credentials`.
    File(PathBuf),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BucketSection {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    credentials: Option<PathBuf>,
    ca: Option<PathBuf>,
    rate: Option<String>,
    interval: Option<Age>,
    grace: Option<Age>,
}

impl BucketSection {
    /// What it says; paths begin in `directory`.
    pub(super) fn config(&self, directory: &Path) -> Result<BucketConfig, Wrong> {
        let region = self.region.clone().unwrap_or_else(|| REGION.to_owned());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if region.is_empty() || !region.chars().all(is_plain) {
            let remedy = "take the name of a region, such as \"eu-central-1\"";
            return Err(Wrong { key: "bucket.region", value: format!("\"{region}\""), remedy });
        }
        if let Some(endpoint) = &self.endpoint {
            let server = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if server.is_none_or(|server| server.is_empty() || server.contains(['@', '?', '#', ' '])) {
                let remedy = "take \"https://HOST:PORT\", or \"http://HOST:PORT\" in a network that you trust";
                return Err(Wrong { key: "bucket.endpoint", value: format!("\"{endpoint}\""), remedy });
            }
        }
        let remedy = "take \"s3://NAME\" or \"s3://NAME/PREFIX\"";
        let location = Location::parse(&self.url, self.endpoint.clone(), region);
        let location = location.map_err(|_| Wrong { key: "bucket.url", value: format!("\"{}\"", self.url), remedy })?;
        let remedy = "take bits in a second, such as \"50Mbit\"";
        let rate = self
            .rate
            .as_ref()
            .map(|rate| rate.parse().map_err(|_| Wrong { key: "bucket.rate", value: format!("\"{rate}\""), remedy }));
        let (mut interval, mut grace) = (INTERVAL_DEFAULT, GRACE_DEFAULT);
        set_time(&mut interval, self.interval, INTERVAL)?;
        set_time(&mut grace, self.grace, GRACE)?;
        let credentials = match &self.credentials {
            Some(path) => CredentialsSource::File(directory.join(path)),
            None => CredentialsSource::Environment,
        };
        let authority = self.ca.as_ref().map(|path| directory.join(path));
        Ok(BucketConfig { location, credentials, authority, rate: rate.transpose()?, interval, grace })
    }
}

impl CredentialsSource {
    /// Who asks.
    ///
    /// # Errors
    /// Nobody says; or a file cannot be read, or others than its owner can read it.
    pub fn load(&self) -> Result<Credentials> {
        match self {
            Self::Environment => {
                let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                let (id, key) = (variable(VARIABLES[0]), variable(VARIABLES[1]));
                let (access_key_id, secret_access_key) = id.zip(key).with_context(|| {
                    format!(
                        "[bucket] is set, and nobody says who asks: set {} and {} in the node's environment, or 'credentials' in \
                         sterna.toml",
                        VARIABLES[0], VARIABLES[1]
                    )
                })?;
                Ok(Credentials { access_key_id, secret_access_key, session_token: variable(VARIABLES[2]) })
            }
            Self::File(path) => {
                let shown = path.display();
                let mode = fs::metadata(path).with_context(|| format!("cannot read the credentials in {shown}"))?;
                let others = mode.permissions().mode() & 0o077;
                ensure!(others == 0, "others than its owner may use {shown}, which has a secret key: chmod 600 it");
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read the credentials in {shown}"))?;
                parse(&text).with_context(|| format!("the credentials in {shown}"))
            }
        }
    }
}

/// The first section of a file of credentials, or what stands before any. What is wrong is told by its line, never by what it has.
fn parse(text: &str) -> Result<Credentials> {
    let (mut id, mut key, mut token, mut sections) = (None, None, None, 0);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            sections += 1;
            if sections > 1 {
                break;
            }
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { bail!("line {number} is no 'name = value'") };
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match name.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => key = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    let access_key_id = id.context("there is no 'aws_access_key_id' in them")?;
    let secret_access_key = key.context("there is no 'aws_secret_access_key' in them")?;
    Ok(Credentials { access_key_id, secret_access_key, session_token: token })
}

const VARIABLES: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// What servers that have no regions take.
const REGION: &str = "us-east-1";
const INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
const GRACE_DEFAULT: Duration = Duration::from_secs(2 * 24 * 3600);
const INTERVAL: Bounds =
    Bounds { key: "bucket.interval", least: 1_000, most: 86_400_000, remedy: "take \"1s\" to \"24h\"" };
/// Not so short that nobody gets done with what he relies on, but for tests.
const GRACE: Bounds =
    Bounds { key: "bucket.grace", least: 2_000, most: 31_536_000_000, remedy: "take \"2s\" to \"365d\"" };

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn section(text: &str) -> Result<BucketConfig, String> {
        let config = Config::parse(format!("[bucket]\n{text}").as_bytes(), Path::new("/data/sterna.toml"));
        config.map_err(|error| error.to_string()).map(|config| config.bucket.expect("a bucket"))
    }

    #[test]
    fn settings_arrive() {
        let config = section(
            "url = \"s3://disks/ams\"\nendpoint = \"http://10.0.0.9:9000\"\nregion = \"eu\"\ncredentials = \"pki/bucket\"\nca = \"/ca.pem\"\nrate = \
             \"80Mbit\"\ninterval = \"5s\"\ngrace = \"1h\"\n",
        )
        .expect("a configuration");
        assert_eq!(config.location.to_string(), "s3://disks/ams at http://10.0.0.9:9000");
        assert_eq!(config.credentials, CredentialsSource::File("/data/pki/bucket".into()));
        assert_eq!((config.authority, config.rate), (Some("/ca.pem".into()), Some(ByteRate(10_000_000))));
        assert_eq!((config.interval, config.grace), (Duration::from_secs(5), Duration::from_secs(3600)));
        let least = section("url = \"s3://disks\"\n").expect("a configuration");
        assert_eq!((least.interval, least.grace), (Duration::from_secs(60), Duration::from_secs(172_800)));
        assert_eq!(least.credentials, CredentialsSource::Environment);
    }

    #[test]
    fn a_refusal_names_the_key_the_value_and_the_remedy() {
        let cases = [
            ("url = \"disks\"\n", ["bucket.url", "\"disks\"", "s3://NAME"]),
            ("region = \"eu\"\n", ["bucket", "missing field", "`url`"]),
            ("url = \"s3://disks\"\nkey = \"x\"\n", ["key", "unknown field", "`credentials`"]),
            ("url = \"s3://disks\"\nendpoint = \"10.0.0.9\"\n", ["bucket.endpoint", "10.0.0.9", "https://HOST:PORT"]),
            ("url = \"s3://disks\"\nregion = \"\"\n", ["bucket.region", "\"\"", "eu-central-1"]),
            ("url = \"s3://disks\"\nrate = \"fast\"\n", ["bucket.rate", "fast", "50Mbit"]),
            ("url = \"s3://disks\"\ninterval = \"1ms\"\n", ["bucket.interval", "1ms", "\"1s\" to \"24h\""]),
            ("url = \"s3://disks\"\ngrace = \"1s\"\n", ["bucket.grace", "1s", "\"2s\" to"]),
        ];
        for (text, parts) in cases {
            let error = section(text).expect_err(text);
            for part in parts {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
        }
    }

    #[test]
    fn credentials_are_read_and_what_is_wrong_is_told_without_them() {
        let credentials = parse(
            "# ours\n[default]\naws_access_key_id = id\naws_secret_access_key=ke=y\n[other]\naws_access_key_id = x\n",
        );
        let credentials = credentials.expect("credentials");
        assert_eq!((credentials.access_key_id.as_str(), credentials.secret_access_key.as_str()), ("id", "ke=y"));
        for text in
            ["aws_access_key_id = id\nhush\n", "aws_access_key_id = hush\n", "aws_secret_access_key = hush\n", ""]
        {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("bucket");
        fs::write(&path, "aws_access_key_id = id\naws_secret_access_key = key\n").expect("written");
        let source = CredentialsSource::File(path.clone());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
        assert!(source.load().expect_err("it is open").to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        assert_eq!(source.load().expect("credentials").access_key_id, "id");
    }
}
