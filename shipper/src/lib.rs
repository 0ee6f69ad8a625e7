//! Tails files, remembers positions in its registry, produces to a topic
