//! What travels between boxes: Kafka frames, jute records, source ids
