//! What can go wrong with a bucket.

use sterna_storage_node::chunk_store::StoreError;
use sterna_storage_node::map::{MapError, ReferencesError};
use sterna_types::ChunkId;

/// Why something could not be read from a bucket, or written to it.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The bucket cannot be reached, or refuses: after as many attempts as make sense.
    #[error("{what}: {cause}")]
    Request {
        /// What was to be done, and to which object.
        what: String,
        /// What came of it, for people.
        cause: String,
    },
    /// An object is not there.
    #[error("the bucket has no object '{name}'")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// An object is not what was written.
    #[error("object '{name}' is damaged: {what}")]
    Damaged {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// An object was written by a later program.
    #[error("object '{name}' has version {found}, and this program knows {known} at most: use a later one")]
    Version {
        /// Its name.
        name: String,
        /// Its version.
        found: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// No pack has a chunk.
    #[error("the bucket does not have chunk {id}")]
    Gone {
        /// The chunk.
        id: ChunkId,
    },
    /// A part of a map is not what its place in the map says.
    #[error("chunk {id} is not what the map says: {source}")]
    Kind {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        source: ReferencesError,
    },
    /// What the node remembers of the bucket cannot be read or written.
    #[error("what is remembered of the bucket, in {path}: {what}")]
    Catalogue {
        /// Its directory.
        path: String,
        /// What the database says.
        what: String,
    },
    /// The store of this node.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The map of contents that are to be sent.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It took so long that what it relied on may have been collected: it is begun anew.
    #[error("it took so long that what it relied on in the bucket may have been collected")]
    TooLate,
    /// The operating system gives no random bytes.
    #[error(transparent)]
    Chance(#[from] sterna_runtime::chance::NoRandomBytes),
    /// Work on another thread ended in a panic.
    #[error("work for the bucket ended in a panic")]
    Panicked,
}

impl BucketError {
    /// Of a request about an object, or about the names that begin with one.
    pub(crate) fn request(what: &str, name: &str, source: &object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { .. } if is_about_object(source) => Self::NotFound { name: name.to_owned() },
            source => Self::Request { what: format!("cannot {what} '{name}'"), cause: told(source) },
        }
    }

    /// Something that is wrong with an object.
    pub(crate) fn damaged(name: impl ToString, what: impl ToString) -> Self {
        Self::Damaged { name: name.to_string(), what: what.to_string() }
    }
}

/// A bucket that is not there is told in the same way as an object that is not.
fn is_about_object(error: &object_store::Error) -> bool {
    !error.to_string().contains("NoSuchBucket")
}

/// What servers and the client say, in a line that says what to do where that is known.
fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let knows = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if knows(&["NoSuchBucket"]) {
        return "there is no such bucket: make it, or mend 'url' in sterna.toml".to_owned();
    }
    if knows(&["InvalidAccessKeyId", "NotSignedUp", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"]) {
        return "its credentials are refused: mend AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the file of 'credentials' in \
                sterna.toml"
            .to_owned();
    }
    if knows(&["AccessDenied", "403 Forbidden"]) {
        return "access is denied: let these credentials list the bucket, and read, write and delete its objects"
            .to_owned();
    }
    // The whole chain, the URL of the request with it; on one line.
    let mut chain = vec![text];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !chain.iter().any(|known| known.contains(&cause_text)) {
            chain.push(cause_text);
        }
        source = cause.source();
    }
    let line: String = chain.join(": ").split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_CAUSE).collect()
}

/// Servers answer with pages.
const MAX_CAUSE: usize = 400;
