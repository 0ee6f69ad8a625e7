//! What the scenarios of a backlog share: a line of real boxes, files that are written at a rate, and what
//! the autoscaler says.

pub(crate) mod broker;
pub(crate) mod files;
pub(crate) mod scene;
pub(crate) mod slow_line;
pub(crate) mod told;
