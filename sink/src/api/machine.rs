//! What the process uses of the machine. Shell: reads `/proc`; what is not there is left out.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the whole process uses; under `elkfk up` that is every box.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) open_files: Option<u64>,
    pub(super) open_files_max: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    /// User and system time.
    pub(super) cpu: Duration,
    /// Of the machine, over 1, 5 and 15 minutes.
    pub(super) load: Option<[f64; 3]>,
}

pub(super) fn process() -> Process {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    let open_files = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<f64> = load.split(' ').take(3).flat_map(str::parse).collect();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Process {
        open_files,
        open_files_max: getrlimit(Resource::Nofile).current,
        virtual_bytes: bytes("VmSize:"),
        resident_bytes: bytes("VmRSS:"),
        cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
        load: load.try_into().ok(),
    }
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The system's name and version.
pub(super) fn system() -> (String, String) {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    (text(uname.sysname()), text(uname.release()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen() {
        let process = process();
        assert!(process.open_files.unwrap() > 2 && process.open_files_max.unwrap() > 2);
        assert!(process.virtual_bytes.unwrap() >= process.resident_bytes.unwrap());
        assert!(process.cpu > Duration::ZERO);
        assert!(process.load.is_some());
    }
}
