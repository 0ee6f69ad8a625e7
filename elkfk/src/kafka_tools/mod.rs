//! The commands of Kafka's `bin/`, under their own names, with their own flags and output.
//!
//! What they print is compared with the real ones' in `tests/tests/kafka_tools_golden.rs`: answers
//! on standard output, refusals in the words of Kafka's classes, exit codes.

mod configs;
mod console_consumer;
mod console_producer;
mod consumer_groups;
mod delete_records;
mod errors;
mod get_offsets;
mod jvm_order;
mod options;
mod topics;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use elkfk_broker_client::{Client, Config};

use options::Options;

/// What `--version` prints. The tools are made after those of Kafka 3.4.1.
const VERSION: &str = concat!("3.4.1 (elkfk ", env!("CARGO_PKG_VERSION"), ")");

type Tool = fn(&[String]) -> Result<(), Failure>;

const TOOLS: &[(&str, Tool)] = &[
    ("kafka-cluster", cluster),
    ("kafka-configs", configs::run),
    ("kafka-console-consumer", console_consumer::run),
    ("kafka-console-producer", console_producer::run),
    ("kafka-consumer-groups", consumer_groups::run),
    ("kafka-delete-records", delete_records::run),
    ("kafka-get-offsets", get_offsets::run),
    ("kafka-topics", topics::run),
];

/// The name of a tool that is here, if `name` is one: a path and `.sh` at its end do not matter.
pub(crate) fn tool_name(name: &str) -> Option<&'static str> {
    let name = name.rsplit('/').next()?;
    let name = name.strip_suffix(".sh").unwrap_or(name);
    TOOLS.iter().map(|(tool, _)| *tool).find(|tool| *tool == name)
}

/// The names of all tools that are here, without `.sh`.
pub(crate) fn tool_names() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().map(|(tool, _)| *tool)
}

/// Runs a tool to its end. `args` are what follows its name.
///
/// The exit code is the real tool's; 2 if `name` is no tool that is here.
pub(crate) fn run(name: &str, args: Vec<OsString>) -> ExitCode {
    let Some(tool) = tool_name(name).and_then(|name| TOOLS.iter().find(|(tool, _)| *tool == name))
    else {
        crate::say::asideln!(
            "no tool named {name}; there are {}",
            tool_names().collect::<Vec<_>>().join(", ")
        );
        return ExitCode::from(2);
    };
    let args: Vec<String> =
        args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match (tool.1)(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody to tell where the streams are closed.
            let _ = std::io::stdout().write_all(failure.stdout.as_bytes());
            let _ = std::io::stderr().write_all(failure.stderr.as_bytes());
            ExitCode::from(failure.exit)
        }
    }
}

/// How a tool ends early, with what it says last.
#[derive(Debug)]
struct Failure {
    stdout: String,
    stderr: String,
    exit: u8,
}

impl Failure {
    /// As the Java runtime reports an exception that nobody caught.
    fn uncaught(class: &str, message: &str) -> Self {
        let stderr = format!("Exception in thread \"main\" {class}: {message}\n");
        Self { stdout: String::new(), stderr, exit: 1 }
    }

    fn stdout(text: impl Into<String>, exit: u8) -> Self {
        Self { stdout: text.into(), stderr: String::new(), exit }
    }
}

use crate::say::or_end as say;

/// `println!` that ends the tool where nobody reads on.
macro_rules! sayln {
    ($($arg:tt)*) => { $crate::say::or_end(&format!("{}\n", format_args!($($arg)*))) };
}
use sayln;

/// A client for the brokers that `--bootstrap-server` names, with what `--command-config` sets.
fn client(options: &Options, bootstrap: &str) -> Result<Client, Failure> {
    let mut config = Config::to(bootstrap);
    config.client_id = "adminclient-1".to_owned();
    if let Some(file) = options.one("command-config")? {
        for (key, value) in options::properties_file(file)? {
            match (key.as_str(), value.parse()) {
                ("client.id", _) => config.client_id = value,
                ("request.timeout.ms" | "default.api.timeout.ms", Ok(ms)) => {
                    config.timeout = std::time::Duration::from_millis(ms);
                }
                _ => log_line("WARN", &format!("{key} is not honoured in {file}"), "elkfk"),
            }
        }
    }
    Ok(Client::new(config))
}

/// A line of log as the tools write it to standard error.
fn log_line(level: &str, message: &str, logger: &str) {
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
    crate::say::asideln!("[{now}] {level} {message} ({logger})");
}

/// Runs a tool's requests to their end.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::uncaught("java.lang.Error", &error.to_string())),
    }
}

/// `kafka-cluster cluster-id`.
fn cluster(args: &[String]) -> Result<(), Failure> {
    const OPTIONS: &[options::Spec] = &[
        options::value("bootstrap-server", "host:port,…", "The brokers to ask."),
        options::value("config", "file", "Settings of the client."),
        options::value("command-config", "file", "The same."),
    ];
    let parsed = Options::parse(OPTIONS, args).map_err(|e| options::usage(OPTIONS, e.message))?;
    if args.first().map(String::as_str) != Some("cluster-id") {
        return Err(parsed.usage("usage: kafka-cluster cluster-id --bootstrap-server HOST:PORT"));
    }
    let Some(bootstrap) = parsed.one("bootstrap-server")? else {
        return Err(parsed.usage("Missing required argument \"[bootstrap-server]\""));
    };
    let client = client(&parsed, bootstrap)?;
    block_on(async {
        let cluster = client.brokers().await;
        let cluster = cluster.map_err(|e| Failure::stdout(format!("{e}\n"), 1))?;
        match cluster.id {
            Some(id) => sayln!("Cluster ID: {id}"),
            None => sayln!("No cluster ID found. The Kafka version is probably too old."),
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_found_by_link_name() {
        assert_eq!(tool_name("/usr/local/bin/kafka-topics.sh"), Some("kafka-topics"));
        assert_eq!(tool_name("kafka-topics"), Some("kafka-topics"));
        assert_eq!(tool_name("elkfk"), None);
    }

    #[test]
    fn every_flag_is_documented() {
        let page = include_str!("../../../docs/kafka-tools.md");
        let tables = [
            ("kafka-configs", configs::OPTIONS),
            ("kafka-console-consumer", console_consumer::OPTIONS),
            ("kafka-console-producer", console_producer::OPTIONS),
            ("kafka-consumer-groups", consumer_groups::OPTIONS),
            ("kafka-delete-records", delete_records::OPTIONS),
            ("kafka-get-offsets", get_offsets::OPTIONS),
            ("kafka-topics", topics::OPTIONS),
        ];
        for (tool, specs) in tables {
            let section = page.split("\n### ").find(|s| s.starts_with(&format!("{tool}.sh\n")));
            let section = section.unwrap_or_else(|| panic!("no section on {tool}"));
            for spec in specs {
                assert!(
                    section.contains(&format!("| `--{}` |", spec.name)),
                    "{tool} --{}",
                    spec.name
                );
            }
        }
    }
}
