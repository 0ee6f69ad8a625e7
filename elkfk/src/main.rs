//! The one binary.

mod kafka_tools;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    // `kafka-topics.sh …` by the name of a link, or `elkfk kafka-topics.sh …`.
    for at in 0..args.len().min(2) {
        if let Some(tool) = kafka_tools::tool_name(&args[at].to_string_lossy()) {
            return kafka_tools::run(tool, args.split_off(at + 1));
        }
    }
    eprintln!(
        "usage: elkfk TOOL …, where TOOL is one of {}",
        kafka_tools::tool_names().collect::<Vec<_>>().join(", ")
    );
    ExitCode::from(2)
}
