//! Record batches, format version 2: what Produce carries, a segment keeps and Fetch returns.
