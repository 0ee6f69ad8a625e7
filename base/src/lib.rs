//! What every box needs and none owns: named tasks and their shutdown, durable files, sizes and
//! durations as the ancestors write them, the clock, errors in one line, mistakes in a user's file, open files, telemetry, requests
//! that other sites' pages send.

pub mod clock;
pub mod durable;
pub mod errors;
pub mod foreign;
pub mod mistakes;
pub mod open_files;
pub mod tasks;
pub mod telemetry;
pub mod units;

pub use clock::now_ms;
pub use mistakes::{Mistake, Mistakes};
pub use tasks::Tasks;
