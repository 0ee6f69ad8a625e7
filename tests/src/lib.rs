//! The whole path: end to end, against the ancestors
