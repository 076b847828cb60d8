//! Compiles the `.proto` files into Rust, with a compiler that is itself a Rust library.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DIRECTORY}");
    let descriptors = protox::compile(FILES, [DIRECTORY])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}

const DIRECTORY: &str = "proto";
const FILES: [&str; 3] = ["admin.proto", "cluster.proto", "node.proto"];
