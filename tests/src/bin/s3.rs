//! `s3 DIRECTORY ACCESS_KEY SECRET_KEY`: an S3 server on this machine, for tests: every directory in DIRECTORY is a bucket, every
//! file in it an object. Requests have to be signed with the key.
//!
//! It is other people's server (`s3s-fs`) with a socket in front. It prints where it listens, `127.0.0.1:PORT`, and serves until it is
//! killed. An object that is being written has its name once all of it is there.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [directory, access_key, secret_key] = args.as_slice() else {
        bail!("give DIRECTORY, ACCESS_KEY and SECRET_KEY")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(directory.into(), access_key, secret_key))
}

async fn serve(directory: PathBuf, access_key: &str, secret_key: &str) -> Result<()> {
    let objects = FileSystem::new(&directory).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut service = S3ServiceBuilder::new(objects);
    service.set_auth(SimpleAuth::from_single(access_key, secret_key));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is free")?;
    println!("{}", listener.local_addr()?);
    loop {
        let (connection, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            // Clients go away in the middle of everything.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
