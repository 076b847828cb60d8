//! The objects of a bucket, one request each. What is worth another attempt is attempted again below this.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::BucketError;

/// The objects below a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: String,
}

/// What a list says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its name, without the prefix.
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// When it was written, by the server's clock.
    pub(crate) modified_ms: u64,
}

impl Objects {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: prefix.to_owned() }
    }

    fn path(&self, name: &str) -> Path {
        if self.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.prefix)) }
    }

    /// Writes an object, or what is there of this name anew. Durable on return, all of it or nothing.
    pub(crate) async fn put(&self, name: &str, contents: Bytes) -> Result<(), BucketError> {
        let put = self.store.put(&self.path(name), PutPayload::from_bytes(contents)).await;
        put.map(drop).map_err(|error| BucketError::request("write", name, &error))
    }

    /// Writes an object that nobody has written yet; whether it was so. Of servers that know no conditions the last one wins.
    pub(crate) async fn put_new(&self, name: &str, contents: Bytes) -> Result<bool, BucketError> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.path(name), PutPayload::from_bytes(contents.clone()), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.put(name, contents).await.map(|()| true)
            }
            Err(error) => Err(BucketError::request("write", name, &error)),
        }
    }

    /// All of an object that has at most `most` bytes.
    pub(crate) async fn get(&self, name: &str, most: u64) -> Result<Bytes, BucketError> {
        let failed = |error| BucketError::request("read", name, &error);
        let got = self.store.get(&self.path(name)).await.map_err(failed)?;
        if got.meta.size > most {
            return Err(BucketError::damaged(name, format!("it has {} bytes, and {most} are the most", got.meta.size)));
        }
        got.bytes().await.map_err(failed)
    }

    /// A part of an object.
    pub(crate) async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let failed = |error| BucketError::request("read", name, &error);
        let got = self.store.get_opts(&self.path(name), options).await.map_err(failed)?;
        let bytes = got.bytes().await.map_err(failed)?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(BucketError::damaged(name, "it is shorter than it was"));
        }
        Ok(bytes)
    }

    /// When an object was written.
    pub(crate) async fn modified_ms(&self, name: &str) -> Result<u64, BucketError> {
        let head =
            self.store.head(&self.path(name)).await.map_err(|error| BucketError::request("read", name, &error))?;
        Ok(u64::try_from(head.last_modified.timestamp_millis()).unwrap_or(0))
    }

    /// Removes an object; one that is not there is removed already.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), BucketError> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) => Ok(()),
            Err(error) => match BucketError::request("delete", name, &error) {
                BucketError::NotFound { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    /// All objects whose names begin with these parts.
    pub(crate) async fn list(&self, parts: &str) -> Result<Vec<Listed>, BucketError> {
        let path = self.path(parts);
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let listed = self.store.list(Some(&path)).map_ok(|meta| Listed {
            name: meta.location.as_ref().get(skip..).unwrap_or_default().to_owned(),
            bytes: meta.size,
            modified_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        });
        listed.try_collect().await.map_err(|error| BucketError::request("list", parts, &error))
    }
}
