//! A bucket: a process that speaks S3 (`src/bin/s3.rs`), with its objects as files, and the nodes that use it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::node::Node;

/// A server with one bucket. Dropping it kills its process, by its id.
pub struct S3 {
    directory: PathBuf,
    program: PathBuf,
    child: Child,
    address: String,
}

/// What a node's `[bucket]` has besides where the bucket is.
pub const QUICK: &str = "interval = \"1s\"\n";

impl S3 {
    /// Runs the server `program` with its files in `directory`, and a bucket in it.
    ///
    /// # Errors
    /// It cannot be started, or does not say where it listens.
    pub fn start(program: impl Into<PathBuf>, directory: &Path) -> Result<Self> {
        let (directory, program) = (directory.join("s3"), program.into());
        fs::create_dir_all(directory.join(BUCKET))?;
        let (child, address) = launch(&program, &directory)?;
        Ok(Self { directory, program, child, address })
    }

    /// Kills it where it stands.
    ///
    /// # Errors
    /// The operating system does not do it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Runs it again, at another address.
    ///
    /// # Errors
    /// As [`S3::start`].
    pub fn restart(&mut self) -> Result<()> {
        (self.child, self.address) = launch(&self.program, &self.directory)?;
        Ok(())
    }

    /// Has a node use the bucket from its next start on, with these settings besides.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn configure(&self, node: &Node, settings: &str) -> Result<()> {
        self.configure_as(node, BUCKET, SECRET_KEY, settings)
    }

    /// The same, of another name and with another key, which may be wrong.
    ///
    /// # Errors
    /// As [`S3::configure`].
    pub fn configure_as(&self, node: &Node, bucket: &str, secret: &str, settings: &str) -> Result<()> {
        let credentials = node.data().join("bucket.credentials");
        fs::write(
            &credentials,
            format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n"),
        )?;
        fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600))?;
        let path = node.data().join("sterna.toml");
        let text = fs::read_to_string(&path)?;
        let kept = text.split(MARK).next().unwrap_or_default();
        let section = format!(
            "{kept}{MARK}[bucket]\nurl = \"s3://{bucket}/of/tests\"\nendpoint = \"http://{}\"\ncredentials = \"bucket.credentials\"\n{settings}",
            self.address
        );
        fs::write(path, section)?;
        Ok(())
    }

    /// The files of all objects under these parts of a name, in order.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn objects(&self, parts: &str) -> Result<Vec<PathBuf>> {
        let (mut found, mut left) = (Vec::new(), vec![self.directory.join(BUCKET).join("of/tests").join(parts)]);
        while let Some(directory) = left.pop() {
            if !directory.exists() {
                continue;
            }
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() { left.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn launch(program: &Path, directory: &Path) -> Result<(Child, String)> {
    let mut command = Command::new(program);
    command.arg(directory).args([ACCESS_KEY, SECRET_KEY]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the S3 server: build the package of the tests")?;
    let stdout = child.stdout.take().context("its standard output is a pipe")?;
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address)?;
    ensure!(!address.is_empty(), "the S3 server has ended");
    Ok((child, address.trim().to_owned()))
}

/// Waits until something is so of a node, and fails, with its log, where that takes too long.
///
/// # Errors
/// It is not so in time, or cannot be found out.
pub fn until(node: &Node, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > PATIENCE {
            bail!("it did not come about in {PATIENCE:?} that {what}: {}", node.log());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

const BUCKET: &str = "disks";
const ACCESS_KEY: &str = "sterna-tests";
/// Of no use anywhere else; the tests look that it is shown nowhere.
pub const SECRET_KEY: &str = "not-a-secret-key";
const MARK: &str = "# For the test.\n";
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);
