//! Certificates for the tests of TLS: an authority, a server's and a client's identity, and an authority of strangers.
//!
//! The files are named as libnbd and QEMU look for them (`ca-cert.pem`, `server-cert.pem`, `client-cert.pem` and their
//! keys), so that a directory with them can be handed to either.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// An authority whose certificates are in files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Where an identity is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

/// What an identity is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A server at `localhost`, 127.0.0.1 and ::1.
    Server,
    /// A client.
    Client,
}

/// When an identity is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Now,
    /// For a year that is long over.
    Over,
}

impl Authority {
    /// A new authority of this name.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Writes the authority's own certificate into a directory, as `ca-cert.pem`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn publish(&self, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let path = directory.join("ca-cert.pem");
        fs::write(&path, &self.certificate)?;
        Ok(path)
    }

    /// Makes an identity, and writes it into a directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn identity(&self, role: Role, directory: &Path) -> Result<Identity> {
        self.named_identity(role, &["localhost", "127.0.0.1", "::1"], Validity::Now, directory)
    }

    /// The same with these names, valid now or not any more.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn named_identity(&self, role: Role, names: &[&str], validity: Validity, directory: &Path) -> Result<Identity> {
        let (name, purpose) = match role {
            Role::Server => ("server", ExtendedKeyUsagePurpose::ServerAuth),
            Role::Client => ("client", ExtendedKeyUsagePurpose::ClientAuth),
        };
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
        if validity == Validity::Over {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        // QEMU refuses to use an identity that may not encipher keys, whatever the cipher.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::create_dir_all(directory)?;
        let (certificate_path, key_path) =
            (directory.join(format!("{name}-cert.pem")), directory.join(format!("{name}-key.pem")));
        fs::write(&certificate_path, certificate.pem())?;
        fs::write(&key_path, key.serialize_pem())?;
        Ok(Identity { certificate: certificate_path, key: key_path })
    }
}
