//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files as far as this user may, and returns what it is then.
///
/// The default of 1024 is from a time when programs kept such numbers in bit sets.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised it stays what it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)
}

/// What counts as no limit.
const UNLIMITED: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_may_be_had() {
        let limit = raise_limit();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(limit, now.maximum.or(now.current).unwrap_or(UNLIMITED));
    }
}
