//! Makes `elkfk_wire::kafka::messages` of the tables in `schema/`.

#[path = "build/emit.rs"]
mod emit;
#[path = "build/table.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod table;

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-changed=build");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let table = table::read(Path::new("schema"));
    let target = Path::new(&out).join("kafka_messages.rs");
    std::fs::write(&target, emit::rust(&table))
        .unwrap_or_else(|e| panic!("write {}: {e}", target.display()));
}
