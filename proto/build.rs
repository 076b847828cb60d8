//! Compiles the `.proto` files into Rust, with a compiler that is itself a Rust library, and lists every call in them.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DIRECTORY}");
    let descriptors = protox::compile(FILES, [DIRECTORY])?;
    let mut calls = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                calls.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("calls.rs"), format!("&{calls:?}"))?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}

const DIRECTORY: &str = "proto";
const FILES: [&str; 4] = ["admin.proto", "cluster.proto", "migrator.proto", "node.proto"];
