//! What the program says on its two streams. Nobody may be reading any more: that ends a tool quietly
//! and leaves everything else at its work.

use std::io::Write;

/// Prints for a tool whose output is all it is there for: it ends where nobody reads on.
pub(crate) fn or_end(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints for what has more to do than to print: a server that runs, files to write, an exit status to give.
pub(crate) fn and_go_on(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The same on standard error.
pub(crate) fn aside(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// `println!` that goes on where nobody reads.
macro_rules! sayln {
    ($($arg:tt)*) => { $crate::say::and_go_on(&format!("{}\n", format_args!($($arg)*))) };
}

/// `eprintln!` that goes on where nobody reads.
macro_rules! asideln {
    ($($arg:tt)*) => { $crate::say::aside(&format!("{}\n", format_args!($($arg)*))) };
}

pub(crate) use {asideln, sayln};
